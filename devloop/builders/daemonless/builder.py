"""A whole image made without any builder, where the Dockerfile runs nothing.

Without RUN an image is its base's layers, one layer for each COPY and a config: all of it can be
made from the scan and the base's documents, and no Docker is needed. What cannot be proven to equal
`docker buildx build` is `NeedsFullBuild`, before anything is sent. Only files that the scan saw are
read, and their digests are compared, so nothing has to be looked at again afterwards.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from devloop.builders.daemonless import stages
from devloop.builders.dockerfile import load
from devloop.builders.image.base_image import Bases
from devloop.builders.image.documents import Image, Layer, sha256
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import CONFIGURING
from devloop.builders.image.layer import write_layer
from devloop.builders.image.listing import Listings
from devloop.builders.image.upload import Upload
from devloop.builders.job import ProgressReporter, tag_of
from devloop.errors import Code, DevloopError
from devloop.model import StepOutcome

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.base.cancel import Cancel
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
# A layer is made in memory; what is bigger is the builder's, which streams. In bytes.
_MOST = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    documents: Documents
    tag: str


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
        made = stages.make(
            dockerfile,
            self._job.build,
            scan.snapshot,
            stages.StageImages(
                find=lambda name, platform: self._bases.find(
                    name, platform, progress.report, cancel
                ),
                listing=lambda base: self._listings.of(base, progress.report, cancel),
            ),
        )
        if made.base is None and not made.layers:
            raise NeedsFullBuild("the image has no layer")
        image, blobs = self._image(made, scan, cancel)
        count = len(made.layers)
        summary = f"{count} layer{'s' * (count != 1)} without a builder, {len(blobs)} new"
        progress.push(summary)
        try:
            digest = self._send(made, image, blobs, progress, cancel)
        except DevloopError as error:
            if not self._upload.forget() or error.code != Code.REGISTRY_PUSH_FAILED:
                raise
            # What was known to be there may have been deleted: once more, with nothing assumed.
            image, blobs = self._image(made, scan, cancel)
            digest = self._send(made, image, blobs, progress, cancel)
        progress.done(summary, f"{digest[:19]}…")
        return self._job.image_ref(scan, digest)

    def _image(
        self, made: stages.StageImage, scan: Scan, cancel: Cancel
    ) -> tuple[_Ready, list[bytes]]:
        """The image's documents and the layers that the registry is not known to have."""
        image = _start(made)
        blobs: list[bytes] = []
        layers = list(image.layers)
        known: dict[tuple[FileEntry, ...], Layer] = {}
        for entries in made.layers:
            cancel.check()
            known[entries] = self._layer(image, entries, blobs)
            layers.append(known[entries])
        self._layers = known
        created = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        image = replace(image, layers=tuple(layers), config=made.config.document(created))
        return _Ready(documents=image.documents(created), tag=tag_of(scan)), blobs

    def _layer(self, image: Image, entries: tuple[FileEntry, ...], blobs: list[bytes]) -> Layer:
        """The layer of `entries`, its bytes added to `blobs` unless the registry has them."""
        known = self._layers.get(entries)
        if known is not None and self._upload.has(known.digest):
            # Its media type follows the base, which may be another by now.
            return image.bare(known.digest, known.size)
        if sum(entry.size for entry in entries) > _MOST:
            raise NeedsFullBuild(f"a COPY of more than {_MOST >> 20} MB")
        data = write_layer(entries, self._job.build.context)
        blobs.append(data)
        return image.bare(sha256(data), len(data))

    def _send(
        self,
        made: stages.StageImage,
        ready: _Ready,
        blobs: list[bytes],
        progress: ProgressReporter,
        cancel: Cancel,
    ) -> str:
        if made.base is not None:
            self._upload.base(made.base, progress.report, cancel)
        self._upload.put([*blobs, ready.documents.config], cancel)
        self._upload.finish(ready.documents, ready.tag, cancel)
        return ready.documents.digest


def _start(made: stages.StageImage) -> Image:
    """The image below the stage's own layers, bare of what a base's manifest says of the base."""
    if made.base is None:
        kind, config, layers = _OCI, _OCI_CONFIG, tuple[Layer, ...]()
    else:
        image = made.base.image
        kind, layers = image.media_type, image.layers
        config = str(image.manifest["config"]["mediaType"])
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": config},
    }
    return Image(
        media_type=kind,
        manifest=manifest,
        config={},
        layers=tuple(replace(layer, descriptor=_plain(layer)) for layer in layers),
    )


def _plain(layer: Layer) -> dict[str, Any]:
    return {key: layer.descriptor[key] for key in ("mediaType", "size", "digest")}


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
