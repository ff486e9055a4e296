"""Questions to the `docker` program, and what it means when a program cannot be run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base import process
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel


def ask_docker(*args: str, cancel: Cancel, limit: float) -> process.Completed | None:
    """What `docker ARGS` answers; None when it does not within `limit` seconds.

    Raises env/tool-missing and Cancelled."""
    try:
        return process.capture(["docker", *args], cancel=cancel, limit=limit)
    except process.Overran:
        return None
    except process.CannotRun as error:
        raise cannot_run(error) from error


def cannot_run(error: process.CannotRun) -> DevloopError:
    """env/tool-missing, or config/context-missing for a working directory that is not there."""
    if error.directory is not None:
        return DevloopError.of(
            Code.CONFIG_CONTEXT_MISSING, f"the directory {error.directory} does not exist"
        )
    if error.missing:
        return DevloopError.of(
            Code.ENV_TOOL_MISSING, f"{error.program} is not installed or not on PATH"
        )
    return DevloopError.of(
        Code.ENV_TOOL_MISSING, f"{error.program} cannot be run", cause=error.reason
    )
