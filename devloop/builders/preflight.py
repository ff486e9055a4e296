"""Whether Docker is there for those who need it, asked at the start of a session.

A yes must cost next to nothing, so what explains a no is imported when there is one: builders are a
quarter of devloop.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.sockets import connect_unix
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.config.schema import Build, Service


# In seconds, for the answer to a ping and for the docker program's.
_PING = 1.0
_PREFLIGHT = 5.0
_SOCKET = "/var/run/docker.sock"


def preflight(services: Iterable[Service], cancel: Cancel | None = None) -> None:
    """Raise env/docker-unreachable within about five seconds when a service needs Docker and Docker
    does not answer; services with `builder: command` do not need it, nor do those whose Dockerfile
    runs nothing."""
    builds = [service.build for service in services if service.build.builder != "command"]
    if not builds or answers_ping(os.environ) or not any(map(_needs_docker, builds)):
        return
    from devloop.builders import docker_errors  # noqa: PLC0415 - see the module
    from devloop.builders.docker_cli import ask_docker  # noqa: PLC0415 - see the module

    cancel = cancel or Cancel()
    if shutil.which("docker") is None:
        from devloop.builders.docker_client import connect  # noqa: PLC0415 - the docker SDK loads slowly

        connect(_PREFLIGHT).close()
        return
    argv = ("version", "--format", "{{.Server.Version}}")
    answer = ask_docker(*argv, cancel=cancel, limit=_PREFLIGHT)
    if answer is None or answer.status != 0:
        text = "timed out" if answer is None else answer.out + answer.err
        raise DevloopError(docker_errors.explain_docker(text, os.environ))


def _needs_docker(build: Build) -> bool:
    from devloop.builders.daemonless.builder import needs_builder  # noqa: PLC0415 - see the module
    from devloop.builders.job import shown_path  # noqa: PLC0415 - see the module

    return build.builder != "auto" or bool(needs_builder(build, shown_path(build.dockerfile)))


def answers_ping(env: Mapping[str, str]) -> bool:
    """Whether the daemon that the docker CLI would use by `env` has just answered a ping: a quick
    yes, fifty times as fast as the CLI. False says nothing: what is unclear (another context, TLS,
    a daemon that is slow or not there) is left to the CLI, which finds every daemon and whose words
    for a fault are explained."""
    path = _socket(env)
    if path is None:
        return False
    try:
        with connect_unix(path, _PING) as client:
            # https://docs.docker.com/reference/api/engine/: GET /_ping
            client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            status = client.recv(64).split(b" ")
    except OSError:
        return False
    return status[1:2] == [b"200"]


def _socket(env: Mapping[str, str]) -> str | None:
    """The socket that the CLI would use, None when that takes more to find out."""
    if env.get("DOCKER_CONTEXT"):
        return None
    if host := env.get("DOCKER_HOST"):
        return host.removeprefix("unix://") if host.startswith("unix://") else None
    home = env.get("HOME", "")
    config = Path(env.get("DOCKER_CONFIG") or f"{home}/.docker", "config.json")
    try:
        known = json.loads(config.read_text())
    except FileNotFoundError:
        return _SOCKET
    except (OSError, ValueError):
        return None
    context = known.get("currentContext") if isinstance(known, dict) else None
    return _SOCKET if context in (None, "", "default") else None
