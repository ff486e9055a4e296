"""What a scan remembers: folders with the files in them, and the digests of both.

A folder's digests cover itself and the files directly in it, not the folders beneath, so that one
change costs one folder; the scan joins them. They depend on nothing but what is there: a tree that
was brought up to date change by change hashes as one that was read from scratch. No I/O here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.model import Entry
    from devloop.watch.content import Key

__all__ = ["Folder", "Leaf", "all_folders"]


class Leaf:
    """A file or symlink as last seen. `trusted` says that an equal `key` proves equal content."""

    __slots__ = ("entry", "key", "line", "stamp", "trusted")

    def __init__(self, name: str, entry: Entry, key: Key, trusted: bool) -> None:
        self.entry = entry
        self.key = key
        self.trusted = trusted
        # NUL cannot occur in a name or a link, so no two leaves can read the same.
        self.line = f"{entry.type}\0{name}\0{entry.mode}\0{entry.digest or entry.link}\0"
        self.stamp = f"{name}\0{key[0]} {key[1]} {key[2]} {key[3]}\0"


class Folder:
    """A folder as last seen. `included` says that the rules do not leave it out; one that they do
    is still sent when something beneath it is: `shown` is its entry in the snapshot, if any."""

    __slots__ = (
        "depth",
        "digest",
        "folders",
        "identity",
        "included",
        "inherited",
        "leaves",
        "mode",
        "name",
        "parent",
        "path",
        "shown",
        "stamp",
    )

    def __init__(self, parent: Folder | None, name: str) -> None:
        self.parent = parent
        self.name = name
        self.path: str = parent.below(name) if parent else name
        self.depth: int = parent.depth + 1 if parent else 0
        self.included = True
        self.inherited = 0
        self.identity = (0, 0)
        self.mode = -1
        self.leaves: dict[str, Leaf] = {}
        self.folders: dict[str, Folder] = {}
        self.shown: Entry | None = None
        self.digest = b""
        self.stamp = b""

    def below(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def rehash(self) -> None:
        """Digests of the folder itself and of the files in it, but not of its folders."""
        names = sorted(self.leaves)
        head = f"{self.path}\0{self.mode:o}\0" if self.parent else "\0"
        lines = head + "".join([self.leaves[name].line for name in names])
        stamps = "".join([self.leaves[name].stamp for name in names])
        self.digest = hashlib.sha256(_encoded(lines)).digest()
        self.stamp = hashlib.sha256(_encoded(stamps)).digest()


def all_folders(top: Folder) -> Iterator[Folder]:
    todo = [top]
    while todo:
        folder = todo.pop()
        yield folder
        todo.extend(folder.folders.values())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
