"""Follows HTTP/1.x on a connection that is only passed on, by its framing alone (RFC 9112, 6).

It answers two questions about the moment: is nothing under way, so that another pod can answer
the next request; and may what is under way be sent once more, because it is one whole request of a
safe method and its client has not seen a byte of the answer. When in doubt, and for every other
protocol, the answer to both is no. It changes no byte and keeps none.
"""

from __future__ import annotations

import collections
import enum
import re

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1; TRACE is nobody's friend
_MOST_HEAD = 65536
_MOST_PIPELINED = 32
_REQUEST_LINE = re.compile(rb"([A-Z]{3,20}) [^ \r\n]+ HTTP/1\.([01])\Z")
_REQUEST_START = re.compile(rb"[A-Z]{1,20}(?: |\Z)")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |\Z)")


class _Where(enum.Enum):
    """What the next byte of one direction belongs to."""

    HEAD = "head"
    BODY = "body"
    CHUNK_SIZE = "chunk size"
    CHUNK = "chunk"
    TRAILER = "trailer"
    UNTIL_END = "until the connection ends"


class _Lost(Exception):  # noqa: N818 - an answer, not an error
    """This is not, or no more, HTTP/1.x as far as can be seen."""


class _Head:
    """The first line and what the fields mean for framing."""

    def __init__(self, head: bytes) -> None:
        self.first, *lines = head.split(b"\r\n")
        fields: dict[bytes, list[bytes]] = collections.defaultdict(list)
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise _Lost
            fields[name.lower()].append(value.strip().lower())
        lengths, codings = fields[b"content-length"], fields[b"transfer-encoding"]
        if not all(map(bytes.isdigit, lengths)) or len({*map(int, lengths)}) > 1:
            raise _Lost
        if codings and (lengths or {*codings} != {b"chunked"}):
            raise _Lost
        self.length = int(lengths[0]) if lengths else None
        self.chunked = bool(codings)
        self.is_events = any(x.startswith(b"text/event-stream") for x in fields[b"content-type"])
        options = [x.strip() for value in fields[b"connection"] for x in value.split(b",")]
        self.close = b"close" in options
        self.keep_alive = b"keep-alive" in options


class _Side:
    """One direction: where in a message it is."""

    def __init__(self) -> None:
        self.where = _Where.HEAD
        self._head = bytearray()
        self._left = 0

    @property
    def between(self) -> bool:
        """Whether the last message is whole and no byte of another has come."""
        return self.where is _Where.HEAD and not self._head

    def feed(self, data: bytes, pos: int) -> tuple[int, bytes | None]:
        """Go on from `pos` to the end of a head, of a message or of `data`: the new position,
        and the head when one is whole."""
        if self.where is _Where.HEAD:
            return self._to_line(data, pos, b"\r\n\r\n")
        if self.where is _Where.UNTIL_END:
            return len(data), None
        if self.where in (_Where.BODY, _Where.CHUNK):
            step = min(self._left, len(data) - pos)
            self._left -= step
            if not self._left:
                self.where = _Where.HEAD if self.where is _Where.BODY else _Where.CHUNK_SIZE
            return pos + step, None
        pos, line = self._to_line(data, pos, b"\r\n")
        if line is not None:
            self._chunk_line(line)
        return pos, None

    def _to_line(self, data: bytes, pos: int, end: bytes) -> tuple[int, bytes | None]:
        before = len(self._head)
        self._head += data[pos : pos + _MOST_HEAD]
        found = self._head.find(end, max(0, before - len(end)))
        if found < 0:
            if len(self._head) >= _MOST_HEAD:
                raise _Lost
            return len(data), None
        line = bytes(self._head[:found])
        self._head.clear()
        return pos + found + len(end) - before, line

    def _chunk_line(self, line: bytes) -> None:
        if self.where is _Where.TRAILER:
            self.where = _Where.TRAILER if line else _Where.HEAD
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise _Lost from error
        if size:
            self.where, self._left = _Where.CHUNK, size + 2  # with the line's end after it
        else:
            self.where = _Where.TRAILER

    def body(self, head: _Head) -> None:
        if head.chunked:
            self.where = _Where.CHUNK_SIZE
        elif head.length:
            self.where, self._left = _Where.BODY, head.length


