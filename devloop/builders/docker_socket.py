"""Short questions to the Docker daemon over its socket: a hundredth of what it costs to start the
docker CLI, which a session's start would feel.

Only for the daemon that the CLI would use, where that is plain to see. What is unclear (another
context, TLS, a daemon that is slow or not there) is left to the CLI, which finds every daemon and
whose words for a fault are explained.

Source: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from devloop.base.lazy_dataclass import dataclass
from devloop.base.sockets import connect_unix

if TYPE_CHECKING:
    from collections.abc import Mapping


_SOCKET = "/var/run/docker.sock"
_SECONDS = 1.0  # of silence; whoever needs longer is asked with the CLI
_MOST = 1 << 22  # bytes of an answer
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class DaemonAnswer:
    """An answer's HTTP status and body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that Docker has: its id (`sha256:...`), `name@digest` in registries, and its ONBUILD
    instructions, None where nothing is said of them."""

    identity: str
    repo_digests: tuple[str, ...] = ()
    triggers: tuple[str, ...] | None = None


def ask_daemon(env: Mapping[str, str], path: str, limit: float) -> DaemonAnswer | None:
    """What the daemon that the docker CLI would use by `env` answers to `GET path`; None where that
    is to be asked with the CLI. It may be silent for `limit` seconds."""
    socket = _socket(env)
    if socket is None:
        return None
    try:
        with connect_unix(socket, limit) as client:
            client.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            answer = bytearray()
            while (piece := client.recv(_PIECE)) and len(answer) < _MOST:
                answer += piece
    except OSError:
        return None
    head, end, body = bytes(answer).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not end or not words[0].startswith(b"HTTP/1.") or not words[1:] or not words[1].isdigit():
        return None
    return DaemonAnswer(int(words[1]), body)


def find_image(env: Mapping[str, str], reference: str) -> LocalImage | None:
    """What the daemon has under a name, with an empty `identity` when it has no such image; None
    where the CLI is to be asked."""
    answer = ask_daemon(env, f"/images/{quote(reference, safe='/:@')}/json", _SECONDS)
    if answer is None:
        return None
    if answer.status == 404 and b"no such image" in answer.body.lower():
        return LocalImage("")
    if answer.status != 200:
        return None
    try:
        found = json.loads(answer.body)
        config = found.get("Config")
        triggers = tuple(config.get("OnBuild") or ()) if isinstance(config, dict) else None
        digests = tuple(map(str, found["RepoDigests"] or ()))
        return LocalImage(str(found["Id"]), digests, triggers)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


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


def answers_ping(env: Mapping[str, str]) -> bool:
    """Whether the daemon that the docker CLI would use by `env` has just answered a ping: a quick
    yes. False says nothing."""
    answer = ask_daemon(env, "/_ping", _SECONDS)
    return answer is not None and answer.status == 200
