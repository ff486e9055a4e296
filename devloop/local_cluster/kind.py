"""Runs kind, which has no API but its command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.errors import Code, DevloopError
from devloop.local_cluster.docker_host import last_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.local_cluster.docker_host import DockerHost


_GRACE = 1.0  # seconds that kind needs to clean up after a cancelled creation


def kind(
    docker: DockerHost,
    *args: str,
    limit: float,
    given: str | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run `kind ARGS` for at most `limit` seconds; `given` is its input, `on_line` gets each line
    of its progress.

    Errors: env/tool-missing, cluster/provision with its last lines, env/docker-unreachable when
    that is why it failed, `Cancelled`."""
    what = " ".join(("kind", *args[:2]))
    try:
        done = process.capture(
            ("kind", *args),
            cancel=docker.cancel,
            limit=limit,
            given=None if given is None else given.encode(),
            on_error_line=on_line,
            grace=_GRACE,
        )
    except process.CannotRun as error:
        raise _missing(error) from error
    except process.Overran as error:
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            f"`{what}` did not end in time",
            detail=last_lines(error.err or error.out),
        ) from error
    if done.status != 0:
        docker.call("ping")
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            f"`{what}` ended with {done.status}",
            detail=last_lines(done.err if done.err.strip() else done.out),
        )


def _missing(error: process.CannotRun) -> DevloopError:
    install = (
        "install kind: brew install kind"
        if sys.platform == "darwin"
        else "install kind: https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
        " (or: go install sigs.k8s.io/kind@latest)"
    )
    return DevloopError.of(
        Code.ENV_TOOL_MISSING,
        "kind is not installed, or not on PATH"
        if error.missing
        else f"kind cannot be run: {error.reason}",
        cause="`devloop cluster` runs kind",
        suggestions=(install,),
    )
