"""What has happened in a session so far, as much of it as is kept, for readers that come late.

One thread appends, another reads; readers keep a `Cursor` each, so a slow one costs its place and
no memory. What is kept is bounded: what is many and stands for itself (log lines, progress) goes
first, so that a flood of it does not push out what iterations did. Nothing here waits.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from devloop.control.session_file import SessionView
from devloop.events import Dropped, LogLine, Record, StepProgress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_EVENTS = 5000
_LINES = 10_000

# In characters, of all log lines together.
_TEXT = 4 * 1024 * 1024


class History:
    """Keeps so many `events`, and so many `lines` with so many characters of `text` together."""

    def __init__(self, *, events: int = _EVENTS, lines: int = _LINES, text: int = _TEXT) -> None:
        self._lock = threading.Lock()
        self._limits = (events, lines, text)
        self._events: deque[Record] = deque()
        self._lines: deque[Record] = deque()
        self._text = 0
        self._view = SessionView()
        self._last = 0

    def extend(self, records: Sequence[Record]) -> None:
        """Take records in, in the order of their numbers."""
        with self._lock:
            for record in records:
                self._take(record)

    @property
    def last(self) -> int:
        """The number of the newest record, 0 before the first."""
        with self._lock:
            return self._last

    def state(self) -> dict[str, Any]:
        """What the session has come to, as `read_session` has it; `seq` is the last record in it.
        Never changes."""
        with self._lock:
            return {**self._view.copy(), "seq": self._last}

    def after(self, seq: int, limit: int) -> list[Record]:
        """The oldest records that are kept and have a higher number, at most `limit`, in order."""
        with self._lock:
            newer = [_newer(kept, seq) for kept in (self._events, self._lines)]
        both = sorted((r for kept in newer for r in reversed(kept)), key=lambda record: record.seq)
        return list(islice(both, limit))

    def _take(self, record: Record) -> None:
        events, lines, text = self._limits
        self._last = record.seq
        kind = type(record.event)
        if kind is LogLine or kind is StepProgress:
            # Thousands a second, and nothing to the view.
            self._lines.append(record)
            self._text += _size(record)
        else:
            self._events.append(record)
            self._view.take(record)
        while len(self._lines) > lines or self._text > text:
            self._text -= _size(self._lines.popleft())
        while len(self._events) > events:
            self._events.popleft()


class Cursor:
    """How far one reader has got, and how its numbers differ from the stream's since it missed
    something: it is told of that as every reader of the stream is (see engine/bus.py)."""

    def __init__(self) -> None:
        self.seen = 0
        self._shift = 0

    def numbered(self, records: Iterable[Record]) -> list[Record]:
        """What to hand over for the next records that are kept."""
        found: list[Record] = []
        for record in records:
            lost = record.seq - self.seen - 1
            self.seen = record.seq
            event = record.event
            if isinstance(event, Dropped):
                # Lost before it came here, and with it perhaps what lay before.
                event = Dropped(count=lost)
            elif lost > 0:
                seq = record.seq + self._shift
                found.append(Record(seq, record.ts, Dropped(count=lost)))
                self._shift += 1
            found.append(Record(record.seq + self._shift, record.ts, event))
        return found


def _newer(kept: deque[Record], seq: int) -> list[Record]:
    """Newest first: a reader that keeps up looks at no more than is new."""
    return list(takewhile(lambda record: record.seq > seq, reversed(kept)))


def _size(record: Record) -> int:
    event = record.event
    return len(event.text) if isinstance(event, LogLine) else 0
