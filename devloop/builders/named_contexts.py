"""What the names of `build.contexts` stand for in a Dockerfile: BuildKit looks there before it
takes a name for an image's, and even before it takes one for a stage's.

Pure. What is not the name of an image any more is for a builder: `NeedsFullBuild`.
Source: NamedContext in frontend/dockerfile/dockerfile2llb and frontend/dockerui of
github.com/moby/buildkit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.image_reference import familiar
from devloop.base.platforms import own_platform
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import platform_arguments
from devloop.builders.image.text import expand, outer_arguments

if TYPE_CHECKING:
    from devloop.builders.dockerfile import Dockerfile
    from devloop.config.builds import Build

_IMAGE = "docker-image://"


def sources(build: Build) -> dict[str, str]:
    """All named contexts in buildx's form, those for the images of needed services among them."""
    return {n: f"{_IMAGE}{image}" for n, image in build.images.items()} | build.contexts


def image_for(build: Build, name: str) -> str | None:
    """The image that is taken where the Dockerfile says `name`, None for something else."""
    found = sources(build).get(familiar(name), f"{_IMAGE}{name}")
    return found.removeprefix(_IMAGE) if found.startswith(_IMAGE) else None


def check_stages(dockerfile: Dockerfile, build: Build, shown: str) -> None:
    """Raise `NeedsFullBuild` where the stages are not what the Dockerfile says."""
    if not build.contexts:
        return
    outer = outer_arguments(
        dockerfile, build.args, platform_arguments(build.platform or own_platform(), own_platform())
    )
    escape = dockerfile.directives.get("escape", "\\")
    for stage in dockerfile.stages:
        where = f"{shown}:{stage.instructions[0].start}"
        if stage.name.lower() in build.contexts:
            raise NeedsFullBuild(f"{where} the stage {stage.name} is a named context")
        name = expand(stage.base, outer, escape)
        if image_for(build, name) is None:
            raise NeedsFullBuild(f"{where} FROM {name} is a named context and no image")


def read_of(dockerfile: Dockerfile, build: Build, context: str) -> tuple[str, ...] | None:
    """The paths and patterns that are read of a named context; None for all of it, or what is not
    known."""
    outer = outer_arguments(dockerfile, build.args)
    escape = dockerfile.directives.get("escape", "\\")
    found: list[str] = []
    for stage in dockerfile.stages:
        try:
            names = {stage.name, familiar(expand(stage.base, outer, escape))}
        except NeedsFullBuild:
            return None
        if context in names:
            return None
        for instruction in stage.instructions[1:]:
            if instruction.keyword == "ONBUILD":
                return None
            for origin, patterns in instruction.elsewhere:
                if "$" in origin:
                    return None
                if familiar(origin) == context:
                    found += patterns
    return tuple(found)
