"""How the image of a service that another one needs reaches that one's build: as the build argument
`<NAME>_IMAGE` where its Dockerfile declares one, or by the service's name in FROM, COPY --from or a
mount, as BuildKit's named contexts have it.

Which image that is the engine says with each scan (`Scan.needs`); before, a placeholder stands for
it, so that all that is judged by the Dockerfile alone goes on. A need that the Dockerfile does not
use is for the order of things only.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.platforms import own_platform
from devloop.builders.dockerfile import parse
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import platform_arguments
from devloop.builders.image.text import expand, outer_arguments
from devloop.config.needs import placeholder, variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.base.cancel import Cancel
    from devloop.builders.delta.builder import DeltaBuilder
    from devloop.builders.delta.copy_targets import ShownCopies
    from devloop.builders.dockerfile import Dockerfile, Stage
    from devloop.builders.image.listing import Listing
    from devloop.config.builds import Build
    from devloop.engine.ports import Reporter
    from devloop.model import ImageRef, Scan


def used_needs(build: Build) -> frozenset[str]:
    """The needs whose images the build uses, by its Dockerfile as it is on disk now; a build
    command may use all."""
    if not build.needs or build.builder == "command":
        return frozenset(build.needs)
    try:
        data = build.dockerfile.read_bytes()
    except OSError:
        return frozenset()
    dockerfile = _parsed(data)
    named, declared = _named(dockerfile, build), _declared(dockerfile)
    return frozenset(
        n for n in build.needs if n in named or (variable(n) in declared and _is_free(build, n))
    )


def filled(build: Build, images: Mapping[str, str]) -> Build:
    """`build` with the `images` of its needs, by name, in place of placeholders."""
    free = {variable(n): n for n in build.needs if _is_free(build, n)}
    args = {name: value for name, value in build.args.items() if name not in free}
    if build.builder == "command":
        return replace(build, args=args, images=dict(images))
    try:
        dockerfile = _parsed(build.dockerfile.read_bytes())
    except OSError:
        return replace(build, args=args)
    declared, named = _declared(dockerfile), _named(dockerfile, build)
    args |= {v: images[n] for v, n in free.items() if n in images and v in declared}
    return replace(build, args=args, images={n: images[n] for n in images if n in named})


def _is_free(build: Build, need: str) -> bool:
    return build.args.get(variable(need)) == placeholder(need)


@functools.lru_cache(maxsize=64)
def _parsed(data: bytes) -> Dockerfile:
    return parse(data.decode("utf-8", "replace"))


def _declared(dockerfile: Dockerfile) -> frozenset[str]:
    return frozenset(
        word.partition("=")[0]
        for instruction in dockerfile.instructions
        if instruction.keyword == "ARG"
        for word in instruction.arguments
    )


def _named(dockerfile: Dockerfile, build: Build) -> frozenset[str]:
    """The needs that are named where an image may stand, and neither a stage before nor a named
    context has the name."""

    escape = dockerfile.directives.get("escape", "\\")
    known = platform_arguments(build.platform or own_platform(), own_platform())

    def base_of(stage: Stage) -> str:
        try:
            return expand(stage.base, outer_arguments(dockerfile, build.args, known), escape)
        except NeedsFullBuild:
            return stage.base

    def names() -> Iterator[str]:
        for stage in dockerfile.needed(build.target):
            found = [base_of(stage)]
            for instruction in stage.instructions[1:]:
                found.append(instruction.flag("from") or "")
                found += [mount.get("from", "") for mount in instruction.mounts]
            for name in found:
                other = dockerfile.stage(name)
                if other is None or other.index >= stage.index:
                    yield name

    return frozenset(names()).intersection(build.needs).difference(build.contexts)


class NeedsBuilder:
    """The builder of a service with needs: one for the images that they have now, and another one
    once these are others, which knows nothing of what was made from the old ones.

    `make` gives the builder for a `Build` that is filled."""

    def __init__(self, build: Build, make: Callable[[Build], DeltaBuilder]) -> None:
        self._build = build
        self._make = make
        self._lock = threading.Lock()
        self._known: tuple[Build, DeltaBuilder] | None = None

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder."""
        return self._for(scan).build(scan, reporter, cancel)

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        known = self._current()
        if known is None or before.needs != after.needs:
            return True
        return known.may_differ(before, after)

    def wrote(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        known = self._current()
        return known is not None and before.needs == after.needs and known.wrote(before, after)

    def below_copies(self) -> Listing | None:
        """See `DeltaBuilder`, as for the next ones."""
        known = self._current()
        return known.below_copies() if known is not None else None

    def shown_copies(self, recipe: str) -> ShownCopies | None:
        known = self._current()
        return known.shown_copies(recipe) if known is not None else None

    def resume(self, scan: Scan) -> None:
        self._for(scan).resume(scan)

    def settle(self) -> None:
        if (known := self._current()) is not None:
            known.settle()

    def close(self) -> None:
        with self._lock:
            known, self._known = self._known, None
        if known is not None:
            known[1].close()

    def _current(self) -> DeltaBuilder | None:
        known = self._known
        return known[1] if known is not None else None

    def _for(self, scan: Scan) -> DeltaBuilder:
        build = filled(self._build, scan.needs)
        with self._lock:
            known = self._known
            if known is not None and known[0] == build:
                return known[1]
            made = self._make(build)
            self._known = (build, made)
        if known is not None:
            # A build that was cancelled may still be leaving; it goes on with nothing.
            known[1].close()
        return made
