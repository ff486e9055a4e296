"""Reads what Docker and registries say when something breaks, in whatever words they say it.

Docker's tools report by text alone, and the text comes from a dozen programs; this is the one
table of it. Pure: it never runs anything. Texts of docker/cli, moby, BuildKit and containerd.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Mapping


_ENDPOINT = re.compile(r"(?:unix|tcp|ssh|https?|npipe)://[^\s\"';,]+")
_NO_CONTEXT = re.compile(
    r"context \"([^\"]+)\": context not found|docker context \"([^\"]+)\" does not exist|"
    r"context \"([^\"]+)\" not found",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"cannot connect to the docker daemon|failed to connect to the docker api|"
    r"is the docker daemon running|error during connect|docker daemon is not running|"
    r"permission denied while trying to connect to the docker|unable to resolve docker endpoint|"
    r"unable to parse docker host|invalid bind address|error while fetching server api version|"
    r"failed to initialize docker|failed to receive status: rpc error: code = unavailable|"
    r"connection broken|remotedisconnected|connection aborted|dial unix \S+docker\S*sock|"
    r"context \"[^\"]+\" does not exist",
    re.IGNORECASE,
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_REFUSED = re.compile(
    r"connection refused|no such host|i/o timeout|network is unreachable|no route to host|"
    r"connection reset|context deadline exceeded|server misbehaving|\bEOF\b|"
    r"gave http response to https client|certificate|tls:",
    re.IGNORECASE,
)
_UNAUTHORIZED = re.compile(
    r"unauthorized|no basic auth credentials|authentication required|access denied|"
    r"denied: |insufficient_scope|failed to authorize|error getting credentials|"
    r"\b(?:status|code|response)\b.{0,80}?\b40[13]\b|\b40[13] (?:unauthorized|forbidden)\b",
    re.IGNORECASE,
)
# What names or numbers stand in says nothing of the failure: URLs, HOST:PORT, digests.
_NAMES = re.compile(
    r"https?://[^\s\"']*?(?=[:;,.]?(?:[\s\"']|$))|\bsha256:[0-9a-f]+|[\w.\[\]-]+:\d{1,5}\b"
)


def first_line(text: str, width: int = 240) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= width else f"{line[: width - 1]}…"


def disk_full(text: str, where: str = "Docker") -> Diagnosis | None:
    cause = next((first_line(line) for line in text.splitlines() if _DISK_FULL.search(line)), None)
    if cause is None:
        return None
    return Diagnosis(
        code=Code.ENV_DISK_FULL,
        message=f"{where} has no space left",
        cause=cause,
        suggestions=(
            "see what takes the space: docker system df",
            "free it: docker builder prune, docker image prune",
        ),
    )


def docker_unreachable(text: str, env: Mapping[str, str] | None = None) -> Diagnosis | None:
    """env/docker-unreachable with its cause; None when `text` says something else."""
    if not _UNREACHABLE.search(text) and not _NO_CONTEXT.search(text):
        return None
    return explain_docker(text, os.environ if env is None else env)


def explain_docker(text: str, env: Mapping[str, str]) -> Diagnosis:
    """Why Docker cannot be reached, as far as `text` shows, and what to do."""
    match = _ENDPOINT.search(text)
    endpoint = match[0].rstrip(".:").replace("%2F", "/") if match else ""
    host = env.get("DOCKER_HOST", "")
    cause, suggestions = _docker_cause(text, endpoint or host, env)
    if host:
        suggestions = (*suggestions, f"DOCKER_HOST is set to {host}: correct it or unset it")
    at = f" at {endpoint or host}" if endpoint or host else ""
    return Diagnosis(
        code=Code.ENV_DOCKER_UNREACHABLE,
        message=f"Docker does not answer{at}",
        cause=cause,
        suggestions=suggestions,
    )


def _docker_cause(text: str, endpoint: str, env: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    low = text.lower()
    if context := _NO_CONTEXT.search(text):
        name = next(group for group in context.groups() if group)
        why = "DOCKER_CONTEXT names it" if env.get("DOCKER_CONTEXT") else "Docker is set to use it"
        return (
            f'the Docker context "{name}" does not exist; {why}',
            ("list the contexts: docker context ls", "choose one: docker context use default"),
        )
    start = "start Docker: Docker Desktop, or sudo systemctl start docker"
    socket = endpoint.removeprefix("unix://")
    if "permission denied" in low:
        return (
            f"you may not use the socket {socket}" if endpoint else "you may not use the socket",
            (
                "join the docker group: sudo usermod -aG docker $USER, then log in again",
                "or use rootless Docker: docker context use rootless",
            ),
        )
    if "unable to parse docker host" in low or ("invalid" in low and "host" in low):
        return first_line(text), ("a Docker host is like unix:///var/run/docker.sock or tcp://…",)
    if endpoint.startswith("unix://") or "dial unix" in low:
        if "no such file" in low or (socket and not os.path.lexists(socket)):
            return f"the socket {socket} does not exist: no daemon made it", (start,)
        return f"nothing listens at {socket}: the daemon is down", (start,)
    if "connection refused" in low or endpoint.startswith("tcp://127."):
        return f"{endpoint or 'the address'} refused the connection: no daemon listens there", (
            "check that the remote daemon runs and listens on that port",
        )
    if "no such host" in low or "lookup" in low:
        return f"the name in {endpoint or 'the address'} is not known", (
            "check the spelling, and the VPN if there is one",
        )
    if any(word in low for word in ("connection broken", "unavailable", "aborted", "eof")):
        return "the connection broke: the daemon stopped or was restarted", (start,)
    if "timed out" in low or "timeout" in low or "deadline" in low:
        return "no answer in time", (
            "check the network to the Docker host, and that its daemon is not hung",
            start,
        )
    return first_line(text) or "it gave no reason", (start,)


def push_failed(text: str, target: str) -> Diagnosis:
    """Why a push failed with `text`: registry/* for the repository `target`, env/docker-unreachable
    or env/disk-full."""
    known = docker_unreachable(text) or disk_full(text)
    if known is not None:
        return known
    host = target.partition("/")[0]
    line, code = _push_failure(text, target)
    message, suggestions = f"the image could not be pushed to {target}", list[str]()
    if code is Code.REGISTRY_UNAUTHORIZED:
        message = f"{host} does not accept the credentials for {target}"
        suggestions = [f"docker login {host}", "check that the account may push there"]
    elif code is Code.REGISTRY_UNREACHABLE:
        message = f"the registry {host} does not answer"
        suggestions = ["check that the registry runs: devloop cluster up starts a local one"]
        if "HTTP response to HTTPS" in text:
            suggestions.insert(0, f'add "{host}" to insecure-registries in Docker\'s daemon.json')
        elif "certificate" in text or "tls:" in text:
            suggestions.insert(0, f"make Docker trust the certificate of {host}")
    return Diagnosis(
        code=code,
        message=message,
        cause=first_line(line.removeprefix("ERROR: ")),
        suggestions=tuple(suggestions),
    )


def pull_failed(text: str, image: str) -> Diagnosis | None:
    """Why `docker run` had no image to run, by what it said: registry/*; None if it had one."""
    if "Unable to find image" not in text:
        return None
    said = [
        line.removeprefix("docker: ") for line in text.splitlines() if line.startswith("docker")
    ]
    line, code = _push_failure("\n".join(said), image)
    return Diagnosis(
        code=Code.REGISTRY_IMAGE_GONE if code is Code.REGISTRY_PUSH_FAILED else code,
        message=f"Docker does not have {image} and cannot pull it",
        cause=first_line(line),
        suggestions=(
            (f"docker login {image.partition('/')[0]}",)
            if code is Code.REGISTRY_UNAUTHORIZED
            else (f"docker pull {image} tries it", "devloop build --push makes the image again")
        ),
    )


def _push_failure(text: str, target: str) -> tuple[str, Code]:
    """The line that says most, the last that names an error, and what it names. A connection that
    fails comes first: a registry that is away cannot refuse credentials, and may come back."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        bare = _NAMES.sub(" ", line.replace(target, " "))
        if _REFUSED.search(bare):
            return line, Code.REGISTRY_UNREACHABLE
        if _UNAUTHORIZED.search(bare):
            return line, Code.REGISTRY_UNAUTHORIZED
    return (lines or ["no reason given"])[-1], Code.REGISTRY_PUSH_FAILED
