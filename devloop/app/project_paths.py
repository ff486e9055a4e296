"""What the Dockerfile says of paths: which file of the project a path in one of a service's
containers is, for what a crash names, and whether a build reads a path at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders.base_triggers import started_from
from devloop.builders.context_reads import first_read
from devloop.builders.dockerfile import load, parse
from devloop.builders.image.origins import Origins
from devloop.builders.image.roots import source_roots
from devloop.builders.job import shown_path
from devloop.builders.named_contexts import read_of
from devloop.builders.needs import used_needs
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.base.cancel import Cancel
    from devloop.builders.base_triggers import BaseTriggers
    from devloop.builders.dockerfile import Dockerfile
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.builds import Build
    from devloop.model import Snapshot


def may_read(build: Build, path: str) -> bool:
    """Whether an image that is built by `build` may depend on `path` of its context, by its
    Dockerfile alone: a base image's ONBUILD, which reads more, is the builder's to find. Builders
    that take the whole context read everything."""
    if build.builder in ("classic", "command"):
        return True
    dockerfile = _parsed(build)
    return dockerfile is None or first_read(_named(dockerfile), [path]) is not None


class DockerfileReads:
    """What the build of one service reads, as far as its Dockerfile and base images tell. `moved`
    are the base images that moved under their names; `triggers` knows what those read."""

    def __init__(
        self,
        build: Build,
        triggers: BaseTriggers,
        moved: Callable[[Cancel], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._build = build
        self._triggers = triggers
        self._moved = moved
        self._dockerfile = _PlainDockerfile(build)
        self._proof: tuple[object, bool] | None = None

    def named(self) -> tuple[str, ...] | None:
        """See watch.context_rules.BuildReads."""
        dockerfile = self._dockerfile() if self._build.builder != "command" else None
        return None if dockerfile is None else _named(dockerfile)

    def nothing_else(self, cancel: Cancel) -> bool:
        """See watch.context_rules.BuildReads. Asked once for the same images."""
        if used_needs(self._build):
            return False  # what another service's image reads may change with each of its images
        dockerfile = self._dockerfile()
        images = started_from(dockerfile, self._build) if dockerfile is not None else None
        if images is None:
            return False
        about = images, tuple(sorted(self._moved(cancel).items()))
        if self._proof is None or self._proof[0] != about:
            self._proof = about, self._triggers.none_in(images, cancel)
        return self._proof[1]


class NamedContextReads:
    """What a build reads of one of its named contexts, by its Dockerfile. BuildKit takes nothing
    else of it, and a base image's ONBUILD cannot."""

    def __init__(self, build: Build, name: str) -> None:
        self._build = build
        self._name = name
        self._dockerfile = _PlainDockerfile(build)

    def named(self) -> tuple[str, ...] | None:
        """See watch.context_rules.BuildReads."""
        dockerfile = self._dockerfile()
        return read_of(dockerfile, self._build, self._name) if dockerfile is not None else None

    def nothing_else(self, cancel: Cancel) -> bool:  # noqa: ARG002 - the interface
        """See watch.context_rules.BuildReads."""
        return True


class _PlainDockerfile:
    """A build's Dockerfile as it is now, parsed once; None for one that cannot be read, that has
    problems, or that another frontend reads."""

    def __init__(self, build: Build) -> None:
        self._path = build.dockerfile
        self._known: tuple[bytes, Dockerfile | None] | None = None

    def __call__(self) -> Dockerfile | None:
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        if self._known is None or self._known[0] != data:
            found = parse(data.decode("utf-8", "replace"))
            plain = not found.custom_syntax and not found.problems
            self._known = data, found if plain else None
        return self._known[1]


def _parsed(build: Build) -> Dockerfile | None:
    try:
        dockerfile = load(build.dockerfile, shown_path(build.dockerfile))
    except DevloopError:
        return None
    return None if dockerfile.custom_syntax or dockerfile.problems else dockerfile


def _named(dockerfile: Dockerfile) -> tuple[str, ...]:
    return tuple(source for each in dockerfile.instructions for source in each.sources)


def debug_roots(build: Build) -> tuple[tuple[str, str], ...]:
    """Which directories of the context are which in the image (see `image.roots`); empty where the
    Dockerfile does not tell."""
    dockerfile = _parsed(build)
    if dockerfile is None or build.builder == "command":
        return ()
    return source_roots(
        dockerfile, build.target, build.args, lambda path: (build.context / path).is_dir()
    )


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
