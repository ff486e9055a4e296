"""Whether a Dockerfile by itself says that its image can be made without a builder.

Asks nobody and decides nothing for good: a base image may still make a builder necessary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders.dockerfile import load
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import SHAPING

if TYPE_CHECKING:
    from devloop.builders.dockerfile import Dockerfile
    from devloop.config.schema import Build

__all__ = ["check", "needs_builder"]


def needs_builder(build: Build, shown: str) -> str | None:
    """Why the Dockerfile needs a builder; None when it does not. `shown` is its path for the user.
    Errors: config/dockerfile-missing, env/file-unreadable."""
    try:
        check(load(build.dockerfile, shown), build, shown)
    except NeedsFullBuild as unprovable:
        return unprovable.reason
    return None


def check(dockerfile: Dockerfile, build: Build, shown: str) -> None:
    """Raise `NeedsFullBuild` when the Dockerfile by itself needs a builder."""
    if dockerfile.custom_syntax:
        raise NeedsFullBuild(f"{shown} has a syntax of its own")
    if dockerfile.problems:
        problem = dockerfile.problems[0]
        raise NeedsFullBuild(f"{shown}:{problem.line} {problem.message}")
    if build.platform and "," in build.platform:
        raise NeedsFullBuild("several platforms at once")
    for name in build.args:
        if name.startswith("BUILDKIT_") or name == "SOURCE_DATE_EPOCH":
            raise NeedsFullBuild(f"the build argument {name} is the builder's")
    if not dockerfile.stages or (build.target and dockerfile.stage(build.target) is None):
        raise NeedsFullBuild(f"{shown} has no stage {build.target or ''}".rstrip())
    for stage in dockerfile.needed(build.target):
        for instruction in stage.instructions[1:]:
            if instruction.keyword not in SHAPING | {"COPY", "ADD"}:
                raise NeedsFullBuild(f"{shown}:{instruction.start} {instruction.keyword}")
