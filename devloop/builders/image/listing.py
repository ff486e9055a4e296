"""Which paths an image has: read once from its layers, kept in the user's cache by digest.

A COPY's result depends on what is there already: a symlink on the way, a directory that exists, the
names in /etc/passwd. Contents are read of those two files only; a layer is never kept.

How layers add up: https://github.com/opencontainers/image-spec/blob/main/layer.md.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from devloop.base.cache_place import cache_directory
from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import replace_file
from devloop.builders.image.copy_sources import follow
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.layer import read_entries
from devloop.builders.image.tar_writer import until

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.builders.image.base_image import Base
    from devloop.builders.job import OpenRegistry


Kind = Literal["file", "dir", "symlink", "other"]

_VERSION = 1
_TEXTS = ("etc/passwd", "etc/group")
_LONGEST_TEXT = 1 << 20
# Layers whose paths are kept, most of them of images that are in use no longer.
_KEPT = 300
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class PathEntry:
    """One path of an image. `link` is a symlink's target."""

    type: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The paths of an image, relative to / and without a leading slash, and the contents of
    etc/passwd and etc/group where they are plain files."""

    nodes: Mapping[str, PathEntry] = field(default_factory=lambda: MappingProxyType({}))
    texts: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tar:
    """One layer's entries in its own order, whiteouts among them."""

    entries: tuple[tuple[str, PathEntry], ...]
    texts: Mapping[str, bytes]


class Listings:
    """The listings of images, each made once a session and each layer read once a computer."""

    def __init__(self, open_registry: OpenRegistry, directory: Path | None = None) -> None:
        self._open = open_registry
        self._directory = (directory or cache_directory()) / "layers"
        self._known: dict[tuple[str, ...], Listing] = {}

    def of(self, base: Base, report: Callable[[str], None], cancel: Cancel) -> Listing:
        """Raises `NeedsFullBuild` for layers that cannot be read here, and registry/*."""
        key = tuple(layer.digest for layer in base.image.layers)
        if key not in self._known:
            tars = []
            for number, layer in enumerate(base.image.layers, 1):
                tar = self._load(layer.digest)
                if tar is None:
                    which = f"{number}/{len(key)} of {base.name} ({layer.size / 1e6:.1f} MB)"
                    report(f"reading layer {which}, once")
                    tar = self._read(base, layer.digest, cancel)
                    self._save(layer.digest, tar)
                tars.append(tar)
            self._known[key] = merged(tars)
        return self._known[key]

    def unread(self, base: Base) -> int:
        """How many bytes, compressed, `of` would have to fetch and to read."""
        layers = base.image.layers
        if tuple(layer.digest for layer in layers) in self._known:
            return 0
        return sum(layer.size for layer in layers if not self._path(layer.digest).exists())

    def _read(self, base: Base, digest: str, cancel: Cancel) -> _Tar:
        registry = self._open(base.host)
        with registry.open_blob(base.name, digest, cancel) as chunks:
            if chunks is None:
                raise NeedsFullBuild(f"{base.host} does not have a layer of {base.name}")
            return read_tar(until(cancel, chunks))

    def _path(self, digest: str) -> Path:
        return self._directory / f"{digest.removeprefix('sha256:')}.json.gz"

    def _load(self, digest: str) -> _Tar | None:
        try:
            data = json.loads(gzip.decompress(self._path(digest).read_bytes()))
            if data["version"] != _VERSION:
                return None
            return _Tar(
                entries=tuple((path, PathEntry(*rest)) for path, *rest in data["entries"]),
                texts={name: text.encode("latin-1") for name, text in data["texts"].items()},
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
            return None

    def _save(self, digest: str, tar: _Tar) -> None:
        data = {
            "version": _VERSION,
            "entries": [(p, n.type, n.mode, n.uid, n.gid, n.link) for p, n in tar.entries],
            "texts": {name: text.decode("latin-1") for name, text in tar.texts.items()},
        }
        path = self._path(digest)
        with contextlib.suppress(OSError):
            replace_file(path, gzip.compress(json.dumps(data).encode(), 3, mtime=0))
            old = sorted(path.parent.glob("*.json.gz"), key=lambda kept: kept.stat().st_mtime)
            for stale in old[:-_KEPT]:
                stale.unlink()


def read_tar(chunks: Iterable[bytes]) -> _Tar:
    """The entries of one layer. Raises `NeedsFullBuild` for what is not a tar."""
    entries: list[tuple[str, PathEntry]] = []
    texts: dict[str, bytes] = {}

    def take(path: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        link = member.linkname if member.issym() else ""
        node = PathEntry(_kind(member), member.mode & 0o7777, member.uid, member.gid, link)
        entries.append((path, node))
        if path in _TEXTS:
            texts.pop(path, None)
            if member.isreg() and member.size <= _LONGEST_TEXT:
                file = tar.extractfile(member)
                texts[path] = file.read() if file else b""

    read_entries(chunks, "a layer of the base image", take)
    return _Tar(entries=tuple(entries), texts=texts)


def _kind(member: tarfile.TarInfo) -> Kind:
    if member.isdir():
        return "dir"
    if member.issym():
        return "symlink"
    return "file" if member.isreg() or member.islnk() else "other"


def merged(layers: Iterable[_Tar]) -> Listing:
    """What is there when `layers`, the lowest first, lie on top of each other."""
    stack = _Stack()
    for layer in layers:
        stack.add(layer)
    return Listing(nodes=stack.nodes, texts=stack.texts)


class _Stack:
    def __init__(self) -> None:
        self.nodes: dict[str, PathEntry] = {}
        self.texts: dict[str, bytes] = {}
        self._children: dict[str, set[str]] = {}
        self._parents: dict[str, str] = {}

    def add(self, layer: _Tar) -> None:
        fresh: set[str] = set()
        for path, node in layer.entries:
            directory, _, name = path.rpartition("/")
            directory = self._real(directory)
            if name == _OPAQUE:
                for child in self._children.get(directory, set()) - fresh:
                    self._remove(child)
            elif name.startswith(_WHITEOUT + _WHITEOUT):
                continue
            elif name.startswith(_WHITEOUT):
                self._remove(_join(directory, name.removeprefix(_WHITEOUT)))
            elif path:
                self._put(_join(directory, name), node, fresh)
                if path in layer.texts:
                    self.texts[_join(directory, name)] = layer.texts[path]

    def _put(self, path: str, node: PathEntry, fresh: set[str]) -> None:
        old = self.nodes.get(path)
        if old is not None and not (old.type == node.type == "dir"):
            self._remove(path)
        if node.type == "symlink":
            self._parents.clear()
        self.nodes[path] = node
        below = path
        while below:
            fresh.add(below)
            directory = below.rpartition("/")[0]
            siblings = self._children.setdefault(directory, set())
            if below in siblings and directory in fresh:
                break
            siblings.add(below)
            above = self.nodes.get(directory)
            if directory and (above is None or above.type != "dir"):
                self.nodes[directory] = PathEntry("dir")
            below = directory

    def _remove(self, path: str) -> None:
        if self.nodes.pop(path, None) is None:
            return
        self._parents.clear()
        self.texts.pop(path, None)
        self._children.get(path.rpartition("/")[0], set()).discard(path)
        for child in self._children.pop(path, set()):
            self._remove(child)

    def _real(self, directory: str) -> str:
        """A directory as the entries below it are unpacked: symlinks in it followed."""
        if directory not in self._parents:
            self._parents[directory] = follow(f"/{directory}", self.nodes.get)
        return self._parents[directory]


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
