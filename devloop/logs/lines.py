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

# Of what draws over itself without an end of line so many bytes are one piece: a progress bar is
# seen every few seconds while it grows.
REDRAWN_LIMIT = 4 * 1024

# The longest prefix is 36 bytes; a line without a space by then has none.
_PREFIX_LIMIT = 40

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII
)

# What takes the cursor back to the start of its line, as a program without a terminal writes it
# too: a carriage return, CHA to the first column (npm, yarn).
_RETURN = re.compile(r"\r|\x1b\[[01]?G")

# EL and ED: with 2 the line is empty, else what is to the right of the cursor goes.
_EMPTIED = re.compile(r"\x1b\[2[KJ]")
_ERASED = re.compile(r"\x1b\[0?[KJ]")
_SEQUENCE = re.compile(r"\x1b\[[0-9;:?]*[@-~]")


@dataclass(frozen=True, slots=True)
class Piece:
    """One line or, if it is very long, one piece of it.

    `key` orders pieces by time and is empty for a line without a timestamp: the kubelet's own
    messages. `ts` is the timestamp as received. `index` counts the pieces of one line from 0;
    `more`: it goes on in the next; `joined`: it goes on from the last."""

    key: str
    ts: str
    index: int
    body: bytes
    more: bool = False
    joined: bool = False

    @property
    def text(self) -> str:
        """What to show: decoded, marked where it was cut. Of what draws over itself, as a progress
        bar does, that is what a terminal shows in the end."""
        text = self.body.rstrip(b"\r").decode("utf-8", "replace")
        *before, last = _RETURN.split(text)
        text = _drawn_over([*before, last]) if before else last
        joined = self.joined and not before
        return f"{'…' if joined else ''}{text}{'…' if self.more else ''}"


class Splitter:
    """Cuts chunks of any size into pieces; keeps at most one piece and one chunk.

    The same stream gives the same pieces however it is chunked."""

    def __init__(self) -> None:
        self._rest = b""
        self._stamp = ("", "")
        self._index = 0
        self._joined = False

    def feed(self, chunk: bytes) -> list[Piece]:
        *lines, rest = (self._rest + chunk).split(b"\n")
        pieces: list[Piece] = []
        for line in lines:
            body = self._cut(line, pieces)
            pieces.append(Piece(*self._stamp, self._index, body, joined=self._joined))
            self._index, self._joined = 0, False
        self._rest = rest
        if len(rest) > REDRAWN_LIMIT + _PREFIX_LIMIT and self._has_full_piece(rest):
            self._rest = self._cut(rest, pieces)
        return pieces

    def _has_full_piece(self, line: bytes) -> bool:
        body = line if self._index else _stamped(line)[1]
        return len(body) > LINE_LIMIT or b"\r" in body[:REDRAWN_LIMIT]

    def end(self) -> list[Piece]:
        """The last line, if it had no newline. Whether it is whole only the caller can know."""
        return self.feed(b"\n") if self._rest else []

    def _cut(self, line: bytes, pieces: list[Piece]) -> bytes:
        """Add the full pieces of `line`, return what remains of it."""
        body = line
        if self._index == 0:
            self._stamp, body = _stamped(line)
        while len(body) > REDRAWN_LIMIT:
            if (end := body.rfind(b"\r", 0, REDRAWN_LIMIT)) >= 0:
                piece = Piece(*self._stamp, self._index, body[:end], joined=self._joined)
                body, self._joined = body[end + 1 :], False
            elif len(body) > LINE_LIMIT:
                cut = LINE_LIMIT
                while cut > LINE_LIMIT - 4 and body[cut] & 0xC0 == 0x80:  # inside a character
                    cut -= 1
                kept = body[:cut]
                piece = Piece(*self._stamp, self._index, kept, more=True, joined=self._joined)
                body, self._joined = body[cut:], True
            else:
                break
            pieces.append(piece)
            self._index += 1
        return body


def _drawn_over(parts: list[str]) -> str:
    """What is seen after `parts` were written over each other, each from the first column; the last
    that was to be seen if all was erased in the end, as a bar is that leaves nothing behind."""
    shown: list[str] = []
    columns = 0
    for part in reversed(parts):
        text = _EMPTIED.split(part)[-1]
        seen = _SEQUENCE.sub("", text)
        if not columns and not seen.strip():
            continue
        if len(seen) > columns:
            # Colours are kept of the newest, which is whole.
            shown.append(seen[columns:] if columns else text)
            columns = len(seen)
        if text != part or _ERASED.search(part):
            break
    return "".join(shown) or next((p for p in reversed(parts) if _SEQUENCE.sub("", p).strip()), "")


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


def seconds_between(first: str, last: str) -> float:
    """From one key to another, in seconds to the microsecond; 0 where one is no time."""
    try:
        return (
            datetime.fromisoformat(last[:26]) - datetime.fromisoformat(first[:26])
        ).total_seconds()
    except ValueError:
        return 0.0
