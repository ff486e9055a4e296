"""Questions to the local Docker, by the `docker` program and without it, and what it means when a
program cannot be run.

Of the images that builds left there, only tags that devloop gives (`devloop-...`) in repositories
that the caller names are listed; an image that also has another tag keeps that. Docker itself
refuses to remove what a container uses.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.base.sockets import connect_unix
from devloop.builders.job import TAG_PREFIX
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.base.cancel import Cancel


# In seconds: for an answer to a ping, and for what is done with an image.
_PING = 1.0
_LIMIT = 60.0
_SOCKET = "/var/run/docker.sock"


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
    program = error.program
    if error.missing:
        return DevloopError.of(Code.ENV_TOOL_MISSING, f"{program} is not installed or not on PATH")
    return DevloopError.of(Code.ENV_TOOL_MISSING, f"{program} cannot be run", cause=error.reason)


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


def local_images(repositories: Iterable[str], cancel: Cancel) -> tuple[str, ...]:
    """`repository:tag` of devloop's images, newest first; none when there is no Docker."""
    found: list[str] = []
    if shutil.which("docker") is None:
        return ()
    for repository in sorted(set(repositories)):
        argv = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
        answer = ask_docker(*argv, cancel=cancel, limit=_LIMIT)
        if answer is None or answer.status != 0:
            return ()
        mine = f"{repository}:{TAG_PREFIX}"
        found += [line for line in answer.out.splitlines() if line.startswith(mine)]
    return tuple(found)


def remove_local(reference: str, cancel: Cancel) -> bool:
    """Remove one tag, and the image with it if that was its last; False when it is in use."""
    answer = ask_docker("image", "rm", reference, cancel=cancel, limit=_LIMIT)
    return answer is not None and answer.status == 0
