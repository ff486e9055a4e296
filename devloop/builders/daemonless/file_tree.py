"""A stage's file system while it is being made: what its base has and what was placed on it.

It knows paths, types, modes and owners; bytes only of /etc/passwd and /etc/group, for names. What
BuildKit would refuse, or does differently from one release or driver to the next, is
`NeedsFullBuild`.
"""

from __future__ import annotations

import itertools
import re
import stat
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.copies import FileEntry
from devloop.builders.image.copy_sources import follow
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.listing import Listing, PathEntry
from devloop.model import ContextEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


_ID = re.compile(r"\d{1,9}")
_WILD = re.compile(r"[*?\[\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """`placed` lies over what `base` lists."""

    base: Listing = field(default_factory=Listing)
    placed: Mapping[str, FileEntry] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, path: str) -> PathEntry | FileEntry | None:
        return self.placed.get(path) or self.base.nodes.get(path)

    def real(self, path: str) -> str:
        """`path` (with or without a leading slash) with all symlinks in it followed."""
        return follow(f"/{path.lstrip('/')}", self.find)

    def with_directories(
        self, path: str, owner: tuple[int, int]
    ) -> tuple[Tree, tuple[FileEntry, ...]]:
        """As `mkdir -p` does it: the tree with the directory, and the entries of its layer, none
        when it was there."""
        paths = filter(None, itertools.accumulate(self.real(path).split("/"), "{}/{}".format))
        entry = FileEntry(path="", type="dir", mode=0o755, uid=owner[0], gid=owner[1], implied=True)
        made = {above: replace(entry, path=above) for above in paths}
        return self.with_layer(made, link=False)

    def with_layer(
        self, layer: Mapping[str, FileEntry], *, link: bool
    ) -> tuple[Tree, tuple[FileEntry, ...]]:
        """The tree with what a COPY places, and the entries of its layer: those that it brings and
        the directories above them, as container engines differ in what they make of a directory
        that a layer does not name. `link` says that builders may lay it over the rest as it is."""
        new: dict[str, FileEntry] = {}
        for path, entry in layer.items():
            there = self.find(path)
            if entry.unsure and (there is None) == entry.implied:
                raise NeedsFullBuild(f"builders differ in the mode or owner of /{path}")
            if there is None:
                if entry.implied:
                    self._check_made(path, new)
                new[path] = replace(entry, implied=False) if entry.implied else entry
                continue
            if (there.type == "dir") != (entry.type == "dir") or there.type == "symlink":
                raise NeedsFullBuild(f"/{path} is a {there.type} already")
            if not entry.implied:
                new[path] = entry
            elif link and (there.mode, there.uid, there.gid) != (entry.mode, entry.uid, entry.gid):
                raise NeedsFullBuild(f"COPY --link gives /{path} another mode or owner")
        after = Tree(base=self.base, placed={**self.placed, **new})
        shown = dict(new)
        for path in new:
            while (path := path.rpartition("/")[0]) and path not in shown:
                shown[path] = after.directory(path)
        order = sorted(shown, key=lambda path: path.split("/"))
        return after, tuple(shown[path] for path in order)

    def _check_made(self, path: str, new: Mapping[str, FileEntry]) -> None:
        """A directory that the kernel makes in one with the setgid bit gets that and its group."""
        above = path.rpartition("/")[0]
        found = new.get(above) or (self.find(above) if above else None)
        if found is not None and found.mode & stat.S_ISGID:
            raise NeedsFullBuild(f"/{above} hands its group on to /{path}")

    def directory(self, path: str) -> FileEntry:
        """What a layer says of a directory that has to be there."""
        found = self.find(path)
        if found is None or found.type != "dir":
            raise NeedsFullBuild(f"/{path} is not a directory")
        if isinstance(found, FileEntry):
            return found
        return FileEntry(path=path, type="dir", mode=found.mode, uid=found.uid, gid=found.gid)

    def owner(self, text: str, read: Callable[[FileEntry], bytes]) -> tuple[int, int]:
        """The uid and gid that `user[:group]` stands for in this file system, as BuildKit finds
        them. `read` gives the bytes of a file that was placed.

        Source: BuildKit's solver/llbsolver/file/user_linux.go and client/llb/fileop.go."""
        user, colon, group = text.partition(":")
        if (uid := _number(user)) is not None:
            gid = uid
        else:
            uid, gid = self._ids("etc/passwd", user, 2, read)
        if colon:
            number = _number(group)
            gid = self._ids("etc/group", group, 1, read)[0] if number is None else number
        return uid, gid

    def _ids(
        self, path: str, name: str, count: int, read: Callable[[FileEntry], bytes]
    ) -> tuple[int, int]:
        found = self.find(self.real(path))
        text: bytes | None = b""
        if isinstance(found, FileEntry):
            text = read(found) if found.type == "file" else None
        elif found is not None:
            text = self.base.texts.get(self.real(path))
        if text is None:
            raise NeedsFullBuild(f"/{path} cannot be read")
        for line in text.decode("utf-8", "surrogateescape").split("\n"):
            fields = line.strip().split(":")
            if name and fields[0] == name:
                ids = [int(word) if _ID.fullmatch(word) else 0 for word in fields[2 : 2 + count]]
                ids += [0, 0]
                return ids[0], ids[1]
        # Some releases of BuildKit take it for root, others refuse it.
        raise NeedsFullBuild(f"/{path} has no {name or 'name'}")

    def snapshot(self, sources: Iterable[str]) -> Snapshot:
        """What a COPY --from this stage sees. `sources` are its paths and patterns.

        Raises `NeedsFullBuild` when they may reach what the base has, whose bytes are not here."""
        for source in sources:
            path = _plain_part(source)
            if self.real(path) != path:
                raise NeedsFullBuild(f"/{source} leads through a symlink")
            inside = f"{path}/" if path else ""
            if any(p == path or p.startswith(inside) for p in self.base.nodes):
                raise NeedsFullBuild(
                    f"/{source} may be in the base of the stage that it is copied from"
                )
        entries = {
            path: ContextEntry(node.type, node.mode, node.size, node.digest, node.link)
            for path, node in sorted(self.placed.items())
        }
        return Snapshot(entries=entries, digest="", stamp="")

    def owners(self, sources: Iterable[str]) -> frozenset[tuple[int, int]]:
        """Of all that is placed at or below `sources`, which may be patterns."""
        parts = [_plain_part(source) for source in sources]
        return frozenset(
            (node.uid, node.gid)
            for path, node in self.placed.items()
            if any(not part or path == part or path.startswith(f"{part}/") for part in parts)
        )


def _number(text: str) -> int | None:
    if text == "root":
        return 0
    return int(text) if _ID.fullmatch(text) else None


def _plain_part(source: str) -> str:
    """The directories of a pattern above its first wildcard."""
    plain = itertools.takewhile(lambda part: not _WILD.search(part), source.split("/"))
    return "/".join(part for part in plain if part not in ("", "."))
