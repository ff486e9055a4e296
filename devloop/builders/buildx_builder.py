"""Which buildx builder is used, what it means when it does not answer, and which ways its images
can take to the registry.

buildx builds with what was chosen by `docker buildx use` or BUILDX_BUILDER: Docker itself, a
container, pods of a cluster, or a BuildKit somewhere. Asks the docker CLI; builds nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.docker_cli import ask_docker
from devloop.builders.docker_errors import first_line
from devloop.builders.docker_socket import answers_ping
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.model import PushTarget


# direct: the builder pushes. cluster: it pushes to the registry's name inside the cluster.
# local: the image comes back to the local Docker, which pushes.
Route = Literal["direct", "cluster", "local"]

_FIELD = re.compile(r"^[ \t]*(Name|Driver|Endpoint)[ \t]*:[ \t]*(\S*)", re.MULTILINE)
_SECONDS = 10.0
_WAITING = ("[internal] waiting for connection", "[internal] booting buildkit")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedBuilder:
    """`driver` is "" when nothing can be known. `endpoint` is that of its first node."""

    name: str = ""
    driver: str = ""
    endpoint: str = ""

    @property
    def in_docker(self) -> bool:
        """Whether it is Docker itself, as far as is known."""
        return self.driver in ("", "docker")


def used_builder(cancel: Cancel) -> UsedBuilder:
    """Asks buildx. Raises env/tool-missing and Cancelled."""
    answer = ask_docker("buildx", "inspect", cancel=cancel, limit=_SECONDS)
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(answer.out) if answer is not None else ():
        # What follows the first is of its nodes.
        found.setdefault(name, value)
    return UsedBuilder(
        name=found.get("Name", ""),
        driver=found.get("Driver", ""),
        endpoint=found.get("Endpoint", ""),
    )


def driver_in_use(cancel: Cancel) -> str:
    """The driver of the builder in use, "" when that cannot be known."""
    return used_builder(cancel).driver


def may_be_away(diagnosis: Diagnosis, vertex: str) -> bool:
    """Whether a build that failed at `vertex` for `diagnosis` may have had no builder."""
    return diagnosis.code is Code.ENV_DOCKER_UNREACHABLE or vertex.startswith(_WAITING)


def away(diagnosis: Diagnosis, error: str, cancel: Cancel) -> Diagnosis:
    """`diagnosis`, or env/builder-unreachable where the builder is another one than Docker and what
    it needs of Docker is there; `error` is what buildx said."""
    used = used_builder(cancel)
    if used.in_docker or (used.driver == "docker-container" and not _docker_answers(cancel)):
        return diagnosis
    look = f"docker buildx inspect --bootstrap {used.name}"
    where = {
        "kubernetes": "check that its pods run: kubectl get pods -A -l app=" + used.name,
        "docker-container": f"check its container: docker logs buildx_buildkit_{used.name}0",
    }.get(used.driver, f"check that it runs and is reached from here: {look}")
    return Diagnosis(
        code=Code.ENV_BUILDER_UNREACHABLE,
        message=f"the buildx builder {used.name} does not answer at {used.endpoint}",
        cause=first_line(error) or None,
        suggestions=(where, "or build with Docker: docker buildx use default"),
    )


def _docker_answers(cancel: Cancel) -> bool:
    if answers_ping(os.environ):
        return True
    argv = ("version", "--format", "{{.Server.Version}}")
    answer = ask_docker(*argv, cancel=cancel, limit=_SECONDS)
    return answer is not None and answer.status == 0


def next_route(
    before: Route, target: PushTarget, diagnosis: Diagnosis, cancel: Cancel
) -> tuple[Route, Diagnosis]:
    """The way to try after `before`, on which the builder did not reach the registry, and what to
    say of it; `diagnosis` is of that. The registry answers here.

    Raises `DevloopError` when there is no other way."""
    used = used_builder(cancel)
    if used.in_docker:
        message = f"Docker does not reach the registry {target.push}, which answers here"
        cure = "if Docker runs on another computer, name a registry that both reach"
        raise DevloopError(replace(diagnosis, message=message, suggestions=(cure,)))
    name = target.push if before == "direct" else target.cluster
    missed = f"the {used.driver} builder does not reach {name}"
    cures = ["docker buildx use default"]
    if used.driver == "docker-container":
        cures.insert(0, "docker buildx create --use --driver-opt network=host")
    route: Route = "local"
    how = "its images come back to the local Docker, which pushes them: slower"
    if before == "direct" and target.cluster and used.driver != "docker-container":
        route, how = "cluster", f"it pushes to {target.cluster} instead"
    elif not _docker_answers(cancel):
        message = f"{missed}, and there is no Docker here to push for it"
        cures.insert(0, "name a registry that both reach with `registry`")
        raise DevloopError(replace(diagnosis, message=message, suggestions=tuple(cures)))
    return route, Diagnosis(
        code=diagnosis.code,
        severity="info",
        message=f"{missed}; {how}",
        cause=diagnosis.cause,
        suggestions=tuple(cures),
    )
