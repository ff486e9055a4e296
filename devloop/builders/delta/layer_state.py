"""What the COPYs of an image place now, against what its layers hold; what a new image needs.

Pure decisions over `FileEntry`: which paths go into a delta layer, which layers have to be made
again. One changed file costs one file, whatever the size of the context. No registry, no file is
read.
"""

from __future__ import annotations

from dataclasses import field, replace
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.copies import FileEntry, merge, place
from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devloop.builders.image.copies import Copy
    from devloop.model import Snapshot

    Head = Callable[[str], bytes]


_SHOWN = attrgetter("type", "mode", "uid", "gid", "digest", "link")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLayer:
    """A COPY and where its result is: the image's layer `index`. `owner` is what its --chown
    stands for, as that layer shows."""

    copy: Copy
    index: int
    owner: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseState:
    """What is known of an image's layers. `copy_layers` are the COPYs whose layers may be replaced,
    the lowest first; the layers hold what they place of `snapshot`, except for the paths in
    `loose`, which are out of date.

    `above` are the paths in the other layers above the lowest copy_layer, and all directories on
    the way to them: what lies under there is not ours to change. `directories` are the directories
    that the layers show and no COPY sets, as they are in the end. `head` is what `place` wants to
    know of files."""

    copy_layers: tuple[CopyLayer, ...]
    snapshot: Snapshot
    above: frozenset[str] = frozenset()
    directories: Mapping[str, FileEntry] = field(default_factory=lambda: MappingProxyType({}))
    loose: frozenset[str] = frozenset()
    head: Head | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """What brings an image's layers up to date: the entries of a delta layer, or new entries for
    the layers at some indexes. Both are in the order of a layer, directories before what is in
    them."""

    delta: tuple[FileEntry, ...] = ()
    layers: Mapping[int, tuple[FileEntry, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    @property
    def files(self) -> int:
        """How many paths the delta is about, the directories that only lead to them left out."""
        return sum(1 for entry in self.delta if entry.type != "dir")

    @property
    def size(self) -> int:
        """Of all contents, in bytes."""
        groups = (self.delta, *self.layers.values())
        return sum(entry.size for group in groups for entry in group)

    @property
    def entries(self) -> int:
        return len(self.delta) + sum(len(entries) for entries in self.layers.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What the copy_layers placed at one moment, each and together."""

    snapshot: Snapshot
    layers: tuple[Mapping[str, FileEntry], ...]
    tree: Mapping[str, FileEntry]


def same(one: FileEntry | None, other: FileEntry | None) -> bool:
    """Whether two entries are the same in an image, wherever their bytes come from."""
    if one is None or other is None:
        return one is other
    return one is other or _SHOWN(one) == _SHOWN(other)


def ancestors(path: str) -> Iterator[str]:
    """The directories above `path`, the nearest first, / itself left out."""
    while path := path.rpartition("/")[0]:
        yield path


class LayerState:
    """What the copy_layers of a base_state place, moved on from snapshot to snapshot; `links` are
    the symlinks in the context. For one thread at a time."""

    def __init__(self, base_state: BaseState) -> None:
        """Raises `NeedsFullBuild`."""
        self.base_state = base_state
        self.snapshot = base_state.snapshot
        self._layers, self._tree = place_all(
            base_state.copy_layers, base_state.snapshot, base_state.head
        )
        self._then = self.freeze()
        # An ADD unpacks what has become an archive.
        keywords = (each.copy.instruction.keyword for each in base_state.copy_layers)
        self._unpacking = {number for number, word in enumerate(keywords) if word == "ADD"}
        self._index()
        self._stale: set[str] = set()
        self._gone: set[str] = set()

    def move(self, snapshot: Snapshot) -> None:
        """Take `snapshot` for what is to be in the image. Raises `NeedsFullBuild`; then nothing has
        moved."""
        changed = snapshot.changed_since(self.snapshot)
        if not self._touch_up(snapshot, changed):
            layers, tree = place_all(self.base_state.copy_layers, snapshot, self.base_state.head)
            self._layers, self._tree, self.snapshot = layers, tree, snapshot
            self._index()
            self._compare()
        self.snapshot = snapshot

    def change(self, *, fold: bool = False) -> LayerChange:
        """What the image needs to hold what the snapshot places; with `fold`, without a delta
        layer. Raises `NeedsFullBuild`."""
        touched = self._stale | self._gone
        for path in sorted(touched & self.base_state.above):
            raise NeedsFullBuild(f"another layer has /{path} too")
        if fold or self._gone:
            return LayerChange(layers=self._new_layers())
        touched |= self.base_state.loose & self._tree.keys()
        return LayerChange(delta=self._with_directories(touched, self._tree))

    def fresh(self) -> tuple[FileEntry, ...]:
        """What is placed where the layers had nothing of the copy_layers, or what a builder does
        not copy it over: a directory for something else, or the other way round."""
        tree, then = self._tree, self._then.tree
        return tuple(
            tree[path]
            for path in sorted(self._stale)
            if path not in then or (then[path].type == "dir") != (tree[path].type == "dir")
        )

    def freeze(self) -> Frozen:
        """What there is now, to be settled on later."""
        return Frozen(
            snapshot=self.snapshot,
            layers=tuple(dict(layer) for layer in self._layers),
            tree=dict(self._tree),
        )

    def settle(self, frozen: Frozen) -> None:
        """Take it that the layers were made again as `change` said when it was frozen."""
        explicit = {path for path, entry in frozen.tree.items() if not entry.implied}
        directories = {p: f for p, f in self.base_state.directories.items() if p not in explicit}
        self.base_state = replace(
            self.base_state, snapshot=frozen.snapshot, loose=frozenset(), directories=directories
        )
        self._then = frozen
        self._compare()

    def _compare(self) -> None:
        tree, then = self._tree, self._then.tree
        self._stale = {path for path, entry in tree.items() if not same(entry, then.get(path))}
        self._gone = {
            path
            for path, entry in then.items()
            if path not in tree or tree[path].type != entry.type
        }

    def _touch_up(self, snapshot: Snapshot, changed: frozenset[str]) -> bool:
        """Follow a change of nothing but files' contents; False when there is more to it."""
        entries, before = snapshot.entries, self.snapshot.entries
        for path in changed:
            old, new = before.get(path), entries.get(path)
            if old is None or new is None or (old.type, new.type) != ("file", "file"):
                return False
            if old.mode != new.mode:
                return False
        places = {path: self._by_source.get(path, ()) for path in changed}
        if any(number in self._unpacking for found in places.values() for number, _ in found):
            return False
        for path, found in places.items():
            entry = entries[path]
            for layer, place_in_image in found:
                placed = self._layers[layer]
                old_placed = placed[place_in_image]
                new_placed = replace(old_placed, size=entry.size, digest=entry.digest)
                placed[place_in_image] = new_placed
                if self._tree[place_in_image] is old_placed:
                    self._tree[place_in_image] = new_placed
                    if same(new_placed, self._then.tree.get(place_in_image)):
                        self._stale.discard(place_in_image)
                    else:
                        self._stale.add(place_in_image)
        return True

    def _index(self) -> None:
        by_source: dict[str, list[tuple[int, str]]] = {}
        for number, layer in enumerate(self._layers):
            for path, entry in layer.items():
                if entry.source:
                    by_source.setdefault(entry.source, []).append((number, path))
        self._by_source = by_source
        entries = self.snapshot.entries
        self.links = frozenset(path for path, e in entries.items() if e.type == "symlink")

    def _new_layers(self) -> dict[int, tuple[FileEntry, ...]]:
        """The layers to make again: from the lowest that differs, as a later one may show the
        directories of an earlier one."""
        copy_layers = self.base_state.copy_layers
        first = 0
        if not self.base_state.loose:
            pairs = zip(self._then.layers, self._layers, strict=True)
            first = next(
                (n for n, (then, now) in enumerate(pairs) if not _same_layer(then, now)),
                len(copy_layers),
            )
        made = {}
        for number in range(first, len(copy_layers)):
            # Directories on the way too: all that a COPY made may be its destination.
            layer = self._layers[number]
            tree = _merged(self._layers[: number + 1])
            made[copy_layers[number].index] = self._with_directories(layer, tree)
        return made

    def _with_directories(
        self, paths: Iterable[str], tree: Mapping[str, FileEntry]
    ) -> tuple[FileEntry, ...]:
        """Entries for `paths`, and for the directories above them: container engines differ in what
        they take for the mode of a directory that a layer does not name."""
        found: dict[str, FileEntry] = {}
        for path in paths:
            found[path] = tree[path] if not tree[path].implied else self._directory(path, tree)
            for above in ancestors(path):
                if above in found:
                    break
                found[above] = self._directory(above, tree)
        return tuple(found[path] for path in sorted(found, key=lambda path: path.split("/")))

    def _directory(self, path: str, tree: Mapping[str, FileEntry]) -> FileEntry:
        entry = tree.get(path)
        if entry is not None and not entry.implied:
            return entry
        known = self.base_state.directories.get(path)
        if known is None:
            raise NeedsFullBuild(f"the image does not show whose directory /{path} is")
        return known


def place_all(
    copy_layers: Iterable[CopyLayer], snapshot: Snapshot, head: Head | None = None
) -> tuple[list[dict[str, FileEntry]], dict[str, FileEntry]]:
    """What each copy_layer places, and all of it together; `head` as for `place`. Raises
    `NeedsFullBuild`."""
    layers = []
    for copy_layer in copy_layers:
        placed = place(copy_layer.copy, snapshot, copy_layer.owner, head)
        # What --link makes is made on its own and laid over the rest, its directories over those
        # below too. Elsewhere, directories that are not sure are left to what the layers show.
        layers.append(
            {
                path: replace(entry, implied=not copy_layer.copy.link)
                if entry.implied or entry.unsure
                else entry
                for path, entry in placed.items()
            }
        )
    tree = _merged(layers)
    for path in tree:
        above = tree.get(path.rpartition("/")[0])
        if above is not None and above.type != "dir":
            raise NeedsFullBuild(f"/{above.path} is not a directory and has /{path} in it")
    return layers, tree


def _merged(layers: Iterable[Mapping[str, FileEntry]]) -> dict[str, FileEntry]:
    return {path: entry for path, (_, entry) in merge(layers).items()}


def _same_layer(one: Mapping[str, FileEntry], other: Mapping[str, FileEntry]) -> bool:
    return one.keys() == other.keys() and all(same(e, other[p]) for p, e in one.items())
