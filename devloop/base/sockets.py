"""Small things done with sockets: listening on loopback, talking to a client that may be slow,
dialling Docker, waking a poll, shutting.

HTTP is `net`'s, what flows over a connection its owner's. Raises OSError only.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import selectors

Socket = socket.socket
UnknownHost = socket.gaierror

_BACKLOG = 128

# Seconds between two looks for a new client while the process has too many files open.
_SHORTAGE = 0.1
_CHUNK = 65536


def listen_on_loopback(port: int) -> tuple[socket.socket, ...]:
    """Listen on 127.0.0.1 and, where the machine has it, on ::1: browsers try either first. The
    sockets never block. Port 0 takes any free one, the same for both."""
    sockets = [_listen(socket.AF_INET, "127.0.0.1", port)]
    try:
        sockets.append(_listen(socket.AF_INET6, "::1", sockets[0].getsockname()[1]))
    except OSError as error:
        # Any other fault: there is no such loopback address.
        if error.errno == errno.EADDRINUSE:
            sockets[0].close()
            raise
    return tuple(sockets)


def listen_at(address: str, port: int) -> tuple[socket.socket, ...]:
    """Listen at one address, as text: `0.0.0.0` for all. Never blocks."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (_listen(family, address, port),)


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    if sys.platform == "darwin" and port and _somebody_answers(family, host, port):
        # BSD lets SO_REUSEADDR bind one address of a port whose wildcard is taken, and the other
        # program would silently lose its visitors.
        raise OSError(errno.EADDRINUSE, "somebody answers there")
    sock = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    sock.setblocking(False)
    return sock


def _somebody_answers(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def is_bound(port: int) -> bool:
    """Whether something has this port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def accept_client(listener: socket.socket) -> socket.socket | None:
    """A new connection, the caller's to close; None where it has gone again. With no descriptors
    left the caller would be woken at once again, so that it is let wait a moment."""
    try:
        sock, _ = listener.accept()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            time.sleep(_SHORTAGE)
        return None
    return sock


def watch_for(
    selector: selectors.BaseSelector, sock: socket.socket, before: int, mask: int, data: object
) -> int:
    """Have `selector` wake for `mask` of a socket, 0 for nothing, where it did so for `before`;
    returns `mask`."""
    if mask != before:
        if before and mask:
            selector.modify(sock, mask, data)
        elif mask:
            selector.register(sock, mask, data)
        else:
            selector.unregister(sock)
    return mask


def connect_unix(path: str, timeout: float) -> socket.socket:
    """A connection to a Unix socket, the caller's to close; `timeout` seconds for each call."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def wake_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that never block: a byte sent into the second wakes a poll of the
    first. Both are the caller's to close."""
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    waker.setblocking(False)
    return wake, waker


def keep_alive(sock: socket.socket, *, idle: int, interval: int, count: int) -> None:
    """Have the kernel ask a peer that was silent for `idle` seconds whether it is there: `count`
    times, `interval` seconds apart. Elsewhere than on Linux at the system's own pace."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)


def shut(sock: socket.socket) -> None:
    """End a connection from any thread: whoever waits for it wakes up."""
    # The plain socket's method: SSLSocket's own drops the TLS state under a reader.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class ClientSocket:
    """A client's socket, which it owns: never blocks, keeps what a slow reader has not taken yet.
    Raises OSError when the client has gone."""

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
            with contextlib.suppress(BlockingIOError, InterruptedError):
                sent = self.sock.send(data)
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
            keep_alive(self.sock, idle=30, interval=5, count=2)

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