class Exchange:
    """The requests and answers on one client's connection. Feed it what the client sends and what
    it is sent, in order."""

    def __init__(self) -> None:
        self._up = _Side()
        self._down = _Side()
        self._waiting: collections.deque[tuple[str, bool]] = collections.deque()
        self._answering: tuple[str, bool] | None = None  # the one whose answer is under way
        self._is_events = False
        self._silent = True  # no byte of the answer that is due has come
        self._ends = False  # one side announced that the connection ends after this
        self._lost = False
        self._last_is_safe = False

    @property
    def idle(self) -> bool:
        """Every request is answered, nothing is under way and the connection goes on."""
        return self._all_said and not self._ends

    @property
    def over(self) -> bool:
        """Every request is answered and the connection was announced to end with that."""
        return self._all_said and self._ends

    @property
    def _all_said(self) -> bool:
        return not self._lost and not self._waiting and self._up.between and self._down.between

    @property
    def repeatable(self) -> bool:
        """One whole request is under way, which may be sent again to somebody else."""
        return (
            not self._lost
            and len(self._waiting) == 1
            and self._last_is_safe
            and self._silent
            and self._up.between
            and self._down.between
        )

    @property
    def retractable(self) -> bool:
        """The answer to one whole safe request has begun, is not whole, and is no stream that
        wants to be seen as it comes: whoever kept it back may forget it with `retract`."""
        return (
            not self._lost
            and not self._is_events
            and len(self._waiting) + (self._answering is not None) == 1
            and self._last_is_safe
            and not self._silent
            and self._up.between
        )

    @property
    def counted(self) -> bool:
        """The answer under way says how long it is: its client has no use for a part of it."""
        return self._down.where is _Where.BODY

    @property
    def until_end(self) -> bool:
        """The answer under way is whole when the connection ends, however it does."""
        return self._down.where is _Where.UNTIL_END

    def retract(self) -> None:
        """Nobody has seen what was answered: the request is as good as not answered."""
        if self._answering is not None:
            self._waiting.appendleft(self._answering)
        self._answering, self._down = None, _Side()
        self._silent, self._ends, self._is_events = True, False, False

    def asked(self, data: bytes) -> None:
        """The client sent `data`."""
        pos = 0
        try:
            while pos < len(data) and not self._lost:
                if self._up.between and not _REQUEST_START.match(data, pos, pos + 21):
                    raise _Lost
                pos, head = self._up.feed(data, pos)
                if head is not None:
                    self._request(_Head(head))
        except _Lost:
            self._lost = True

    def answered(self, data: bytes) -> None:
        """The client was sent `data`."""
        self._silent = False
        pos = 0
        try:
            while pos < len(data) and not self._lost:
                if self._down.between and not self._waiting:
                    raise _Lost
                pos, head = self._down.feed(data, pos)
                if head is not None:
                    self._answer(_Head(head))
                if self._down.between:
                    self._answering = None
                    self._silent = pos == len(data)
        except _Lost:
            self._lost = True

    def _request(self, head: _Head) -> None:
        line = _REQUEST_LINE.match(head.first)
        if line is None or len(self._waiting) >= _MOST_PIPELINED or self._ends:
            raise _Lost
        method = line[1].decode()
        if method == "CONNECT":
            raise _Lost
        self._last_is_safe = method in _SAFE and not head.length and not head.chunked
        lasts = not head.close and (line[2] == b"1" or head.keep_alive)
        self._waiting.append((method, lasts))
        self._up.body(head)

    def _answer(self, head: _Head) -> None:
        line = _STATUS_LINE.match(head.first)
        if line is None or not self._waiting:
            raise _Lost
        status = int(line[2])
        if status == 101:
            raise _Lost
        if status < 200:
            return
        method, lasts = self._answering = self._waiting.popleft()
        self._is_events = head.is_events
        bare = method == "HEAD" or status in (204, 304)
        if not bare and head.length is None and not head.chunked:
            self._down.where = _Where.UNTIL_END
        elif not bare:
            self._down.body(head)
        if not lasts or head.close or (line[1] == b"0" and not head.keep_alive):
            self._ends = True
