"""Finds in an image's layers what its COPYs are known to place, and so proves how they work here.

A builder may be another than expected, /app may be a symlink in the base, `--chown=node` may be any
uid: instead of knowing all that, the layers that a builder made are read and compared with what
`place` says, path by path. Where they differ nothing is assumed; `NeedsFullBuild` is raised.

So is it where a base image's ONBUILD has copied from the context. Such an instruction stands in no
Dockerfile here, and an image does not say that it ran; but what it copied is in a layer below those
of the Dockerfile, and the history names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from devloop.base.read_patterns import may_match
from devloop.builders.delta.layer_state import BaseState, CopyLayer, ancestors, place_all, same
from devloop.builders.image.copies import FileEntry, place
from devloop.builders.image.full_build import HasTriggers, NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devloop.builders.delta.layer_state import Head
    from devloop.builders.image.copies import Copy
    from devloop.builders.image.documents import Image, Layer
    from devloop.model import Snapshot


# More than this is not read in the background of somebody's work; compressed, in bytes.
_MOST = 256 << 20

# A COPY in an image's history, as BuildKit and the classic builder write it.
_COPY = re.compile(r"^(?:/bin/sh -c #\(nop\)\s+)?(?:COPY|ADD)\s+(.*)$", re.DOTALL)
_HASHED = re.compile(r"^(?:dir|file|multi):[0-9a-f]+$")
# Headers may make a layer bigger than what is in it.
_HEADERS = 64 << 10

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
    left, found, seen, above = list(copies), list[CopyLayer](), list[Entries](), set[str]()
    loose, size = set[str](), 0
    for index in reversed(range(max(0, len(bare.layers) - depth), len(bare.layers))):
        if not left:
            break
        size += bare.layers[index].size
        if size > _MOST:
            raise NeedsFullBuild("the image's upper layers are too big to look into")
        entries = read(bare.layers[index])
        match = _match(left[-1], index, snapshot, entries=entries, delta=delta, head=head)
        if match is not None:
            found.insert(0, match[0])
            loose |= match[1]
            left.pop()
        else:
            above.update(_covered(entries))
        seen.append(entries)
    if left:
        raise NeedsFullBuild(f"{left[-1].instruction} is in no layer as expected")
    tree = place_all(found, snapshot, head)[1]
    _check_delta(delta, tree)
    in_the_end: dict[str, FileEntry] = {}
    for entries in (*reversed(seen), delta):
        in_the_end.update(entries)
    return BaseState(
        copy_layers=tuple(found),
        snapshot=snapshot,
        above=frozenset(above),
        directories={
            path: entry
            for path, entry in in_the_end.items()
            if entry.type == "dir" and (path not in tree or tree[path].implied)
        },
        loose=frozenset(loose),
        head=head,
    )


def _match(
    copy: Copy,
    index: int,
    snapshot: Snapshot,
    *,
    entries: Entries,
    delta: Entries,
    head: Head | None,
) -> tuple[CopyLayer, set[str]] | None:
    """The copy_layer of `copy` if the layer `index` with `entries` is its result, and those of its
    paths that may be of an earlier time, as the delta layer has them over it."""
    owner = (0, 0)
    if copy.chown is not None:
        # By name it may be any uid; every entry is compared with what the first one has.
        placed = place(copy, snapshot, owner, head).values()
        sure = (entry.path for entry in placed if not entry.implied and not entry.unsure)
        first = next((entries[path] for path in sure if path in entries), None)
        if first is None:
            return None
        owner = (first.uid, first.gid)
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
    on_the_way = {above for path in expected for above in ancestors(path)}
    if any(entries[path].type != "dir" for path in extra) or not extra <= on_the_way:
        return None
    return copy_layer, loose


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


def check_triggers(
    image: Image, own: int, snapshot: Snapshot, read: Callable[[Layer], Entries]
) -> bool:
    """Raise `HasTriggers` when a layer below the `own` uppermost has a file of the context and
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
            raise HasTriggers("the base image has files of the context (ONBUILD?)")
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
