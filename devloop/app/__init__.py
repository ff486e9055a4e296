"""Composition root: config and flags become a wired engine; the only package that names adapters.

What several commands need stands here; a session is in session.py, its adapters in wiring.py.
Nothing here decides what a change means (the engine does) or what is shown (the ui does).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import IO, TYPE_CHECKING

from devloop.cluster.api.connection import Connection
from devloop.cluster.api.log_stream import registry_hosting
from devloop.cluster.deploy.guard import check_context, check_namespace
from devloop.errors import Code, DevloopError, Location
from devloop.registry.discovery import discover
from devloop.registry.node_images import node_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.config.schema import Project
    from devloop.model import PushTarget


@contextlib.contextmanager
def connect(project: Project) -> Iterator[Connection]:
    """The project's cluster, if devloop may work with it. Errors: cluster/*, safety/*."""
    connection = Connection.open(project.context, project.namespace)
    try:
        check_context(
            connection.context,
            connection.server,
            project.allow_contexts,
            lambda: connection.local_tool,
        )
        check_namespace(connection.namespace)
        yield connection
    finally:
        connection.close()


def find_registry(project: Project, connection: Connection) -> PushTarget:
    """Where the project's images go. Errors: registry/*, cluster/*."""
    return discover(
        config=project.registry,
        hosting=registry_hosting(connection),
        nodes=lambda: node_images(connection.context, lambda: connection.made_by, os.environ),
    )


def session_runs(project: Project) -> bool:
    """Whether some process has the lock of `only_session`. A process number tells less: it may have
    been given again."""
    try:
        with (project.state_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def only_session(project: Project) -> Iterator[None]:
    """Two sessions of one project would undo each other's work: the second one is refused.

    The lock is the kernel's, so it is gone with the process however that ends."""
    with _opened(project.state_dir) as lock:
        if not _locked(lock):
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise DevloopError.of(
                Code.ENV_SESSION_RUNNING,
                f"another devloop session runs for {project.name} (pid {pid})",
                suggestions=(f"stop it with Ctrl-C there, or: kill {pid}",),
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _locked(lock: IO[str]) -> bool:
    for _ in range(3):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)  # `session_runs` has it for no longer than its question takes
        else:
            return True
    return False


def prepare_state_dir(directory: Path) -> None:
    """Make devloop's own directory beside the project, as nothing that belongs into git. Errors:
    env/file-unreadable, env/disk-full."""
    with _kept_beside(directory):
        directory.mkdir(parents=True, exist_ok=True)
        ignore = directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")


def _opened(directory: Path) -> IO[str]:
    prepare_state_dir(directory)
    with _kept_beside(directory):
        return (directory / "lock").open("a+")


@contextlib.contextmanager
def _kept_beside(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise DevloopError.of(
            Code.ENV_DISK_FULL if full else Code.ENV_FILE_UNREADABLE,
            "devloop cannot keep its files beside the project",
            location=Location(str(directory)),
            cause=error.strerror or str(error),
            suggestions=() if full else ("make that directory writable, or work in a copy",),
        ) from error
