"""One session a project at a time: the lock that says so."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.config.schema import Project

__all__ = ["only_session"]


@contextlib.contextmanager
def only_session(project: Project) -> Iterator[None]:
    """Two sessions of one project would undo each other's work: the second one is refused.

    The lock is the kernel's, so it is gone with the process however that ends."""
    folder = project.state_dir
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    with (folder / "lock").open("a+") as lock:
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
