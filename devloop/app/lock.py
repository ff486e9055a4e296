"""One session a project at a time: the lock that sees to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import IO, TYPE_CHECKING

from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.config.schema import Project


@contextlib.contextmanager
def only_session(project: Project) -> Iterator[None]:
    """Two sessions of one project would undo each other's work: the second one is refused.

    The lock is the kernel's, so it is gone with the process however that ends."""
    with _opened(project.state_dir) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise DevloopError.of(
                Code.ENV_SESSION_RUNNING,
                f"another devloop session runs for {project.name} (pid {pid})",
                suggestions=(f"stop it with Ctrl-C there, or: kill {pid}",),
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _opened(directory: Path) -> IO[str]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        ignore = directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return (directory / "lock").open("a+")
    except OSError as error:
        raise DevloopError.of(
            Code.ENV_DISK_FULL if error.errno == errno.ENOSPC else Code.ENV_FILE_UNREADABLE,
            "devloop cannot keep its files beside the project",
            location=Location(str(directory)),
            cause=error.strerror or str(error),
        ) from error
