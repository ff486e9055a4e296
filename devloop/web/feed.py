"""What one reader of the page gets of the event stream, as server-sent events. Pure.

The numbers are those of the session's history, and each piece carries the last one in it. So a
reader that lost its connection names the last number that it has, and goes on from there: no record
comes twice, and what is not kept any more is counted where it is missing.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from devloop.events import Dropped, Record, SessionEnded, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


PING = b": still here\n\n"

# Records of one piece at most: it is the least that a reader has to take at once.
_BATCH = 512


class Happened(Protocol):
    """What has happened in the session, as far as it is kept; never waits."""

    def state(self) -> dict[str, Any]:
        """What the session has come to; `seq` is the number of the last record in it."""

    def after(self, seq: int, limit: int) -> list[Record]:
        """The oldest records that are kept and have a higher number, at most `limit`."""


class EventFeed:
    """The records after number `seen`; `over` once the session's last one was handed out, `behind`
    while there may be more of them than the piece before could hold."""

    def __init__(self, happened: Happened, seen: int) -> None:
        self.over = False
        self.behind = True
        self._happened = happened
        self._seen = seen

    def head(self, facts: Mapping[str, Any]) -> bytes:
        """What comes first, `event: state`: `facts`, and the `state` so far. What a reader has of
        services becomes that; the records that follow then lead to the same, whatever of them is
        not kept."""
        said = json.dumps({**facts, "state": self._happened.state()}, separators=(",", ":"))
        return f"event: state\ndata: {said}\n\n".encode()

    def next(self) -> bytes:
        """The next piece, empty while there is nothing new: a record a line."""
        records = self._happened.after(self._seen, _BATCH)
        self.behind = len(records) == _BATCH
        if not records:
            return b""
        data = "".join(f"data: {to_json(record)}\n" for record in self._told(records))
        self.over = any(isinstance(record.event, SessionEnded) for record in records)
        return f"id: {self._seen}\n{data}\n".encode()

    def _told(self, records: Iterable[Record]) -> Iterable[Record]:
        for record in records:
            lost = record.seq - self._seen - 1
            self._seen = record.seq
            if isinstance(record.event, Dropped):
                # Lost before it came here, and with it perhaps what lay before.
                yield Record(record.seq, record.ts, Dropped(count=lost))
                continue
            if lost > 0:
                yield Record(record.seq - 1, record.ts, Dropped(count=lost))
            yield record
