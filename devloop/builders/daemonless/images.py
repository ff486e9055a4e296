"""Makes the image of a stage and sends it: its base's layers, and its own written here.

What a stage comes to is decided in stages.py. Layers that the registry is known to have are neither
made nor sent again. A layer is made in memory; what is too big for that is `NeedsFullBuild`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.documents import Image, Layer, sha256, timestamp
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.layer import write_layer
from devloop.builders.image.repository import Upload
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.base.file_content import Contents
    from devloop.builders.daemonless.stages import StageImage
    from devloop.builders.image.copies import FileEntry
    from devloop.builders.image.documents import Documents
    from devloop.builders.job import OpenRegistry


MOST = 256 << 20
"""So big, in bytes, a layer may be."""

_OCI = "application/vnd.oci.image.manifest.v1+json"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_DESCRIPTOR = ("mediaType", "size", "digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDocuments:
    """The image of `stage`, ready to be sent; `blobs` are the layers that the registry is not known
    to have."""

    stage: StageImage
    documents: Documents
    blobs: tuple[bytes, ...]


class StageImages:
    """The images of one service in one repository (`host[:port]/name`), for a whole session."""

    def __init__(self, open_registry: OpenRegistry, repository: str, context: Path) -> None:
        self._upload = Upload(open_registry, repository)
        self._context = context
        self._layers: dict[tuple[FileEntry, ...], Layer] = {}

    def make(
        self, stage: StageImage, cancel: Cancel, contents: Contents | None = None
    ) -> StageDocuments:
        """The image's documents and new layers; `contents` as for `write_layer`. Raises
        `NeedsFullBuild`, build/context-changed and env/file-unreadable."""
        image = _start(stage)
        blobs: list[bytes] = []
        known: dict[tuple[FileEntry, ...], Layer] = {}
        own: list[Layer] = []
        for entries in stage.layers:
            cancel.check()
            known[entries] = self._layer(image, entries, blobs, contents)
            own.append(known[entries])
        self._layers = known
        created = timestamp()
        image = replace(image, layers=(*image.layers, *own), config=stage.config.document(created))
        return StageDocuments(stage=stage, documents=image.documents(created), blobs=tuple(blobs))

    def send(
        self, made: StageDocuments, tag: str, report: Callable[[str], None], cancel: Cancel
    ) -> str:
        """Upload it as `tag`; the manifest's digest. Raises registry/*, build/*, `NeedsFullBuild`
        and Cancelled."""
        try:
            self._send(made, tag, report, cancel)
        except DevloopError as error:
            if not self._upload.forget() or error.code != Code.REGISTRY_PUSH_FAILED:
                raise
            # What was known to be there may have been deleted: once more, with nothing assumed.
            made = self.make(made.stage, cancel)
            self._send(made, tag, report, cancel)
        return made.documents.digest

    def _send(
        self, made: StageDocuments, tag: str, report: Callable[[str], None], cancel: Cancel
    ) -> None:
        if made.stage.base is not None:
            self._upload.base(made.stage.base, report, cancel)
        self._upload.send(made.documents, made.blobs, tag, cancel)

    def _layer(
        self,
        image: Image,
        entries: tuple[FileEntry, ...],
        blobs: list[bytes],
        contents: Contents | None,
    ) -> Layer:
        """The layer of `entries`, its bytes added to `blobs` unless the registry has them."""
        known = self._layers.get(entries)
        if known is not None and self._upload.has(known.digest):
            # Its media type follows the base, which may be another by now.
            return image.bare(known.digest, known.size)
        if sum(entry.size for entry in entries) > MOST:
            raise NeedsFullBuild(f"a COPY of more than {MOST >> 20} MB")
        blobs.append(write_layer(entries, self._context, contents))
        return image.bare(sha256(blobs[-1]), len(blobs[-1]))


def _start(stage: StageImage) -> Image:
    """The image below the stage's own layers, bare of what a base's manifest says of the base."""
    kind, config, layers = _OCI, _OCI_CONFIG, tuple[Layer, ...]()
    if stage.base is not None:
        image = stage.base.image
        kind, config = image.media_type, str(image.manifest["config"]["mediaType"])
        layers = tuple(
            replace(layer, descriptor={key: layer.descriptor[key] for key in _DESCRIPTOR})
            for layer in image.layers
        )
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": {"mediaType": config}}
    return Image(media_type=kind, manifest=manifest, config={}, layers=layers)
