"""One repository of the registry, as images made here need it: whole images in and out.

Knows how an image is taken apart in a registry and nothing of what is in it. A layer of a base
image is taken over within a registry, or flows through from another one; it is never kept here.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from devloop.base.threads import side_by_side
from devloop.builders.image.base_image import Base
from devloop.builders.image.documents import (
    choose,
    config_digest,
    is_index,
    parse_image,
    sha256,
    timestamp,
)
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.layer import read_layer
from devloop.builders.image.listing import Listings
from devloop.builders.image.tar_writer import END, header, in_pieces, padding
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.base.cancel import Cancel
    from devloop.builders.image.copies import FileEntry
    from devloop.builders.image.documents import Documents, Image, Layer
    from devloop.builders.image.listing import Listing
    from devloop.builders.job import OpenRegistry, Registry
    from devloop.model import ImageRef


# A delta and its config.
_BLOBS = 2
# In bytes: every piece is a request.
_PIECE = 8 << 20


class Repository:
    """`name` includes the registry's host. Every call raises registry/* and Cancelled."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = registry.name(name)

    def image(self, digest: str, platform: str | None, cancel: Cancel) -> Image:
        """The documents of an image; of an index, those of its only image or of the one for
        `platform`. Raises `NeedsFullBuild`."""
        registry, name = self._registry, self._name
        manifest = registry.get_manifest(name, digest, cancel)
        if manifest is not None and is_index(manifest.media_type, manifest.body):
            manifest = registry.get_manifest(name, choose(manifest.body, platform), cancel)
        if manifest is None:
            raise NeedsFullBuild("the registry does not have the image any more")
        config = registry.get_blob(name, config_digest(manifest.body), cancel)
        if config is None:
            raise NeedsFullBuild("the registry does not have the image's config")
        return parse_image(manifest.body, manifest.media_type, config)

    def entries(self, layer: Layer, cancel: Cancel) -> Mapping[str, FileEntry]:
        """A layer's entries by path, whiteouts among them. Raises `NeedsFullBuild`."""
        with self._registry.open_blob(self._name, layer.digest, cancel) as chunks:
            if chunks is None:
                raise NeedsFullBuild("the registry does not have a layer of the image")
            return read_layer(chunks)

    def listing(self, image: Image, cancel: Cancel) -> Listing:
        """The paths in an image's layers. Raises `NeedsFullBuild`."""
        base = Base(host="", name=self._name, image=image)
        return Listings(lambda _: self._registry).of(base, lambda _: None, cancel)

    def get_ready(self, cancel: Cancel) -> None:
        """Make the next `send` a round trip shorter."""
        self._registry.ready_uploads(self._name, _BLOBS, cancel)

    def put(self, blob: bytes, cancel: Cancel) -> None:
        self._registry.put_blob(self._name, blob, cancel)

    def send(self, documents: Documents, blobs: Sequence[bytes], tag: str, cancel: Cancel) -> None:
        """Upload new layers and the documents. Raises `NeedsFullBuild` when the registry does not
        have the other layers."""
        side_by_side([partial(self.put, blob, cancel) for blob in (*blobs, documents.config)])
        try:
            self._registry.put_manifest(
                self._name, tag, documents.manifest, documents.media_type, cancel
            )
        except DevloopError as error:
            # What else could it refuse of documents that are its own but for a layer?
            if error.code == Code.REGISTRY_PUSH_FAILED:
                raise NeedsFullBuild("the registry has lost the base layers") from error
            raise


class Upload:
    """One repository that is filled for a whole session: what it has is asked once. `repository` is
    `host[:port]/name`."""

    def __init__(self, open_registry: OpenRegistry, repository: str) -> None:
        self.host, _, self.name = repository.partition("/")
        self._open = open_registry
        self._there: set[str] = set()

    @property
    def _registry(self) -> Registry:
        return self._open(self.host)

    def has(self, digest: str) -> bool:
        """Whether it is known, without asking, that the registry has the blob."""
        return digest in self._there

    def forget(self) -> bool:
        """Ask again from now on; whether there was anything to forget."""
        known, self._there = bool(self._there), set()
        return known

    def base(self, base: Base, report: Callable[[str], None], cancel: Cancel) -> None:
        """Make sure of the layers that `base` has."""
        for layer in base.image.layers:
            if layer.digest in self._there:
                continue
            if self._registry.head_blob(self.name, layer.digest, cancel) is None:
                mount = partial(self._registry.mount_blob, self.name, layer.digest, base.name)
                if base.host != self.host or not mount(cancel):
                    self._stream(base, layer, report, cancel)
            self._there.add(layer.digest)

    def _stream(
        self, base: Base, layer: Layer, report: Callable[[str], None], cancel: Cancel
    ) -> None:
        report(f"copying {layer.size / 1e6:.1f} MB of {base.name} from {base.host} to {self.host}")
        with self._open(base.host).open_blob(base.name, layer.digest, cancel) as chunks:
            if chunks is None:
                raise DevloopError.of(
                    Code.BUILD_BASE_PULL_FAILED, f"{base.host} does not have a layer of {base.name}"
                )
            self._registry.put_chunks(self.name, in_pieces(chunks, _PIECE), cancel)

    def send(self, documents: Documents, blobs: Sequence[bytes], tag: str, cancel: Cancel) -> None:
        """Upload what is not known to be there, side by side, and the manifest after it."""
        registry, name = self._registry, self.name
        digests = ((sha256(data), data) for data in (*blobs, documents.config))
        new = {digest: data for digest, data in digests if digest not in self._there}
        side_by_side([partial(registry.put_blob, name, data, cancel) for data in new.values()])
        self._there.update(new)
        registry.put_manifest(name, tag, documents.manifest, documents.media_type, cancel)


def push_variants(
    registry: Registry, image: ImageRef, count: int, cancel: Cancel
) -> tuple[ImageRef, ...]:
    """Push `count` images, `image` plus one small file each, under its repository, for measuring
    what a replacement costs when an image is new to the node.

    Raises `NeedsFullBuild` for an image that cannot be read, and registry/*."""
    repository = Repository(registry, image.repository)
    base = repository.image(image.digest, None, cancel).without_delta()
    made: list[ImageRef] = []
    for number in range(count):
        content = f"{time.time_ns()} {number}\n".encode()
        head = header(".devloop-bench", "file", mode=0o644, size=len(content))
        layer = head + content + padding(len(content)) + END
        digest = sha256(layer)
        documents = base.documents(timestamp(), base.bare(digest, len(layer)), "devloop bench")
        tag = f"devloop-bench-{digest.removeprefix('sha256:')[:16]}"
        repository.send(documents, [layer], tag, cancel)
        made.append(replace(image, tag=tag, digest=documents.digest))
    return tuple(made)
