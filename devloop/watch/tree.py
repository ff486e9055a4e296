"""What a scan remembers: directories with the files in them, and the digests of both.

A directory's digests cover itself and the files directly in it, not the directories beneath, so
that one change costs one directory; the scan joins them. They depend on nothing but what is there:
a tree that was brought up to date change by change hashes as one that was read from scratch. No I/O
here.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import field
from typing import TYPE_CHECKING

from devloop.base.editor_files import is_temporary
from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.file_content import Key
    from devloop.model import ContextEntry


# How many leaves make a directory big, and into how many groups those are split. Both are part of
# what a digest means, as the digest of the same tree must always be the same.
_BIG = 1024
_GROUPS = 64
# Inode, size, mtime, ctime (which may be before 1970) and mode.
_pack_key = struct.Struct("<QqqqI").pack


class Leaf:
    """A file or symlink as last seen. `trusted` says that an equal `key` proves equal content;
    `passing`, that it is an editor's temporary file by its name: no digest covers it, so that it
    comes and goes without starting anything."""

    __slots__ = ("entry", "key", "line", "passing", "trusted")

    def __init__(self, name: str, entry: ContextEntry, key: Key, trusted: bool) -> None:
        self.entry = entry
        self.key = key
        self.trusted = trusted
        self.passing = is_temporary(name)
        # NUL cannot occur in a name or a link, so no two leaves can read the same.
        self.line = f"{entry.type}\0{name}\0{entry.mode}\0{entry.digest or entry.link}\0"


@dataclass(slots=True, eq=False)
class Directory:
    """A directory as last seen. `included` says that the rules do not leave it out; one that they
    do is still sent when something beneath it is: `shown` is its entry in the snapshot, if any."""

    parent: Directory | None
    name: str
    path: str = field(init=False)
    depth: int = field(init=False)
    included: bool = True
    inherited: int = 0
    identity: tuple[int, int] = (0, 0)
    mode: int = -1
    listed: bool = False
    leaves: dict[str, Leaf] = field(default_factory=dict)
    directories: dict[str, Directory] = field(default_factory=dict)
    shown: ContextEntry | None = None
    digest: bytes = b""
    stamp: bytes = b""
    # Only in a big directory: its leaves by the hash of their names, and the groups to hash again.
    groups: list[_Group] | None = None
    stale: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.path = self.parent.below(self.name) if self.parent else self.name
        self.depth = self.parent.depth + 1 if self.parent else 0

    def below(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def replace(self, leaves: dict[str, Leaf]) -> None:
        """Take `leaves` for all that is directly in the directory."""
        self.leaves = leaves
        self.groups = None

    def put(self, name: str, leaf: Leaf | None) -> None:
        """Take `leaf` for what is under `name`, None for nothing."""
        homes = [self.leaves]
        if self.groups is not None:
            index = _group_of(name)
            self.stale.add(index)
            homes.append(self.groups[index].leaves)
        for home in homes:
            if leaf is not None:
                home[name] = leaf
            else:
                home.pop(name, None)

    def rehash(self) -> None:
        """Digests of the directory itself and of the files in it, but not of its directories."""
        head = _encoded(f"{self.path}\0{self.mode:o}\0" if self.parent else "\0")
        if len(self.leaves) <= _BIG:
            self.groups = None
            digest, stamp = _hashes(self.leaves)
        else:
            digest, stamp = self._hash_groups()
        self.digest = hashlib.sha256(head + digest).digest()
        self.stamp = stamp

    def _hash_groups(self) -> tuple[bytes, bytes]:
        if self.groups is None:
            self.groups = [_Group() for _ in range(_GROUPS)]
            for name, leaf in self.leaves.items():
                self.groups[_group_of(name)].leaves[name] = leaf
            self.stale = set(range(_GROUPS))
        for index in self.stale:
            group = self.groups[index]
            group.digest, group.stamp = _hashes(group.leaves)
        self.stale = set()
        return (
            hashlib.sha256(b"".join([group.digest for group in self.groups])).digest(),
            hashlib.sha256(b"".join([group.stamp for group in self.groups])).digest(),
        )


@dataclass(slots=True)
class _Group:
    """A part of a big directory's leaves, so that one change need not hash them all."""

    leaves: dict[str, Leaf] = field(default_factory=dict)
    digest: bytes = b""
    stamp: bytes = b""


def _group_of(name: str) -> int:
    return zlib.crc32(_encoded(name)) % _GROUPS


def _hashes(leaves: dict[str, Leaf]) -> tuple[bytes, bytes]:
    """Digest of content and of timestamps, whatever the order of `leaves`. The second says nothing
    of names: it is only ever used together with the first."""
    ordered = [leaf for name in sorted(leaves) if not (leaf := leaves[name]).passing]
    lines = "".join([leaf.line for leaf in ordered])
    stamps = b"".join([_pack_key(*leaf.key) for leaf in ordered])
    return hashlib.sha256(_encoded(lines)).digest(), hashlib.sha256(stamps).digest()


def all_directories(top: Directory) -> Iterator[Directory]:
    todo = [top]
    while todo:
        directory = todo.pop()
        yield directory
        todo.extend(directory.directories.values())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
