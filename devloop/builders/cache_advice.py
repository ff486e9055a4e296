"""What is said about caches between builds: which ones devloop keeps, and where one is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.builders.cache_mounts import additions, missing, with_mounts
from devloop.builders.dockerfile import parse
from devloop.builders.rawjson import one_line
from devloop.errors import Code, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devloop.builders.cache_mounts import CacheMounts
    from devloop.builders.dockerfile import Dockerfile
    from devloop.config.schema import Build


SLOW = 5.0
"""From so many seconds on a step without a cache is worth a word."""


def as_built(build: Build) -> Dockerfile:
    """The Dockerfile with what `build.cache` adds. Raises OSError."""
    return parse(with_mounts(build.dockerfile.read_text("utf-8", "replace"), build))


def advice(
    dockerfile: Dockerfile, build: Build, shown: str, seconds: dict[int, float] | None = None
) -> Iterator[Diagnosis]:
    """build/no-cache-mount for each RUN without a cache; with `seconds` (how long the slow steps
    took, by line) for those only."""
    automatic = {each.run.start for each in additions(dockerfile, replace(build, cache="auto"))}
    for each in missing(dockerfile, build):
        run = each.run
        if seconds is not None and run.start not in seconds:
            continue
        yield Diagnosis(
            code=Code.BUILD_NO_CACHE_MOUNT,
            severity="info",
            message=f"{one_line(str(run), 50)}: no cache is kept between builds"
            + (f", it took {seconds[run.start]:.0f} s" if seconds else ""),
            location=Location(shown, run.start, run.column),
            suggestions=(
                one_line(each.added_to(run.raw.partition("\n")[0]), 300)
                + (f" ({each.note})" if each.note else ""),
                *(["or `build: {cache: auto}` in devloop.yaml"] if run.start in automatic else []),
            ),
        )


def report(added: Sequence[CacheMounts], shown: str) -> Diagnosis:
    """build/cache-mounts: what was added to the Dockerfile."""
    kept = ", ".join(dict.fromkeys(each.directories for each in added))
    return Diagnosis(
        code=Code.BUILD_CACHE_MOUNTS,
        severity="info",
        message=f"build.cache keeps {kept}" if kept else "build.cache finds nothing to keep",
        location=Location(shown, added[0].run.start, added[0].run.column) if added else None,
        detail=tuple(f"{shown}:{each.run.start} {each.directories}" for each in added),
    )


def no_effect(builder: str) -> Diagnosis:
    """build/cache-mounts for a builder that cannot keep directories."""
    return Diagnosis(
        code=Code.BUILD_CACHE_MOUNTS,
        severity="info",
        message=f"build.cache has no effect: {builder} has no cache mounts",
    )
