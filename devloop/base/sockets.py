"""Small things done with sockets: listening on loopback, dialling Docker, waking a poll, shutting.

HTTP is `net`'s, what flows over a connection its owner's. Raises OSError only.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys

Socket = socket.socket
UnknownHost = socket.gaierror

_BACKLOG = 128


def listen_on_loopback(port: int) -> tuple[socket.socket, ...]:
    """Listen on 127.0.0.1 and, where the machine has it, on ::1: browsers try either first. The
    sockets never block. Port 0 takes any free one, the same for both."""
    sockets: list[socket.socket] = []
    try:
        sockets.append(_bind(socket.AF_INET, "127.0.0.1", port))
        chosen = sockets[0].getsockname()[1]
        with contextlib.suppress(_NoSuchAddress):
            sockets.append(_bind(socket.AF_INET6, "::1", chosen))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return tuple(sockets)


class _NoSuchAddress(Exception):  # noqa: N818 - an answer, not an error
    """The machine has no such loopback address."""


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _NoSuchAddress from error
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "darwin" and port and _somebody_answers(family, host, port):
            # BSD lets SO_REUSEADDR bind one address of a port whose wildcard is taken, and the
            # other program would silently lose its visitors.
            raise OSError(errno.EADDRINUSE, "somebody answers there")
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise _NoSuchAddress from error
        raise
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


def shut(sock: socket.socket) -> None:
    """End a connection from any thread: whoever waits for it wakes up."""
    # The plain socket's method: SSLSocket's own drops the TLS state under a reader.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
