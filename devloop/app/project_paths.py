"""Which file of the project a path in one of a service's containers is, for what a crash names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders.dockerfile import load
from devloop.builders.image.origins import Origins
from devloop.builders.job import shown_path
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.schema import Build
    from devloop.model import Snapshot


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
