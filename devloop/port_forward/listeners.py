"""The local ends: listening sockets on both loopback addresses of one port."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from devloop.base.sockets import listen_on_loopback
from devloop.errors import Code, DevloopError
from devloop.port_forward.port_owner import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.sockets import Socket


def listen(port: int, *, owner: Callable[[int], str | None] = owner_of) -> tuple[Socket, ...]:
    """Listen on 127.0.0.1 and, where the machine has it, on ::1: browsers try either first.

    Port 0 takes any free one. A port is a promise to the user, so another one is never taken
    instead. Errors: env/port-busy naming the owner, env/port-busy for a port below 1024 that
    needs more rights."""
    try:
        return listen_on_loopback(port)
    except OSError as error:
        raise _refused(port, error, owner) from error


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
