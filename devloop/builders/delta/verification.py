"""Finds in an image's layers what its COPYs are known to place, and so proves how they work here.

A builder may be another than expected, /app may be a symlink in the base, `--chown=node` may be any
uid: instead of knowing all that, the layers that a builder made are read and compared with what
`place` says, path by path. Where they differ nothing is assumed; `NeedsFullBuild` is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.builders.delta.layer_state import BaseState, CopyLayer, ancestors, place_all, same
from devloop.builders.image.copies import FileEntry, place
from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devloop.builders.delta.layer_state import Head
    from devloop.builders.image.copies import Copy
    from devloop.builders.image.documents import Image, Layer
    from devloop.model import Snapshot


# More than this is not read in the background of somebody's work; compressed, in bytes.
_MOST = 256 << 20

Entries = Mapping[str, FileEntry]


def examine(
    image: Image,
    copies: Sequence[Copy],
    snapshot: Snapshot,
    depth: int,
    *,
    read: Callable[[Layer], Entries],
    head: Head | None = None,
) -> BaseState:
    """What is known of `image` (its delta layer included), which is said to be built of `snapshot`.

    `copies` are those whose layers lie among the uppermost `depth`, the lowest first; `head` is as
    for `place`. Raises `NeedsFullBuild` when they are not there or are not what they should be."""
    bare = image.without_delta()
    delta = read(image.layers[-1]) if image.delta else {}
    left, found, seen, above = list(copies), list[_Match](), list[Entries](), set[str]()
    size = 0
    for index in reversed(range(max(0, len(bare.layers) - depth), len(bare.layers))):
        if not left:
            break
        size += bare.layers[index].size
        if size > _MOST:
            raise NeedsFullBuild("the image's upper layers are too big to look into")
        entries = read(bare.layers[index])
        match = _match(left[-1], index, snapshot, entries=entries, delta=delta, head=head)
        if match is not None:
            found.append(match)
            left.pop()
        else:
            above.update(_covered(entries))
        seen.append(entries)
    if left:
        raise NeedsFullBuild(f"{left[-1].instruction} is in no layer as expected")
    found.reverse()
    copy_layers = tuple(match.copy_layer for match in found)
    tree = place_all(copy_layers, snapshot, head)[1]
    _check_delta(delta, tree)
    in_the_end: dict[str, FileEntry] = {}
    for entries in (*reversed(seen), delta):
        in_the_end.update(entries)
    return BaseState(
        copy_layers=copy_layers,
        snapshot=snapshot,
        above=frozenset(above),
        directories={
            path: entry
            for path, entry in in_the_end.items()
            if entry.type == "dir" and (path not in tree or tree[path].implied)
        },
        loose=frozenset(path for match in found for path in match.loose),
        head=head,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    copy_layer: CopyLayer
    loose: frozenset[str]


def _match(
    copy: Copy,
    index: int,
    snapshot: Snapshot,
    *,
    entries: Entries,
    delta: Entries,
    head: Head | None,
) -> _Match | None:
    """The copy_layer of `copy` if the layer `index` with `entries` is its result. What the delta
    layer has over it may be of an earlier time."""
    owner = (0, 0)
    if copy.chown is not None:
        # By name it may be any uid; every entry is compared with what the first one has.
        first = next(
            (
                path
                for path, entry in place(copy, snapshot, owner, head).items()
                if not entry.implied and not entry.unsure and path in entries
            ),
            None,
        )
        if first is None:
            return None
        owner = (entries[first].uid, entries[first].gid)
    copy_layer = CopyLayer(copy=copy, index=index, owner=owner)
    expected = place_all((copy_layer,), snapshot, head)[1]
    if all(entry.type == "dir" for entry in expected.values()):
        raise NeedsFullBuild(f"{copy.instruction} copies no file that identifies its layer")
    loose = set()
    for path, entry in expected.items():
        got = entries.get(path)
        if entry.implied:
            if got is not None and got.type != "dir":
                return None
        elif not same(got, entry):
            if path not in delta:
                return None
            loose.add(path)
    extra = entries.keys() - expected.keys()
    if any(entries[path].type != "dir" for path in extra):
        return None
    if not extra <= {above for path in expected for above in ancestors(path)}:
        return None
    return _Match(copy_layer=copy_layer, loose=frozenset(loose))


def _covered(entries: Entries) -> Iterator[str]:
    """The paths that a layer of something else is about, and the directories on the way there."""
    for path in entries:
        directory, _, name = path.rpartition("/")
        if name.startswith(".wh..wh."):
            raise NeedsFullBuild(f"a layer hides all of /{directory}")
        yield path
        if name.startswith(".wh."):
            yield f"{directory}/{name[4:]}".lstrip("/")
        yield from ancestors(path)


def _check_delta(delta: Entries, tree: Entries) -> None:
    for path, entry in delta.items():
        wanted = tree.get(path)
        if wanted is None or wanted.implied:
            if entry.type != "dir":
                raise NeedsFullBuild(f"devloop's own layer has /{path}, which no COPY gives")
        elif not same(entry, wanted):
            raise NeedsFullBuild(f"devloop's own layer has another /{path}")
