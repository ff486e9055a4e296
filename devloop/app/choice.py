"""What is decided before anything is wired: which services, under which name, for which platform.

Pure; nobody is asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.platforms import own_platform
from devloop.config.problems import nearest
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.config.schema import Project, Service

__all__ = ["built_for", "chosen", "names_of"]

# How many services are called by their names.
_NAMED = 8


def chosen(project: Project, only: tuple[str, ...]) -> dict[str, Service]:
    """The services named on the command line, all when none is. Errors: config/unknown-service."""
    for name in only:
        if name not in project.services:
            meant = nearest(name, project.services)
            raise DevloopError.of(
                Code.CONFIG_UNKNOWN_SERVICE,
                f"devloop.yaml has no service {name!r}",
                cause="services: " + ", ".join(project.services),
                suggestions=(f"did you mean {meant}?",) if meant else (),
            )
    return {name: s for name, s in project.services.items() if not only or name in only}


def names_of(project: Project, services: Mapping[str, Service]) -> str:
    """What a session works for, in few words."""
    names = ", ".join(services) if len(services) <= _NAMED else f"{len(services)} services"
    return names if names == project.name else f"{project.name} ({names})"


def built_for(services: Mapping[str, Service], platforms: tuple[str, ...]) -> dict[str, Service]:
    """The services with the nodes' platform, where none is given and this computer's is another.

    Builders make images for their own platform; asking for it by name as well would only keep
    them from the caches that they filled without."""
    own = own_platform()
    if not platforms or own in platforms:
        return dict(services)
    return {
        name: replace(
            service,
            build=replace(service.build, platform=service.build.platform or platforms[0]),
        )
        for name, service in services.items()
    }
