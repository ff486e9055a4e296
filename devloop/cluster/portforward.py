"""One byte stream to a port of a pod, through the API server, where no tunnel can be had.

The protocol is `v4.channel.k8s.io` over a WebSocket (RFC 6455), one connection a stream: the API
server passes it to the kubelet and that to the container runtime, which connects to the port in
the pod's network namespace. Proxies that know no SPDY let it through. kubernetes' own client is
not used for it: it needs a thread and a socket pair a stream, buffers without a bound and fails
above 1024 descriptors. Knows nothing of local ports, retries or which pod to take.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import ssl
from typing import TYPE_CHECKING

from devloop.cluster.failures import connection_error
from devloop.cluster.tunnel import failure
from devloop.cluster.upgrade import upgrade

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from devloop.cluster.connection import Connection
    from devloop.engine.cancel import Cancel

__all__ = ["Frames", "PodPort", "frame", "open_port"]

_PROTOCOL = "v4.channel.k8s.io"
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_DATA, _ERROR = b"\x00", b"\x01"  # channels of the first port; the second would have 2 and 3
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_READ = 65536
_MOST_QUEUED = 65536  # bytes of frames that may wait for the socket
_LARGEST = 32768  # bytes of data a frame


def open_port(
    connection: Connection, namespace: str, pod: str, port: int, cancel: Cancel
) -> PodPort:
    """Open a stream to `port` of the pod. Blocks until the API server has agreed.

    Whether anything listens on the port turns out later: `PodPort.receive` raises
    ConnectionRefusedError then. Raises `DevloopError` (cluster/not-found, cluster/forbidden,
    cluster/unreachable, ...), `Cancelled`."""
    key = base64.b64encode(os.urandom(16)).decode()
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
    headers = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": _PROTOCOL,
    }
    upgraded = upgrade(connection, "GET", path, headers, cancel)
    accept = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    if upgraded.headers.get("sec-websocket-accept") != base64.b64encode(accept).decode():
        upgraded.sock.close()
        wrong = ValueError("the answer is not to this WebSocket request")
        raise connection_error(wrong, connection.server, context=connection.context)
    return PodPort(upgraded.sock, upgraded.rest)


class PodPort:
    """A byte stream that never blocks; wait for `fileno` with select. One thread at a time.

    There is no half-close: the protocol has no message for it, and the runtimes end the whole
    stream a second after one direction ended (containerd, after socat's `-t`)."""

    def __init__(self, sock: socket.socket, received: bytes = b"") -> None:
        sock.setblocking(False)
        self._sock = sock
        self._frames = Frames()
        self._frames.feed(received)
        self._out = bytearray()
        self._unread = [2, 2]  # each channel opens with the port's number in two bytes
        self._ended = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> bytes | None:
        """The next bytes from the pod: None when there are none now, b"" for good at the end.

        Raises ConnectionRefusedError when nothing listens on the port, ConnectionResetError when
        the stream breaks; both carry what the node said."""
        while (payload := self._queued()) is None:
            try:
                chunk = self._sock.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except OSError as error:
                raise ConnectionResetError(f"connection to the API server lost: {error}") from error
            self._ended = not chunk
            self._frames.feed(chunk)
        return payload

    def _queued(self) -> bytes | None:
        """The next payload among the frames that have arrived, b"" at the end of the stream."""
        for opcode, message in self._frames:
            if opcode == _CLOSE:
                self._ended = True
                break
            if opcode == _PING:
                self._out += frame(_PONG, message)
                self.flush()
            if opcode not in (_BINARY, _TEXT) or message[:1] not in (_DATA, _ERROR):
                continue
            channel = message[0]
            skip = min(self._unread[channel], len(message) - 1)
            self._unread[channel] -= skip
            payload = message[1 + skip :]
            if payload and channel == _ERROR[0]:
                raise failure(payload.decode("utf-8", "replace"))
            if payload:
                return payload
        return b"" if self._ended else None

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes were taken: 0 when the stream is busy. What was taken may still have to
        be pushed by `flush`. Raises ConnectionResetError."""
        if self._out and not self.flush() and len(self._out) >= _MOST_QUEUED:
            return 0
        taken = 0
        while taken < len(data) and len(self._out) < _MOST_QUEUED:
            part = data[taken : taken + _LARGEST]
            self._out += frame(_BINARY, _DATA + part)
            taken += len(part)
        self.flush()
        return taken

    def flush(self) -> bool:
        """Push what is queued; True when all of it has left. Raises ConnectionResetError."""
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:
                raise ConnectionResetError(f"connection to the API server lost: {error}") from error
            del self._out[:sent]
        return True

    def shutdown_write(self) -> bool:
        """False: the pod cannot be told, and goes on sending what it has to send."""
        return False

    def ping(self) -> None:
        """Traffic for whoever on the way drops idle connections. Raises ConnectionResetError."""
        self._out += frame(_PING, b"")
        self.flush()

    def close(self) -> None:
        """Close at once; safe to repeat."""
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                if not self._out:
                    self._sock.send(frame(_CLOSE, (1000).to_bytes(2, "big")))
            self._sock.close()


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


class Frames:
    """The server's side of a WebSocket taken apart: feed it bytes, iterate (opcode, message).

    Fragments are put together; control frames may stand between them. Raises ConnectionResetError
    for what RFC 6455 does not allow."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._opcode = 0
        self._parts = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while (one := self._next()) is not None:
            final, opcode, payload = one
            if opcode >= _CLOSE:
                yield opcode, payload
                continue
            if opcode != _CONTINUED:
                self._opcode = opcode
            if final and not self._parts:
                yield self._opcode, payload
                continue
            self._parts += payload
            if final:
                payload, self._parts = bytes(self._parts), bytearray()
                yield self._opcode, payload

    def _next(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70 or second & 0x80:
            raise ConnectionResetError("the server does not speak plain RFC 6455")
        length, start = second & 0x7F, 2
        if length == 126:
            start = 4
            length = int.from_bytes(buffer[2:4], "big") if len(buffer) >= 4 else 0
        elif length == 127:
            start = 10
            length = int.from_bytes(buffer[2:10], "big") if len(buffer) >= 10 else 0
        if len(buffer) < start or len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return bool(first & 0x80), first & 0x0F, payload
