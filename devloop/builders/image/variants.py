"""Images that differ from a given one in a single small file, for measuring what a replacement
costs when an image is new to the node."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from devloop.builders.image.documents import config_digest, parse_image
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.model import ImageRef

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel

__all__ = ["Store", "push_variants"]


class _Manifest(Protocol):
    @property
    def body(self) -> bytes: ...
    @property
    def media_type(self) -> str: ...


class Store(Protocol):
    """As much of a registry as this needs; `name` is without the host."""

    def name(self, repository: str) -> str: ...
    def get_manifest(
        self, name: str, reference: str, cancel: Cancel | None = None
    ) -> _Manifest | None: ...
    def get_blob(self, name: str, digest: str, cancel: Cancel | None = None) -> bytes | None: ...
    def put_blob(self, name: str, data: bytes, cancel: Cancel | None = None) -> str: ...
    def put_manifest(
        self, name: str, reference: str, body: bytes, media_type: str, cancel: Cancel | None = None
    ) -> object: ...


def push_variants(
    store: Store, image: ImageRef, count: int, cancel: Cancel
) -> tuple[ImageRef, ...]:
    """Push `count` images, `image` plus one small file each, under its repository.

    Raises `NeedsFullBuild` for an image that cannot be read, and registry/*."""
    name = store.name(image.repository)
    found = store.get_manifest(name, image.digest, cancel)
    config = store.get_blob(name, config_digest(found.body), cancel) if found else None
    if found is None or config is None:
        raise NeedsFullBuild("the registry does not have the image any more")
    base = parse_image(found.body, found.media_type, config).without_delta()
    made: list[ImageRef] = []
    for number in range(count):
        layer = _layer(f"{time.time_ns()} {number}\n".encode())
        digest = store.put_blob(name, layer, cancel)
        created = datetime.now(UTC).isoformat()
        documents = base.documents(created, base.bare(digest, len(layer)), "devloop bench")
        store.put_blob(name, documents.config, cancel)
        tag = f"devloop-bench-{hashlib.sha256(layer).hexdigest()[:16]}"
        store.put_manifest(name, tag, documents.manifest, documents.media_type, cancel)
        made.append(
            ImageRef(
                repository=image.repository,
                tag=tag,
                digest=documents.digest,
                pull_repository=image.pull_repository,
            )
        )
    return tuple(made)


def _layer(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        header = tarfile.TarInfo(".devloop-bench")
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))
    return out.getvalue()
