"""Finds out that a base image's ONBUILD has copied from the context.

Such an instruction stands in no Dockerfile here, and an image does not say that it ran; but what it
copied is in a layer below those of the Dockerfile, and the history names it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.builders.context_reads import may_match
from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.builders.image.copies import FileEntry
    from devloop.builders.image.documents import Image, Layer
    from devloop.model import Snapshot


# As BuildKit and the classic builder write it.
_COPY = re.compile(r"^(?:/bin/sh -c #\(nop\)\s+)?(?:COPY|ADD)\s+(.*)$", re.DOTALL)
_HASHED = re.compile(r"^(?:dir|file|multi):[0-9a-f]+$")
# Headers may make a layer bigger than what is in it.
_HEADERS = 64 << 10


def check_triggers(
    image: Image, own: int, snapshot: Snapshot, read: Callable[[Layer], Mapping[str, FileEntry]]
) -> bool:
    """Raise `NeedsFullBuild` when a layer below the `own` uppermost has a file of the context and
    may have it from there. False when the history does not tell."""
    history = [e for e in image.config.get("history") or () if not e.get("empty_layer")]
    if len(history) != len(image.layers):
        return False
    files = [entry for entry in snapshot.entries.values() if entry.type == "file" and entry.size]
    most = sum(entry.size for entry in files) + _HEADERS
    digests = {entry.digest for entry in files}
    below = len(image.layers) - own
    for step, layer in zip(history[: max(0, below)], image.layers, strict=False):
        if layer.size > most or not _reads(str(step.get("created_by") or ""), snapshot):
            continue
        if any(entry.digest in digests for entry in read(layer).values() if entry.digest):
            raise NeedsFullBuild("the base image has files of the context (ONBUILD?)")
    return True


def _reads(created_by: str, snapshot: Snapshot) -> bool:
    match = _COPY.match(created_by)
    if match is None:
        return False
    words = [w for w in match[1].removesuffix("# buildkit").split() if not w.startswith("--")]
    return any(
        _HASHED.match(word) or any(may_match(word, path) for path in snapshot.entries)
        for word in words[:-1]
    )
