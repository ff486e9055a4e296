"""What a test may not leave behind: threads of devloop, processes and sockets.

Processes and sockets are read from /proc, so they are seen on Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
import threading
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent ends, so that they are found too."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def found(*, threads_only: bool = False) -> frozenset[str]:
    """Return what is there now, each as a person is told of it."""
    threads = {
        f"thread {thread.name} ({id(thread):x})"
        for thread in threading.enumerate()
        if thread.name.startswith("devloop")
    }
    if threads_only or not _LINUX:
        return frozenset(threads)
    return frozenset(threads | _processes() | _sockets())


def _processes() -> set[str]:
    """Those that run; one that ended is reaped here, for nobody else does that for an orphan."""
    running: set[str] = set()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there is none, as after most tests: no need to look through /proc
        return running
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - half the time of pathlib
        with contextlib.suppress(OSError):  # a thread that has just ended
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
                name, _, state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                if state.split()[0] == "Z":
                    os.waitpid(int(pid), os.WNOHANG)
                else:
                    running.add(f"process {name})")
    return running


def _sockets() -> set[str]:
    opened: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - half the time of pathlib
        with contextlib.suppress(OSError):  # the descriptor that the directory is read with
            status = os.fstat(int(fd))
            if stat.S_ISSOCK(status.st_mode):
                opened.add(f"socket:[{status.st_ino}]")
    return opened
