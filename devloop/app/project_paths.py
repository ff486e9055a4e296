"""What the Dockerfile says of paths: which file of the project a path in one of a service's
containers is, for what a crash names, and whether a build reads a path at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders.context_reads import first_read
from devloop.builders.dockerfile import load
from devloop.builders.image.origins import Origins
from devloop.builders.job import shown_path
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.schema import Build
    from devloop.model import Snapshot


def may_read(build: Build, path: str) -> bool:
    """Whether an image that is built by `build` may depend on `path` of its context, by its
    Dockerfile alone: a base image's ONBUILD, which reads more, is the builder's to find. Builders
    that take the whole context read everything."""
    if build.builder in ("classic", "command"):
        return True
    try:
        dockerfile = load(build.dockerfile, shown_path(build.dockerfile))
    except DevloopError:
        return True
    if dockerfile.custom_syntax or dockerfile.problems:
        return True
    patterns = [source for each in dockerfile.instructions for source in each.sources]
    return first_read(patterns, [path]) is not None


def project_paths(build: Build, snapshot: Callable[[], Snapshot | None]) -> ProjectPaths:
    """For the containers that run a service's image, made of what `snapshot` returns."""

    def find(paths: Sequence[str]) -> Mapping[str, str]:
        seen = snapshot() if paths else None
        if seen is None:
            return {}
        try:
            dockerfile = load(build.dockerfile, shown_path(build.dockerfile))
        except DevloopError:
            dockerfile = None
        origins = Origins(dockerfile, build.target, build.args, seen)
        found = ((path, origins.of(path)) for path in paths)
        return {path: shown_path(build.context / origin) for path, origin in found if origin}

    return find
