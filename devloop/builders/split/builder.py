"""A full build of which the builder makes only what nobody else can: all up to the last RUN.

The COPYs after it are written and uploaded here, by the rules of the daemonless build: for a big
context that is several times as fast as the builder, which reads, copies, packs and pushes each
file one after the other. The builder pushes the lower part, whose layers say what the COPYs find;
as in the daemonless build nothing is compared with a layer of its own afterwards, but what the
rules leave open is `NeedsFullBuild`. The files of the upper part are those of the scan by their
digests; those that the builder has read are looked at again, as after every build.

Small contexts are the builder's as a whole: there is nothing to gain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.read_patterns import may_match
from devloop.base.threads import Background
from devloop.builders.daemonless.file_tree import Tree
from devloop.builders.daemonless.images import MOST, StageImages
from devloop.builders.daemonless.stages import StageImage, StageMaker
from devloop.builders.dockerfile import load
from devloop.builders.image.base_image import Base
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import started
from devloop.builders.image.layer import read_contents
from devloop.builders.image.listing import Listings
from devloop.builders.image.repository import Repository
from devloop.builders.job import TAG_PREFIX, ProgressReporter, tag_of
from devloop.builders.split.division import divide
from devloop.errors import DevloopError
from devloop.model import StepOutcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.base.file_content import Contents
    from devloop.builders.buildx import Buildx
    from devloop.builders.image.listing import Listing
    from devloop.builders.job import Job, OpenRegistry
    from devloop.builders.split.division import Division
    from devloop.engine.ports import Reporter
    from devloop.model import ImageRef, Scan


SPLIT_GAIN = 1.0
"""From so many seconds on that it saves, a build is split."""

# One tag of each repository, which moves on: the image is meant for nobody.
_TAG = f"{TAG_PREFIX}base"

# What a builder, its push and the unpacking take longer than writing a layer here, measured with
# 20,000 files of 2 KB; and how fast base layers are read. In seconds a file, bytes a second.
_FILE = 0.0005
_COPYING = 50e6
_READING = 20e6


class SplitBuilder:
    """Stands in front of buildx. One object serves one service for a whole session."""

    def __init__(
        self,
        job: Job,
        buildx: Buildx,
        open_registry: OpenRegistry,
        *,
        record: Callable[[ImageRef], None],
        gain: float = SPLIT_GAIN,
        cache: Path | None = None,
    ) -> None:
        """A build is split where that is thought to save `gain` seconds. `record` is called with
        the image of each lower part, so that it can be removed some time."""
        self._job = job
        self._buildx = buildx
        self._open = open_registry
        self._record = record
        self._gain = gain
        self._listings = Listings(open_registry, cache)
        self._images = StageImages(open_registry, job.repository, job.build.context)
        # It was tried in vain with this one, and the next try would cost time again.
        self._given_up: str | None = None

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder."""
        try:
            whole = scan.fresh or bool(scan.passing) or scan.recipe == self._given_up
            if self._buildx.undisturbed and not whole:
                with self._buildx.counted():
                    return self.build_split(scan, reporter, cancel)
        except NeedsFullBuild:
            pass
        return self._buildx.build(scan, reporter, cancel)

    def build_split(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """Raises `NeedsFullBuild` with no step reported, or with the step `build` closed as
        skipped."""
        division = divide(load(self._job.build.dockerfile, self._job.shown), self._job.build)
        paths = _read_by(division, scan)
        saved = self._saved(paths, scan)
        if saved < self._gain:
            raise NeedsFullBuild("there is little to copy")
        progress = ProgressReporter(reporter)
        reading = Background(
            "read-context",
            lambda stop: read_contents(paths, scan.snapshot, self._job.build.context, stop),
            expected=(DevloopError,),
        )
        try:
            return self._build(division, scan, progress, cancel, saved=saved, reading=reading)
        except NeedsFullBuild as needed:
            reporter.finished(progress.step, StepOutcome.SKIPPED, needed.reason)
            raise
        finally:
            reading.close()

    def _saved(self, paths: list[str], scan: Scan) -> float:
        """How many seconds it saves, at most, to make the layers of these files here."""
        size = sum(scan.snapshot.entries[path].size for path in paths)
        if size > MOST:
            raise NeedsFullBuild(f"COPYs of more than {MOST >> 20} MB")
        return len(paths) * _FILE + size / _COPYING

    def _build(
        self,
        division: Division,
        scan: Scan,
        progress: ProgressReporter,
        cancel: Cancel,
        *,
        saved: float,
        reading: Background[Contents],
    ) -> ImageRef:
        digest, built = self._buildx.build_part(
            scan, progress, cancel, tag=_TAG, cut=division.lower
        )
        self._record(replace(self._job.image_ref(scan, digest), tag=_TAG))
        # The upper part is read by digest; what the builder has read is read by now.
        self._job.check_unchanged(scan)
        try:
            base = self._base(digest, cancel)
            if saved - self._listings.unread(base) / _READING < self._gain:
                raise NeedsFullBuild("the layers below the COPYs are not known yet")
            whole = self._whole(division, base, scan, progress, cancel)
            image = self._images.make(whole, cancel, reading.result(cancel))
            count = sum(entry.type != "dir" for layer in whole.layers for entry in layer)
            files = f"{count:,} file{'s' * (count != 1)}"
            summary = f"{built}; {files} copied without the builder"
            progress.push(summary)
            digest = self._images.send(image, tag_of(scan), progress.report, cancel)
        except DevloopError as error:
            if not error.code.value.startswith("registry/"):
                raise
            # The builder may reach it all the same.
            raise NeedsFullBuild(error.diagnosis.message) from error
        progress.done(summary, f"{digest[:19]}…")
        return self._job.image_ref(scan, digest)

    def _base(self, digest: str, cancel: Cancel) -> Base:
        """The image of the lower part."""
        host, _, name = self._job.repository.partition("/")
        repository = Repository(self._open(host), self._job.repository)
        image = repository.image(digest, self._job.build.platform, cancel)
        return Base(host=host, name=name, image=image)

    def _whole(
        self,
        division: Division,
        base: Base,
        scan: Scan,
        progress: ProgressReporter,
        cancel: Cancel,
    ) -> StageImage:
        """The stage with both parts. Raises `NeedsFullBuild`, and will with every try."""

        def listing(of: Base) -> Listing:
            return self._listings.of(of, progress.report, cancel)

        try:
            if base.image.config.get("os") != "linux":
                raise NeedsFullBuild("the image is not for Linux")
            config = replace(started(base.image.config), args=division.args, cmd=division.cmd)
            division.check(config)
            lower = StageImage(base=base, config=config, tree=Tree(base=listing(base)))
            maker = StageMaker(
                division.dockerfile,
                self._job.build,
                scan.snapshot,
                find=_no_base,
                listing=listing,
                built_here=False,
            )
            return maker.carried_on(lower, division.stage, division.upper)
        except NeedsFullBuild:
            self._given_up = scan.recipe
            raise


def _read_by(division: Division, scan: Scan) -> list[str]:
    """The files that the upper part may copy, in the order of the paths."""
    patterns = division.patterns
    return [
        path
        for path, entry in scan.snapshot.entries.items()
        if entry.type == "file" and any(may_match(pattern, path) for pattern in patterns)
    ]


def _no_base(name: str, platform: str) -> Base:
    raise NeedsFullBuild(f"the base image {name} for {platform} is the builder's")
