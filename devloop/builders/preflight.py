"""Whether Docker is there for those who need it, asked at the start of a session.

A yes must cost next to nothing, so what explains a no is imported when there is one: builders are a
quarter of devloop.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.builders.docker_socket import answers_ping
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.config.builds import Build
    from devloop.config.schema import Service


# In seconds, for the answer of the docker program.
_PREFLIGHT = 5.0

# Drivers of buildx builders that run without the local Docker.
_ELSEWHERE = ("remote", "kubernetes")


def preflight(
    services: Iterable[Service], cancel: Cancel | None = None, *, pushed: bool = True
) -> None:
    """Raise env/docker-unreachable within about five seconds when a service needs Docker and Docker
    does not answer; services with `builder: command` do not need it, nor do those whose Dockerfile
    runs nothing or, with a buildx builder elsewhere, any. What is not `pushed` is wanted in the
    local Docker."""
    builds = [service.build for service in services if service.build.builder != "command"]
    if not builds or answers_ping(os.environ):
        return
    cancel = cancel or Cancel()
    if pushed:
        needing = [build for build in builds if _needs_builder(build)]
        classic = any(build.builder == "classic" for build in needing)
        if not needing or (not classic and _builds_elsewhere(cancel)):
            return
    _ask_in_full(cancel)


def require_docker(cancel: Cancel) -> None:
    """Raise env/docker-unreachable within about five seconds when Docker does not answer."""
    if not answers_ping(os.environ):
        _ask_in_full(cancel)


def _ask_in_full(cancel: Cancel) -> None:
    from devloop.builders import docker_errors  # noqa: PLC0415 - see the module
    from devloop.builders.docker_cli import ask_docker  # noqa: PLC0415 - see the module

    if shutil.which("docker") is None:
        from devloop.builders.docker_client import connect  # noqa: PLC0415 - the docker SDK loads slowly

        connect(_PREFLIGHT).close()
        return
    argv = ("version", "--format", "{{.Server.Version}}")
    answer = ask_docker(*argv, cancel=cancel, limit=_PREFLIGHT)
    if answer is None or answer.status != 0:
        text = "timed out" if answer is None else answer.out + answer.err
        raise DevloopError(docker_errors.explain_docker(text, os.environ))


def _builds_elsewhere(cancel: Cancel) -> bool:
    """Whether the buildx builder in use is one that no local Docker runs, and one there is."""
    from devloop.builders.base_moves import is_default_builder  # noqa: PLC0415 - see the module
    from devloop.builders.buildx_builder import driver_in_use  # noqa: PLC0415 - see the module
    from devloop.builders.select import buildx_problem  # noqa: PLC0415 - see the module

    if is_default_builder() or shutil.which("docker") is None:
        return False
    if buildx_problem(cancel) is not None:
        return False
    return driver_in_use(cancel) in _ELSEWHERE


def _needs_builder(build: Build) -> bool:
    from devloop.builders.daemonless.builder import needs_builder  # noqa: PLC0415 - see the module
    from devloop.builders.job import shown_path  # noqa: PLC0415 - see the module

    return build.builder != "auto" or bool(needs_builder(build, shown_path(build.dockerfile)))
