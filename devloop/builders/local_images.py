"""The images that builds left in the local Docker: which there are, and removing them.

Only tags that devloop gives (`devloop-...`) in repositories that the caller names; an image that
also has another tag keeps that. Docker itself refuses to remove what a container uses.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from devloop.builders.docker_cli import ask_docker
from devloop.builders.job import TAG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.base.cancel import Cancel


_LIMIT = 60.0


def local_images(repositories: Iterable[str], cancel: Cancel) -> tuple[str, ...]:
    """`repository:tag` of devloop's images, newest first; none when there is no Docker."""
    found: list[str] = []
    if shutil.which("docker") is None:
        return ()
    for repository in sorted(set(repositories)):
        form = "{{.Repository}}:{{.Tag}}"
        answer = ask_docker(
            "image", "ls", "--format", form, repository, cancel=cancel, limit=_LIMIT
        )
        if answer is None or answer.status != 0:
            return ()
        mine = f"{repository}:{TAG_PREFIX}"
        found += [line for line in answer.out.splitlines() if line.startswith(mine)]
    return tuple(found)


def remove_local(reference: str, cancel: Cancel) -> bool:
    """Remove one tag, and the image with it if that was its last; False when it is in use."""
    answer = ask_docker("image", "rm", reference, cancel=cancel, limit=_LIMIT)
    return answer is not None and answer.status == 0
