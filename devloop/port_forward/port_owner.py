"""Who uses a local port: asked only when a listener could not be opened, to name the culprit."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from devloop.base import process
from devloop.base.cancel import Cancel

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)
_PROGRAM_SECONDS = 3.0


def owner_of(port: int) -> str | None:
    """The process that listens on `port`, as "name (pid N)"; None when that is not known.

    Another user's process is often not to be seen, on Linux and macOS alike."""
    pid = _pid_by_proc(port) if sys.platform == "linux" else _pid_by_lsof(port)
    if pid is None:
        return None
    return f"{_name_of(pid)} (pid {pid})"


def socket_inodes(table: str, port: int) -> frozenset[str]:
    """The inodes of the sockets that listen on `port` in the text of /proc/net/tcp or tcp6.

    Columns after proc(5): local address is the second, state the fourth, inode the tenth."""
    inodes = set()
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 9 and columns[3] == _LISTEN:
            with contextlib.suppress(ValueError):
                if int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(columns[9])
    return frozenset(inodes)


def _pid_by_proc(port: int) -> int | None:
    inodes: frozenset[str] = frozenset()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            inodes |= socket_inodes(Path(table).read_text(), port)
    wanted = {f"socket:[{inode}]" for inode in inodes}
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
    lines = text.splitlines()
    return next((int(x[1:]) for x in lines if x[:1] == "p" and x[1:].isdigit()), None)


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
