"""Asking the Docker daemon whether it is there, without the CLI: that takes fifty times as long.

Only ever a quick yes. Whatever is unclear (another context, TLS, a daemon that is slow or not
there) is left to the CLI, which finds every daemon and whose words for a fault are explained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.sockets import connect_unix

if TYPE_CHECKING:
    from collections.abc import Mapping


_DEFAULT = "/var/run/docker.sock"
_SECONDS = 1.0


def answers(env: Mapping[str, str]) -> bool:
    """Whether the daemon that the docker CLI would use by `env` has just answered a ping; False
    says nothing."""
    path = _socket(env)
    if path is None:
        return False
    try:
        with connect_unix(path, _SECONDS) as client:
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
        return _DEFAULT
    except (OSError, ValueError):
        return None
    context = known.get("currentContext") if isinstance(known, dict) else None
    return _DEFAULT if context in (None, "", "default") else None
