"""The user's Docker daemon for the commands that work with it directly. Importing it imports the
docker SDK, which takes a while: only for those commands."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from devloop.builders.docker_client import connect
from devloop.local_cluster.docker_host import DockerHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel


_CONNECT = 5.0
_SILENCE = 90.0  # seconds; longer than what a request may take at most, but for a pull


@contextlib.contextmanager
def docker_host(cancel: Cancel) -> Iterator[DockerHost]:
    """The daemon that the docker CLI would use. Errors: env/docker-unreachable."""
    with contextlib.closing(connect(_CONNECT)) as api:
        api.timeout = _SILENCE
        yield DockerHost(api, cancel)
