"""A command in a container with its standard streams, through the API server.

The protocol is `v5.channel.k8s.io` over a WebSocket, `v4` where the server is older: one byte names
the channel (0 stdin, 1 stdout, 2 stderr, 3 how it ended, in v5 also 255: a channel is closed). A
stream that is open costs nothing until it is used, and one round trip then. Knows nothing of what
the command is for, of retries or of which pod to take.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from devloop.cluster.failures import connection_error
from devloop.cluster.portforward import Frames, frame
from devloop.cluster.upgrade import upgrade

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from devloop.cluster.connection import Connection
    from devloop.engine.cancel import Cancel

__all__ = ["ExecStream", "open_exec"]

_PROTOCOLS = "v5.channel.k8s.io, v4.channel.k8s.io"
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_STDIN, _STDOUT, _STDERR, _STATUS = 0, 1, 2, 3
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_READ = 65536
_LARGEST = 32768  # bytes of data a frame
_MOST_QUEUED = 4 * _LARGEST  # bytes of frames that may wait for the socket
_MOST_STDERR = 4096  # bytes of the last words that are kept


def open_exec(
    connection: Connection,
    namespace: str,
    pod: str,
    container: str,
    *,
    argv: Sequence[str],
    cancel: Cancel,
) -> ExecStream:
    """Start `argv` in the container. Blocks until the API server has agreed.

    Whether the command could be started turns out later: the stream ends and `ended` says why.
    Raises `DevloopError` (cluster/not-found, cluster/forbidden, cluster/unreachable, ...),
    `Cancelled`."""
    query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in argv]
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(query)}"
    key = base64.b64encode(os.urandom(16)).decode()
    headers = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": _PROTOCOLS,
    }
    upgraded = upgrade(connection, "GET", path, headers, cancel)
    accept = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    if upgraded.headers.get("sec-websocket-accept") != base64.b64encode(accept).decode():
        upgraded.sock.close()
        wrong = ValueError("the answer is not to this WebSocket request")
        raise connection_error(wrong, connection.server, context=connection.context)
    return ExecStream(upgraded.sock, upgraded.rest)


class ExecStream:
    """The command's standard streams; no call blocks: wait for `fileno` with select. One thread at
    a time, but for `close`'s caller, who must be that thread as well.

    `ended` is None while the command runs, then how it ended in words ("" for exit status 0).
    `stderr` is the end of what it wrote there."""

    def __init__(self, sock: socket.socket, received: bytes = b"") -> None:
        sock.setblocking(False)
        self.ended: str | None = None
        self.stderr = b""
        self._sock = sock
        self._frames = Frames()
        self._frames.feed(received)
        self._out = bytearray()
        self._closed = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> bytes | None:
        """What the command wrote to its standard output next: None when there is nothing now, b""
        for good when it ended (see `ended`). Raises ConnectionResetError when the stream broke."""
        while (payload := self._queued()) is None:
            try:
                chunk = self._sock.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except OSError as error:
                raise ConnectionResetError(f"connection to the API server lost: {error}") from error
            self._closed = not chunk
            self._frames.feed(chunk)
        return payload

    def _queued(self) -> bytes | None:
        for opcode, message in self._frames:
            if opcode == _CLOSE:
                self._closed = True
                break
            if opcode == _PING:
                self._out += frame(_PONG, message)
                self.flush()
            if opcode not in (_BINARY, _TEXT) or len(message) < 2:
                continue
            channel, payload = message[0], message[1:]
            if channel == _STDOUT:
                return payload
            if channel == _STDERR:
                self.stderr = (self.stderr + payload)[-_MOST_STDERR:]
            elif channel == _STATUS:
                self.ended = _how_it_ended(payload)
        if self.ended is not None:
            return b""
        if self._closed:
            raise ConnectionResetError("the API server closed the connection")
        return None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """How many bytes of `data` were taken for standard input: 0 when the stream is busy. What
        was taken may still have to be pushed by `flush`. Raises ConnectionResetError."""
        taken = 0
        while taken < len(data) and len(self._out) < _MOST_QUEUED:
            part = bytes(data[taken : taken + _LARGEST])
            self._out += frame(_BINARY, bytes((_STDIN,)) + part)
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

    def close(self) -> None:
        """Close at once, which also ends the command's standard input; safe to repeat."""
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                if not self._out:
                    self._sock.send(frame(_CLOSE, (1000).to_bytes(2, "big")))
            self._sock.close()


def _how_it_ended(payload: bytes) -> str:
    """A `metav1.Status` in words."""
    try:
        status = json.loads(payload)
    except ValueError:
        status = {"message": payload.decode("utf-8", "replace")}
    if not isinstance(status, dict):
        status = {}
    if status.get("status") == "Success":
        return ""
    return str(status.get("message") or status.get("reason") or "it failed")
