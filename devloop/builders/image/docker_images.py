"""What the local Docker has under a name, asked of it once where that decides something."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from devloop.builders import docker_errors
from devloop.builders.docker_cli import ask_docker
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel


_SECONDS = 5.0


class DockerImages:
    """See base.LocalImages. A Docker that does not answer is no Docker: it builds nothing."""

    def identity(self, reference: str, cancel: Cancel) -> str | None:
        if shutil.which("docker") is None:
            return self._without_command(reference)
        argv = ("image", "inspect", "--format", "{{.Id}}", "--", reference)
        answer = ask_docker(*argv, cancel=cancel, limit=_SECONDS)
        if answer is None:
            return None
        if answer.status == 0:
            return answer.out.strip()
        if "no such image" in answer.err.lower():
            return ""
        if docker_errors.docker_unreachable(answer.err):
            return None
        raise NeedsFullBuild(f"Docker does not report whether it has {reference}")

    def _without_command(self, reference: str) -> str | None:
        from devloop.builders.docker_client import ping  # noqa: PLC0415 - the docker SDK loads slowly

        try:
            ping(_SECONDS)
        except DevloopError:
            return None
        raise NeedsFullBuild(
            f"without the docker command Docker does not report whether it has {reference}"
        )
