"""A whole image made without any builder, where the Dockerfile runs nothing.

Without RUN an image is its base's layers, one layer for each COPY and a config: all of it can be
made from the scan and the base's documents, and no Docker is needed. What cannot be proven to equal
`docker buildx build` is `NeedsFullBuild`, before anything is sent. Only files that the scan saw are
read, and their digests are compared, so nothing has to be looked at again afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.builders.daemonless.stages import StageMaker
from devloop.builders.dockerfile import load
from devloop.builders.image.base_image import Bases
from devloop.builders.image.documents import Image, Layer, sha256, timestamp
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import CONFIGURING
from devloop.builders.image.layer import write_layer
from devloop.builders.image.listing import Listings
from devloop.builders.image.repository import Upload
from devloop.builders.job import ProgressReporter, tag_of
from devloop.errors import Code, DevloopError
from devloop.model import StepOutcome

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.builders.daemonless.stages import StageImage
    from devloop.builders.dockerfile import Dockerfile
    from devloop.builders.image.base_image import LocalImages
    from devloop.builders.image.copies import FileEntry
    from devloop.builders.image.documents import Documents
    from devloop.builders.job import Job, OpenRegistry
    from devloop.config.schema import Build
    from devloop.engine.ports import Builder, Reporter
    from devloop.model import ImageRef, Scan


_OCI = "application/vnd.oci.image.manifest.v1+json"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_DESCRIPTOR = ("mediaType", "size", "digest")
# A layer is made in memory; what is bigger is the builder's, which streams. In bytes.
_MOST = 256 << 20


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
        self._upload = Upload(open_registry, job.repository)
        self._recipe: str | None = None
        self._layers: dict[tuple[FileEntry, ...], Layer] = {}

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder. Without a Docker for the fallback builder, the error says why
        there has to be one."""
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
            raise NeedsFullBuild("images are loaded into the nodes with Docker")
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
            find=lambda name, platform: self._bases.find(name, platform, progress.report, cancel),
            listing=lambda base: self._listings.of(base, progress.report, cancel),
        ).target()
        if made.base is None and not made.layers:
            raise NeedsFullBuild("the image has no layer")
        documents, blobs = self._image(made, cancel)
        count = len(made.layers)
        summary = f"{count} layer{'s' * (count != 1)} without a builder, {len(blobs)} new"
        progress.push(summary)

        def send() -> None:
            if made.base is not None:
                self._upload.base(made.base, progress.report, cancel)
            self._upload.send(documents, blobs, tag_of(scan), cancel)

        try:
            send()
        except DevloopError as error:
            if not self._upload.forget() or error.code != Code.REGISTRY_PUSH_FAILED:
                raise
            # What was known to be there may have been deleted: once more, with nothing assumed.
            documents, blobs = self._image(made, cancel)
            send()
        progress.done(summary, f"{documents.digest[:19]}…")
        return self._job.image_ref(scan, documents.digest)

    def _image(self, made: StageImage, cancel: Cancel) -> tuple[Documents, list[bytes]]:
        """The image's documents and the layers that the registry is not known to have."""
        image = _start(made)
        blobs: list[bytes] = []
        known: dict[tuple[FileEntry, ...], Layer] = {}
        own: list[Layer] = []
        for entries in made.layers:
            cancel.check()
            known[entries] = self._layer(image, entries, blobs)
            own.append(known[entries])
        self._layers = known
        created = timestamp()
        config = made.config.document(created)
        return replace(image, layers=(*image.layers, *own), config=config).documents(created), blobs

    def _layer(self, image: Image, entries: tuple[FileEntry, ...], blobs: list[bytes]) -> Layer:
        """The layer of `entries`, its bytes added to `blobs` unless the registry has them."""
        known = self._layers.get(entries)
        if known is not None and self._upload.has(known.digest):
            # Its media type follows the base, which may be another by now.
            return image.bare(known.digest, known.size)
        if sum(entry.size for entry in entries) > _MOST:
            raise NeedsFullBuild(f"a COPY of more than {_MOST >> 20} MB")
        blobs.append(write_layer(entries, self._job.build.context))
        return image.bare(sha256(blobs[-1]), len(blobs[-1]))


def _start(made: StageImage) -> Image:
    """The image below the stage's own layers, bare of what a base's manifest says of the base."""
    kind, config, layers = _OCI, _OCI_CONFIG, tuple[Layer, ...]()
    if made.base is not None:
        image = made.base.image
        kind, config = image.media_type, str(image.manifest["config"]["mediaType"])
        layers = tuple(
            replace(layer, descriptor={key: layer.descriptor[key] for key in _DESCRIPTOR})
            for layer in image.layers
        )
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": {"mediaType": config}}
    return Image(media_type=kind, manifest=manifest, config={}, layers=layers)


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
    if build.platform and "," in build.platform:
        raise NeedsFullBuild("several platforms at once")
    for name in build.args:
        if name.startswith("BUILDKIT_") or name == "SOURCE_DATE_EPOCH":
            raise NeedsFullBuild(f"the build argument {name} is the builder's")
    if not dockerfile.stages or (build.target and dockerfile.stage(build.target) is None):
        raise NeedsFullBuild(f"{shown} has no stage {build.target or ''}".rstrip())
    for stage in dockerfile.needed(build.target):
        for instruction in stage.instructions[1:]:
            if instruction.keyword not in CONFIGURING | {"COPY", "ADD"}:
                raise NeedsFullBuild(f"{shown}:{instruction.start} {instruction.keyword}")
