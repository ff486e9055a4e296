"""Images that differ from a given one in a single small file, for measuring what a replacement
costs when an image is new to the node.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.builders.image.documents import sha256, timestamp
from devloop.builders.image.repository import Repository
from devloop.builders.image.tar_writer import END, header, padding

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.builders.job import Registry
    from devloop.model import ImageRef


def push_variants(
    registry: Registry, image: ImageRef, count: int, cancel: Cancel
) -> tuple[ImageRef, ...]:
    """Push `count` images, `image` plus one small file each, under its repository.

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
