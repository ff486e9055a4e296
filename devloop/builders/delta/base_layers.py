"""The layers of an image below those of its COPYs: read in the background, asked for by a save.

A builder copies neither a directory over something that is none nor anything else over a directory,
so what a COPY brings for the first time may be refused for what the base image has there. Nothing
is decided here, and no save waits long: what is not known in time is the builder's.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.base.threads import Background
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.base.cancel import Cancel
    from devloop.builders.image.copies import FileEntry
    from devloop.builders.image.documents import Image
    from devloop.builders.image.listing import Listing
    from devloop.builders.image.repository import Repository


# In bytes, compressed: more than this is not read in the background of somebody's work.
_MOST = 2 << 30

# So long, in seconds, a save waits for layers that are still being read; a full build takes longer.
_PATIENCE = 1.0


class BaseLayersReader:
    """Reads them, each set of layers once: images of the same recipe have the same ones most of
    the time. `close` ends what goes on in the background."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._known: tuple[Image, Background[Listing | NeedsFullBuild]] | None = None

    def read(self, repository: Repository, image: Image) -> Callable[[Cancel], Listing]:
        """Begin to read what is in the layers of `image`, which `repository` has; what is returned
        gives their paths. It raises `NeedsFullBuild` when they are not known, and Cancelled.

        Raises Cancelled after `close`."""
        with self._lock:
            if self._closed:
                raise Cancelled
            known = self._known
            if known is None or known[0].layers != image.layers or known[1].failed:
                if known is not None:
                    known[1].stop()
                finding = Background(
                    "base-layers",
                    lambda cancel: _read(repository, image, cancel),
                    expected=(DevloopError, NeedsFullBuild),
                )
                known = self._known = (image, finding)
            return partial(_listing, known[1])

    def settle(self) -> None:
        """Wait until nothing goes on, for tests and measurements."""
        known = self._known
        if known is not None:
            known[1].join()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            known = self._known
        if known is not None:
            known[1].close()


def _listing(finding: Background[Listing | NeedsFullBuild], cancel: Cancel) -> Listing:
    if not finding.wait(_PATIENCE, cancel):
        raise NeedsFullBuild("the base layers are still being read")
    try:
        found = finding.result(cancel)
    except Cancelled:
        cancel.check()
        raise NeedsFullBuild("the session is at its end") from None
    except DevloopError as error:
        raise NeedsFullBuild(error.diagnosis.message) from None
    if isinstance(found, NeedsFullBuild):
        raise NeedsFullBuild(found.reason)
    return found


def _read(repository: Repository, image: Image, cancel: Cancel) -> Listing | NeedsFullBuild:
    if sum(layer.size for layer in image.layers) > _MOST:
        return NeedsFullBuild("the base image is too big to look into")
    try:
        return repository.listing(image, cancel)
    except NeedsFullBuild as needed:
        # It will not be another time.
        return needed


def check_places(entries: Iterable[FileEntry], base: Listing) -> None:
    """Raise `NeedsFullBuild` when a builder refuses to copy one of `entries` over what is there."""
    for entry in entries:
        there = base.nodes.get(entry.path)
        if there is not None and (there.type == "dir") != (entry.type == "dir"):
            raise NeedsFullBuild(f"/{entry.path} is a {there.type} in the base image")
