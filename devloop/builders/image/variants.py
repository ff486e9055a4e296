"""Images that differ from a given one in a single small file, for measuring what a replacement
costs when an image is new to the node.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from devloop.builders.image.documents import config_digest, parse_image
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.tar_writer import END, header, padding
from devloop.model import ImageRef

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.builders.job import Registry


def push_variants(
    registry: Registry, image: ImageRef, count: int, cancel: Cancel
) -> tuple[ImageRef, ...]:
    """Push `count` images, `image` plus one small file each, under its repository.

    Raises `NeedsFullBuild` for an image that cannot be read, and registry/*."""
    name = registry.name(image.repository)
    found = registry.get_manifest(name, image.digest, cancel)
    config = registry.get_blob(name, config_digest(found.body), cancel) if found else None
    if found is None or config is None:
        raise NeedsFullBuild("the registry does not have the image any more")
    base = parse_image(found.body, found.media_type, config).without_delta()
    made: list[ImageRef] = []
    for number in range(count):
        content = f"{time.time_ns()} {number}\n".encode()
        head = header(".devloop-bench", "file", mode=0o644, size=len(content))
        layer = head + content + padding(len(content)) + END
        digest = registry.put_blob(name, layer, cancel)
        created = datetime.now(UTC).isoformat()
        documents = base.documents(created, base.bare(digest, len(layer)), "devloop bench")
        registry.put_blob(name, documents.config, cancel)
        tag = f"devloop-bench-{hashlib.sha256(layer).hexdigest()[:16]}"
        registry.put_manifest(name, tag, documents.manifest, documents.media_type, cancel)
        made.append(
            ImageRef(
                repository=image.repository,
                tag=tag,
                digest=documents.digest,
                pull_repository=image.pull_repository,
            )
        )
    return tuple(made)
