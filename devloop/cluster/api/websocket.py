"""A WebSocket (RFC 6455) through the API server, as Kubernetes' channel protocols use it.

Whole messages in, masked frames out, pings answered; no call but `open_websocket` blocks. What a
message means is its user's to know.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from devloop.cluster.api.upgrade import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.upgrade import UpgradedStream


_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_LONGEST_CONTROL = 125  # bytes; RFC 6455, 5.5
_LARGEST = 32768  # bytes of data a frame
_MOST_QUEUED = 131072  # bytes of frames that may wait for the socket


def open_websocket(connection: Connection, path: str, protocols: str, cancel: Cancel) -> WebSocket:
    """Ask for `path` with one of `protocols`, names with commas between them.

    Blocks until the API server has agreed. Raises `ApiError`, cluster/unreachable, `Cancelled`."""
    key = base64.b64encode(os.urandom(16)).decode()
    headers = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": protocols,
    }
    upgraded = upgrade(connection, "GET", path, headers, cancel)
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    accepted = upgraded.headers.get("sec-websocket-accept") == base64.b64encode(digest).decode()
    chosen = upgraded.headers.get("sec-websocket-protocol", "")
    if not accepted or chosen not in protocols.split(", "):
        upgraded.close()
        raise connection.lost(ValueError("the answer is not to this WebSocket request"))
    return WebSocket(upgraded)


class WebSocket:
    """The client's side. One thread at a time, but for `shut`; a bounded number of bytes waits to
    leave.

    `closed`: nothing comes any more, beside what has arrived."""

    def __init__(self, stream: UpgradedStream) -> None:
        self.closed = False
        self._stream = stream
        self._frames = WebSocketFrames()
        self._out = bytearray()

    def fileno(self) -> int:
        return self._stream.fileno()

    def arrived(self) -> Iterator[bytes]:
        """The messages that have arrived and were not taken yet."""
        for opcode, message in self._frames:
            if opcode == _CLOSE:
                self.closed = True
                return
            if opcode == _PING:
                self._out += frame(_PONG, message)
                self.flush()
            if opcode in (_BINARY, _TEXT):
                yield message

    def fill(self) -> bool:
        """Read on; False when there is nothing now. Raises ConnectionResetError."""
        chunk = self._stream.receive()
        if chunk is None:
            return False
        self.closed = not chunk
        self._frames.feed(chunk)
        return True

    def receive(self) -> bytes | None:
        """The next message that is not empty, None when there is none now, b"" at the end: for a
        byte stream in messages. Raises ConnectionResetError."""
        while True:
            if message := next((found for found in self.arrived() if found), None):
                return message
            if self.closed:
                return b""
            if not self.fill():
                return None

    def push(self, out: bytearray) -> bool:
        """Send from the front of `out`; True when all of it has left. Raises
        ConnectionResetError."""
        while out and (taken := self.send(b"", out)):
            del out[:taken]
        return self.flush() and not out

    def send(self, channel: bytes, data: bytes | bytearray | memoryview) -> int:
        """How many bytes of `data` were taken, in messages that begin with `channel`: 0 when it is
        busy. What was taken may still have to be pushed by `flush`. Raises ConnectionResetError."""
        if self._out and not self.flush() and len(self._out) >= _MOST_QUEUED:
            return 0
        taken = 0
        while taken < len(data) and len(self._out) < _MOST_QUEUED:
            part = bytes(data[taken : taken + _LARGEST])
            self._out += frame(_BINARY, channel + part)
            taken += len(part)
        self.flush()
        return taken

    def flush(self) -> bool:
        """Push what is queued; True when all of it has left. Raises ConnectionResetError."""
        return self._stream.push(self._out)

    def shut(self) -> None:
        """End it, from any thread: whoever waits for it wakes up."""
        self._stream.shut()

    def close(self) -> None:
        """Close at once; safe to repeat."""
        if self.fileno() >= 0:
            with contextlib.suppress(OSError):
                if not self._out:
                    self._stream.push(bytearray(frame(_CLOSE, (1000).to_bytes(2, "big"))))
            self._stream.close()


def frame(opcode: int, payload: bytes) -> bytes:
    """One final frame from client to server: masked, as RFC 6455, 5.3 asks."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + length.to_bytes(8, "big")
    mask = os.urandom(4)
    # One XOR of two big integers is a hundred times faster than a loop over bytes.
    pattern = int.from_bytes((mask * (length // 4 + 1))[:length], "little")
    masked = (int.from_bytes(payload, "little") ^ pattern).to_bytes(length, "little")
    return head + mask + masked


class WebSocketFrames:
    """The server's side of a WebSocket taken apart: feed it bytes, iterate (opcode, message).

    Fragments are put together; control frames may stand between them. Raises ConnectionResetError
    for what RFC 6455 does not allow."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._opcode = 0  # of the message whose first part has come
        self._parts = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while (one := self._next()) is not None:
            final, opcode, payload = one
            if opcode in (_CLOSE, _PING, _PONG):
                if not final or len(payload) > _LONGEST_CONTROL:
                    raise _violation("a control frame that is long or in parts")
                yield opcode, payload
                continue
            if (opcode == _CONTINUED) != bool(self._opcode) or opcode > _BINARY:
                raise _violation(f"a frame of opcode {opcode} out of place")
            self._opcode = self._opcode or opcode
            self._parts += payload
            if final:
                opcode, payload = self._opcode, bytes(self._parts)
                self._opcode, self._parts = 0, bytearray()
                yield opcode, payload

    def _next(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70 or second & 0x80:
            raise _violation("reserved bits or a mask")
        length, start = second & 0x7F, 2
        if length > _LONGEST_CONTROL:
            start = 4 if length == 126 else 10
            length = int.from_bytes(buffer[2:start], "big") if len(buffer) >= start else 0
        if len(buffer) < start or len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return bool(first & 0x80), first & 0x0F, payload


def _violation(what: str) -> ConnectionResetError:
    return ConnectionResetError(f"the server does not speak RFC 6455: {what}")
