"""One image of a full build, carried on: the layers that it has, and what to put over them.

Makes the bytes of the next image and sends them; when and whether, builder.py decides. Nothing
counts as done before the registry has taken the manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.delta.base_layers import check_places
from devloop.builders.image.documents import sha256, timestamp
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.layer import write_layer
from devloop.builders.rawjson import size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.base.file_content import Contents
    from devloop.builders.delta.analysis import Rules
    from devloop.builders.delta.copy_targets import ShownCopies
    from devloop.builders.delta.layer_state import Frozen, LayerChange, LayerState
    from devloop.builders.image.copies import FileEntry
    from devloop.builders.image.documents import Documents, Image, Layer
    from devloop.builders.image.listing import Listing
    from devloop.builders.image.repository import Repository
    from devloop.model import Scan


# A delta layer holds all that changed since the layers below it were made, and is made and sent
# whole with every save: beyond this it costs more than a few milliseconds and is folded away.
BOUND_BYTES = 1 << 20
BOUND_ENTRIES = 200

# DeltaImage in memory; what is bigger is the builder's, which streams.
_MOST = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaImage:
    """An image that is ready to be sent. `image` are its layers without the delta."""

    change: LayerChange
    image: Image
    documents: Documents
    blobs: tuple[bytes, ...]

    @property
    def summary(self) -> str:
        """`delta: 1 file, 2.1 kB`."""
        if self.change.layers:
            count = len(self.change.layers)
            return f"{_count(count, 'layer')} made again, {size(sum(map(len, self.blobs)))}"
        return f"delta: {_count(self.change.files, 'file')}, {size(self.change.size)}"


class Shortcut:
    """Not thread-safe. `published` is what the last image held over its layers."""

    def __init__(
        self,
        repository: Repository,
        image: Image,
        state: LayerState,
        rules: Rules,
        *,
        context: Path,
        digest: str,
        shown: ShownCopies,
        base_layers: Callable[[Cancel], Listing],
    ) -> None:
        """`image` comes without its delta layer; `digest` is that of the one with it, `shown` what
        it tells of the COPYs, `base_layers` what is below them. Raises `NeedsFullBuild`."""
        self.repository = repository
        self.digest = digest
        self.image = image
        self.state = state
        self.published = state.change()
        self._rules = rules
        self._context = context
        self.shown = shown
        self.base_layers = base_layers

    def plan(self, scan: Scan, cancel: Cancel) -> LayerChange:
        """What to change of the layers for `scan`. Raises `NeedsFullBuild` and Cancelled."""
        changed = scan.snapshot.changed_since(self.state.snapshot)
        self._rules.check(changed, self.state.links)
        self.state.move(scan.snapshot)
        if fresh := self.state.fresh():
            check_places(fresh, self.base_layers(cancel))
        return self.state.change()

    def make(self, change: LayerChange, kept: Contents | None = None) -> DeltaImage:
        """Read the files, but those whose content was `kept`, and make the blobs. Raises
        build/context-changed for a file that is no longer what was scanned, and
        `NeedsFullBuild`."""
        if change.size > _MOST:
            raise NeedsFullBuild(f"{size(change.size)} changed")
        image, delta, blobs = self.image, None, list[bytes]()

        def layer(entries: tuple[FileEntry, ...]) -> Layer:
            blobs.append(write_layer(entries, self._context, kept))
            return image.bare(sha256(blobs[-1]), len(blobs[-1]))

        for index, entries in change.layers.items():
            image = image.with_layer(index, layer(entries))
        if change.delta:
            delta = layer(change.delta)
        documents = image.documents(timestamp(), delta, about="devloop delta")
        return DeltaImage(change=change, image=image, documents=documents, blobs=tuple(blobs))

    def send(self, made: DeltaImage, tag: str, cancel: Cancel) -> str:
        """Upload it and go on from there; returns the manifest's digest. Raises `NeedsFullBuild`,
        registry/* and Cancelled."""
        self.repository.send(made.documents, made.blobs, tag, cancel)
        if made.change.layers:
            self.folded(made, self.state.freeze())
        else:
            self.published = self.state.change()
        return made.documents.digest

    def folded(self, made: DeltaImage, frozen: Frozen) -> None:
        """The registry has the layers of `made`, which was made of what was `frozen`."""
        self.image = made.image
        self.state.settle(frozen)
        self.published = self.state.change()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
