"""A client's socket: never blocks, keeps what a slow reader has not taken yet."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

_CHUNK = 65536
_KEEPALIVE = 30  # seconds after which the kernel asks a client that has finished sending


class ClientSocket:
    """Owns the socket. Raises OSError when the client has gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._pending = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that the client has not taken yet."""
        return len(self._pending)

    def read(self) -> bytes | None:
        """What the client sent, None when there is nothing now, b"" when it has finished."""
        try:
            return self.sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return None

    def write(self, data: bytes) -> None:
        """Send `data`, or keep what cannot be sent now."""
        sent = 0
        if not self._pending:
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
        self._pending += data[sent:]

    def flush(self) -> None:
        """Send what was kept, as far as the client takes it."""
        while self._pending:
            try:
                sent = self.sock.send(self._pending)
            except (BlockingIOError, InterruptedError):
                return
            del self._pending[:sent]

    def shutdown_write(self) -> None:
        """Nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def look_after(self) -> None:
        """Have the kernel ask from time to time whether a client that has finished still exists."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if sys.platform == "linux":
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)

    @property
    def gone(self) -> bool:
        return bool(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def close(self, *, reset: bool = False) -> None:
        """Close; with a reset where a clean end would pass a cut answer off as a whole one."""
        if reset:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.sock.close()
        self._pending.clear()
