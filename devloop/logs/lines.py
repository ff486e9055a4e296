"""From the bytes of a log stream to lines with the kubelet's timestamps. Pure.

With `timestamps=true` the kubelet puts `2006-01-02T15:04:05.000000000Z07:00` and a space before
every line (kubernetes, pkg/kubelet/kuberuntime/logs); Docker's own driver leaves out trailing
zeros of the fraction. Timestamps are compared as text, so they are brought to one form first.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from devloop.base.lazy_dataclass import dataclass

# A line longer than this many bytes is shown in pieces.
LINE_LIMIT = 64 * 1024

# The longest prefix is 36 bytes; a line without a space by then has none.
_PREFIX_LIMIT = 40

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One line or, if it is very long, one piece of it.

    `key` orders pieces by time and is empty for a line without a timestamp: the kubelet's own
    messages. `ts` is the timestamp as received. `index` counts the pieces of one line from 0;
    `more`: others follow."""

    key: str
    ts: str
    index: int
    body: bytes
    more: bool = False

    @property
    def text(self) -> str:
        """What to show: decoded, without a carriage return at the end, marked where it was cut."""
        body = self.body if self.more else self.body.removesuffix(b"\r")
        text = body.decode("utf-8", "replace")
        return f"{'…' if self.index else ''}{text}{'…' if self.more else ''}"


class Splitter:
    """Cuts chunks of any size into pieces; keeps at most one piece and one chunk.

    The same stream gives the same pieces however it is chunked."""

    def __init__(self) -> None:
        self._rest = b""
        self._stamp = ("", "")
        self._index = 0

    def feed(self, chunk: bytes) -> list[Piece]:
        *lines, rest = (self._rest + chunk).split(b"\n")
        pieces: list[Piece] = []
        for line in lines:
            body = self._cut(line, pieces)
            pieces.append(Piece(*self._stamp, self._index, body))
            self._index = 0
        self._rest = rest
        if len(rest) > LINE_LIMIT + _PREFIX_LIMIT:
            self._rest = self._cut(rest, pieces)
        return pieces

    def end(self) -> list[Piece]:
        """The last line, if it had no newline. Whether it is whole only the caller can know."""
        return self.feed(b"\n") if self._rest else []

    def _cut(self, line: bytes, pieces: list[Piece]) -> bytes:
        """Add the full pieces of `line`, return what remains of it."""
        body = line
        if self._index == 0:
            self._stamp, body = _stamped(line)
        while len(body) > LINE_LIMIT:
            cut = LINE_LIMIT
            while cut > LINE_LIMIT - 4 and body[cut] & 0xC0 == 0x80:  # inside a character
                cut -= 1
            pieces.append(Piece(*self._stamp, self._index, body[:cut], more=True))
            self._index += 1
            body = body[cut:]
        return body


def _stamped(line: bytes) -> tuple[tuple[str, str], bytes]:
    head, _, body = line.partition(b" ") if b" " in line[:_PREFIX_LIMIT] else (line, b"", b"")
    ts = head[:_PREFIX_LIMIT].decode("ascii", "replace")
    key = to_key(ts)
    return ((key, ts), body) if key else (("", ""), line)


def to_key(ts: str) -> str:
    """An RFC 3339 timestamp as `2006-01-02T15:04:05.000000000` in UTC; empty if it is none.

    Keys sort like the times they stand for."""
    if len(ts) == 30 and ts[29] == "Z" and ts[19] == "." and ts[4] == "-" and ts[10] == "T":
        return ts[:29]
    match = _TIMESTAMP.fullmatch(ts)
    if match is None:
        return ""
    seconds, fraction, zone = match.groups()
    if zone != "Z":
        try:
            utc = datetime.fromisoformat(seconds + zone).astimezone(UTC)
        except (ValueError, OverflowError):
            return ""
        seconds = utc.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{seconds}.{fraction or '':0<9}"


def second_before(key: str) -> str:
    """The start of the second before the one that `key` lies in, as a key without a fraction."""
    try:
        moment = datetime.fromisoformat(key[:19]) - timedelta(seconds=1)
    except (ValueError, OverflowError):
        return key[:19]
    return moment.isoformat(timespec="seconds")
