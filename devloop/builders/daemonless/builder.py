"""A whole image made without any builder, where the Dockerfile runs nothing.

Without RUN an image is its base's layers, one layer for each COPY and a config: all of it can be
made from the scan and the base's documents, and no Docker is needed. What cannot be proven to equal
`docker buildx build` is `NeedsFullBuild`, before anything is sent. Only files that the scan saw are
read, and their digests are compared, so nothing has to be looked at again afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.builders.daemonless.images import StageImages
from devloop.builders.daemonless.stages import StageMaker
from devloop.builders.dockerfile import load
from devloop.builders.image.base_image import Bases
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import CONFIGURING
from devloop.builders.image.listing import Listings
from devloop.builders.job import ProgressReporter, tag_of
from devloop.builders.named_contexts import check_stages, image_for
from devloop.errors import Code, DevloopError
from devloop.model import StepOutcome

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.builders.dockerfile import Dockerfile
    from devloop.builders.image.base_image import LocalImages
    from devloop.builders.job import Job, OpenRegistry
    from devloop.config.builds import Build
    from devloop.engine.ports import Builder, Reporter
    from devloop.model import ImageRef, Scan


class DaemonlessBuilder:
    """Makes images without Docker where it can; `fallback` builds everything else. One object
    serves one service for a whole session."""

    def __init__(
        self,
        job: Job,
        fallback: Builder,
        open_registry: OpenRegistry,
        local: LocalImages,
        cache: Path | None = None,
    ) -> None:
        self._job = job
        self._fallback = fallback
        self._bases = Bases(open_registry, job.target.push, local)
        self._listings = Listings(open_registry, cache)
        self._images = StageImages(open_registry, job.repository, job.build.context)
        self._recipe: str | None = None

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder. Without a Docker for the fallback builder, the error says why
        there has to be one; a full build is then made here, from nothing that is remembered."""
        if scan.fresh:
            try:
                return self._fallback.build(scan, reporter, cancel)
            except DevloopError as error:
                if error.code not in (Code.ENV_DOCKER_UNREACHABLE, Code.ENV_TOOL_MISSING):
                    raise
        try:
            return self.build_without_docker(scan, reporter, cancel)
        except NeedsFullBuild as needed:
            reason = needed.reason
        try:
            return self._fallback.build(scan, reporter, cancel)
        except DevloopError as error:
            if error.code != Code.ENV_DOCKER_UNREACHABLE:
                raise
            why = "; ".join(filter(None, (f"it is needed here: {reason}", error.diagnosis.cause)))
            raise DevloopError(replace(error.diagnosis, cause=why)) from error

    def build_without_docker(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """Raises `NeedsFullBuild` with no step reported, or with the step `build` closed as
        skipped."""
        if not self._job.target.push:
            raise NeedsFullBuild("the image goes into the local Docker")
        for key in ("labels", "cache_to", "no_cache"):
            if getattr(self._job.build, key):
                raise NeedsFullBuild(f"build.{key} is for a builder")
        dockerfile = load(self._job.build.dockerfile, self._job.shown)
        _check(dockerfile, self._job.build, self._job.shown)
        progress = ProgressReporter(reporter)
        try:
            return self._build(dockerfile, scan, progress, cancel)
        except NeedsFullBuild as needed:
            reporter.finished(progress.step, StepOutcome.SKIPPED, needed.reason)
            raise

    def _build(
        self, dockerfile: Dockerfile, scan: Scan, progress: ProgressReporter, cancel: Cancel
    ) -> ImageRef:
        if scan.recipe != self._recipe:
            self._bases.forget()
            self._recipe = scan.recipe
        made = StageMaker(
            dockerfile,
            self._job.build,
            scan.snapshot,
            find=lambda name, platform: self._bases.find(
                image_for(self._job.build, name) or name, platform, progress.report, cancel
            ),
            listing=lambda base: self._listings.of(base, progress.report, cancel),
        ).target()
        if made.base is None and not made.layers:
            raise NeedsFullBuild("the image has no layer")
        image = self._images.make(made, cancel, scan.kept)
        count = len(made.layers)
        summary = f"{count} layer{'s' * (count != 1)} without a builder, {len(image.blobs)} new"
        progress.push(summary)
        digest = self._images.send(image, tag_of(scan), progress.report, cancel)
        progress.done(summary, f"{digest[:19]}…")
        return self._job.image_ref(scan, digest)


def needs_builder(build: Build, shown: str) -> str | None:
    """Why the Dockerfile needs a builder; None when it does not. `shown` is its path for the user.
    Errors: config/dockerfile-missing, env/file-unreadable."""
    try:
        _check(load(build.dockerfile, shown), build, shown)
    except NeedsFullBuild as needed:
        return needed.reason
    return None


def _check(dockerfile: Dockerfile, build: Build, shown: str) -> None:
    """Raise `NeedsFullBuild` when the Dockerfile by itself needs a builder."""
    if dockerfile.custom_syntax:
        raise NeedsFullBuild(f"{shown} has a syntax of its own")
    if dockerfile.problems:
        problem = dockerfile.problems[0]
        raise NeedsFullBuild(f"{shown}:{problem.line} {problem.message}")
    if build.platforms:
        raise NeedsFullBuild("several platforms at once")
    check_stages(dockerfile, build, shown)
    for name in build.args:
        if name.startswith("BUILDKIT_") or name == "SOURCE_DATE_EPOCH":
            raise NeedsFullBuild(f"the build argument {name} is the builder's")
    if not dockerfile.stages or (build.target and dockerfile.stage(build.target) is None):
        raise NeedsFullBuild(f"{shown} has no stage {build.target or ''}".rstrip())
    for stage in dockerfile.needed(build.target):
        for instruction in stage.instructions[1:]:
            if instruction.keyword not in CONFIGURING | {"COPY", "ADD"}:
                raise NeedsFullBuild(f"{shown}:{instruction.start} {instruction.keyword}")
