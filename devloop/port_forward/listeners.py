"""The local ends: listening sockets on both loopback addresses of one port."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from typing import TYPE_CHECKING

from devloop.errors import Code, DevloopError
from devloop.port_forward.port_owner import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["listen"]

_BACKLOG = 128


def listen(
    port: int, *, owner: Callable[[int], str | None] = owner_of
) -> tuple[socket.socket, ...]:
    """Listen on 127.0.0.1 and, where the machine has it, on ::1: browsers try either first.

    Port 0 takes any free one. A port is a promise to the user, so another one is never taken
    instead. Errors: env/port-busy naming the owner, env/port-busy for a port below 1024 that
    needs more rights."""
    sockets: list[socket.socket] = []
    try:
        sockets.append(_bind(socket.AF_INET, "127.0.0.1", port))
        chosen = sockets[0].getsockname()[1]
        with contextlib.suppress(_NoSuchAddress):
            sockets.append(_bind(socket.AF_INET6, "::1", chosen))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _refused(port, error, owner) from error
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


def _refused(port: int, error: OSError, owner: Callable[[int], str | None]) -> DevloopError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return DevloopError.of(
            Code.ENV_PORT_BUSY,
            f"the local port {port} may not be opened",
            cause="ports below 1024 need more rights",
            suggestions=(f'choose another one: ports: ["{port + 8000}:{port}"]',),
        )
    program = owner(port)
    return DevloopError.of(
        Code.ENV_PORT_BUSY,
        f"the local port {port} is in use",
        cause=f"used by {program}" if program else None,
        suggestions=(
            "stop that program",
            f'choose another local port: ports: ["{port + 1}:CONTAINER_PORT"]',
        ),
    )
