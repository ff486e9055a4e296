"""The local ends: listening sockets on both loopback addresses of one port, or who has it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.base.cancel import Cancel
from devloop.base.sockets import listen_at, listen_on_loopback
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from devloop.base.sockets import Socket


_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)
_PROGRAM_SECONDS = 3.0


def listen(port: int, address: str = "") -> tuple[Socket, ...]:
    """Listen at `address`; without one on 127.0.0.1 and, where the machine has it, on ::1: browsers
    try either first.

    Port 0 takes any free one. A port is a promise to the user, so another one is never taken
    instead. Errors: env/port-busy naming the owner, env/port-busy for a port below 1024 that
    needs more rights."""
    try:
        return listen_at(address, port) if address else listen_on_loopback(port)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise DevloopError.of(
                Code.ENV_PORT_BUSY,
                f"this computer has no address {address} to open the port {port} at",
                suggestions=(f'for all of its addresses: ports: ["0.0.0.0:{port}:{port}"]',),
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DevloopError.of(
                Code.ENV_PORT_BUSY,
                f"the local port {port} may not be opened",
                cause="ports below 1024 need more rights",
                suggestions=(f'choose another one: ports: ["{port + 8000}:{port}"]',),
            ) from error
        program = owner_of(port)
        raise DevloopError.of(
            Code.ENV_PORT_BUSY,
            f"the local port {port} is in use",
            cause=f"used by {program}" if program else None,
            suggestions=(
                "stop that program",
                f'choose another local port: ports: ["{port + 1}:CONTAINER_PORT"]',
            ),
        ) from error


def owner_of(port: int) -> str | None:
    """The process that listens on `port`, as "name (pid N)"; None when that is not known.

    Another user's process is often not to be seen, on Linux and macOS alike."""
    pid = _pid_by_proc(port) if sys.platform == "linux" else _pid_by_lsof(port)
    if pid is None:
        return None
    return f"{_name_of(pid)} (pid {pid})"


def _pid_by_proc(port: int) -> int | None:
    """By the tables of proc(5): their second column is the local address, the fourth the state,
    the tenth the socket's inode."""
    wanted = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN and columns[1].endswith(f":{port:04X}"):
                    wanted.add(f"socket:[{columns[9]}]")
    if not wanted:
        return None
    for entry in os.listdir("/proc"):  # noqa: PTH208 - thousands of entries, names are enough
        if not entry.isdigit():
            continue
        # Processes end while we look, and others' descriptors are not ours to read.
        with contextlib.suppress(OSError), os.scandir(f"/proc/{entry}/fd") as descriptors:
            for descriptor in descriptors:
                if os.readlink(descriptor.path) in wanted:  # noqa: PTH115
                    return int(entry)
    return None


def _pid_by_lsof(port: int) -> int | None:
    text = _output(["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp"])
    found = re.search(r"^p(\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _name_of(pid: int) -> str:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/comm").read_text().strip()
    text = _output(["ps", "-o", "comm=", "-p", str(pid)])
    return Path(text.strip()).name or "a process"


def _output(argv: list[str]) -> str:
    """What a program prints; nothing when it cannot be run or takes too long."""
    try:
        return process.capture(argv, cancel=Cancel(), limit=_PROGRAM_SECONDS).out
    except (process.CannotRun, process.Overran):
        return ""
