"""One more name for an image in the local Docker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders import docker_errors
from devloop.builders.docker_cli import ask_docker
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel


_LIMIT = 60.0


def tag_local(image: str, name: str, cancel: Cancel) -> None:
    """`docker tag`. Errors: env/*."""
    answer = ask_docker("tag", image, name, cancel=cancel, limit=_LIMIT)
    if answer is not None and answer.status == 0:
        return
    text = "it did not answer" if answer is None else answer.err or answer.out
    if (unreachable := docker_errors.docker_unreachable(text)) is not None:
        raise DevloopError(unreachable)
    raise DevloopError.of(
        Code.ENV_DOCKER_UNREACHABLE, f"Docker cannot tag {image} as {name}", cause=text.strip()
    )
