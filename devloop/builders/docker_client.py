"""A client of the docker SDK for the daemon that the docker CLI would use.

The SDK by itself looks at DOCKER_HOST alone; the CLI knows contexts as well. Importing this module
imports the SDK, which takes a while.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import docker
import docker.errors
import docker.tls
import docker.utils
import requests.exceptions
import urllib3.exceptions
from docker.context.config import get_current_context_name

from devloop.base.sockets import Socket, connect_unix, shut
from devloop.builders import docker_errors
from devloop.errors import DevloopError

FAILURES = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""Whatever a call of the SDK may raise."""

# The type stubs know less than the SDK has.
_Client: Any = docker.APIClient


class DockerClient(_Client):  # type: ignore[misc]
    """The SDK's low-level client, which remembers the response that it streams, so that another
    thread can end it."""

    streaming: Any = None

    def _stream_helper(self, response: Any, decode: bool = False) -> Any:
        self.streaming = response
        return super()._stream_helper(response, decode)

    def shut(self) -> None:
        response = self.streaming
        if response is None:
            return
        with contextlib.suppress(AttributeError, OSError):
            raw = response.raw._fp.fp.raw  # noqa: SLF001 - as the SDK itself finds it
            sock = getattr(raw, "_sock", raw)
            # The SDK's transports (SSH, Windows pipes) have things that only resemble a socket.
            shut(sock) if isinstance(sock, Socket) else sock.shutdown(2)


def connect(timeout: float) -> DockerClient:
    """A client for the Docker that the docker CLI would use: DOCKER_HOST, else the context that
    DOCKER_CONTEXT or config.json names. Raises env/docker-unreachable."""
    try:
        options = _endpoint()
        _probe(options.get("base_url") or "unix:///var/run/docker.sock", timeout)
        return DockerClient(**options, version="auto", timeout=timeout, use_ssh_client=True)
    except FAILURES as error:
        raise unreachable(error) from error


def _probe(url: str, timeout: float) -> None:
    """Connect to a Unix socket once: the SDK leaves its own socket open when that fails, and does
    not say which path it tried."""
    path = url.removeprefix("http+unix://").removeprefix("unix://")
    if not path.startswith("/"):
        return
    try:
        connect_unix(path, timeout).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"unix://{path}: dial unix {path}: {reason}") from error


def _endpoint() -> dict[str, Any]:
    host = os.environ.get("DOCKER_HOST")
    name = "" if host else os.environ.get("DOCKER_CONTEXT") or get_current_context_name()
    if name in ("", None, "default"):
        return dict(docker.utils.kwargs_from_env())
    found = docker.ContextAPI.get_context(name)
    if found is None:
        raise DevloopError(
            docker_errors.explain_docker(f'context "{name}": context not found', os.environ)
        )
    tls: object = found.TLSConfig
    return {"base_url": found.Host} | ({"tls": tls} if tls is not None else {})


def unreachable(error: Exception) -> DevloopError:
    """env/docker-unreachable with the reason that `error` gives."""
    return DevloopError(docker_errors.explain_docker(str(error), os.environ))
