"""An image as the registry holds it, unpacked in memory the way a node's runtime unpacks it.

Layers are applied as containerd does (archive.Apply): a later directory's mode and owner win, what
changes its type replaces the tree that was there, `.wh.` files remove, hard links share what they
name, and a path behind a symlink lands where the link leads, inside the root.
Checks on the way what a registry does not: sizes, digests, diff_ids, the length of the history.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.registry.client import RegistryClient

__all__ = ["Broken", "Image", "Node", "Reader", "flatten", "members"]

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_KEPT_LAYERS = 400
# What a build's author chose; the rest (created, history, rootfs) is about the build itself.
_CONFIG = (
    *("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes"),
    *("StopSignal", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped"),
)


class Broken(Exception):  # noqa: N818 - says what is wrong with the image
    """The image contradicts itself."""


@dataclass(frozen=True, slots=True)
class Node:
    """What stands at a path. `digest` is the content's sha256; a device is compared by type."""

    type: str
    mode: int
    uid: int
    gid: int
    link: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tail = f" -> {self.link!r}" if self.link else f" {self.digest[:8]}" if self.digest else ""
        return f"{self.type} {self.mode:04o} {self.uid}:{self.gid}{tail}"


@dataclass(frozen=True, slots=True)
class _Member:
    """A line of a layer; `node` is None for a hard link to `target`."""

    path: str
    node: Node | None
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    digest: str
    files: Mapping[str, Node]
    config: Mapping[str, Any]
    layers: int


class Reader:
    """Reads images from one registry; layers are fetched and parsed once."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._layers: OrderedDict[str, tuple[str, tuple[_Member, ...]]] = OrderedDict()

    def read(self, repository: str, reference: str) -> Image:
        """Raises `Broken` for an image that is not whole, or contradicts itself."""
        name = self._client.name(repository)
        manifest = self._client.get_manifest(name, reference)
        if manifest is None:
            raise Broken(f"no manifest {reference}")
        document = json.loads(manifest.body)
        if "manifests" in document:
            raise Broken("an index, not an image")
        config = json.loads(self._blob(name, document["config"]))
        layers = [self._layer(name, layer) for layer in document["layers"] or ()]
        found = [diff_id for diff_id, _ in layers]
        said = config.get("rootfs", {}).get("diff_ids") or []
        if said != found:
            raise Broken(f"the config's diff_ids are {said}, the layers' {found}")
        history = config.get("history", [])
        full = sum(not line.get("empty_layer") for line in history)
        if history and full != len(layers):
            raise Broken(f"history speaks of {full} layers, the image has {len(layers)}")
        return Image(
            digest=manifest.digest,
            files=flatten(members for _, members in layers),
            config=_config(config),
            layers=len(layers),
        )

    def _blob(self, name: str, descriptor: dict[str, Any]) -> bytes:
        data = self._client.get_blob(name, descriptor["digest"])
        if data is None:
            raise Broken(f"no blob {descriptor['digest']}")
        if len(data) != descriptor["size"]:
            raise Broken(f"blob of {len(data)} bytes, the manifest says {descriptor['size']}")
        return data

    def _layer(self, name: str, descriptor: dict[str, Any]) -> tuple[str, tuple[_Member, ...]]:
        digest = descriptor["digest"]
        if digest not in self._layers:
            data = self._blob(name, descriptor)
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
            diff_id = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self._layers[digest] = (diff_id, members(data))
            if len(self._layers) > _KEPT_LAYERS:
                self._layers.popitem(last=False)
        self._layers.move_to_end(digest)
        return self._layers[digest]


def _config(document: dict[str, Any]) -> dict[str, Any]:
    config = document.get("config") or {}
    found = {key: config[key] for key in _CONFIG if config.get(key)}
    if isinstance(found.get("Env"), list):
        # The order of variables is no difference, the value of each is.
        found["Env"] = sorted(found["Env"])
    found["platform"] = (document.get("os"), document.get("architecture"))
    return found


def members(data: bytes) -> tuple[_Member, ...]:
    """The lines of an uncompressed layer."""
    found = []
    with tarfile.open(
        fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for member in tar:
            path = posixpath.normpath("/" + member.name)[1:]
            if not path:
                continue
            if member.islnk():
                target = posixpath.normpath("/" + member.linkname)[1:]
                found.append(_Member(path, None, target))
                continue
            file = tar.extractfile(member) if member.isreg() else None
            content = hashlib.sha256(file.read()).hexdigest() if file else ""
            found.append(
                _Member(
                    path,
                    Node(
                        type=_type(member),
                        # Linux has no mode for a link.
                        mode=0 if member.issym() else member.mode & 0o7777,
                        uid=member.uid,
                        gid=member.gid,
                        link=member.linkname if member.issym() else "",
                        digest=content,
                    ),
                )
            )
    return tuple(found)


def _type(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return "dir"
    if member.issym():
        return "symlink"
    return "file" if member.isreg() else f"special {member.type!r}"


def flatten(layers: Iterable[tuple[_Member, ...]]) -> dict[str, Node]:
    """The files that a container sees, by path without a leading slash."""
    root = _Root()
    for members in layers:
        unpacked: set[str] = set()
        for member in members:
            root.apply(member, unpacked)
    return dict(sorted(root.nodes.items()))


class _Root:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._children: dict[str, set[str]] = {"": set()}

    def apply(self, member: _Member, unpacked: set[str]) -> None:
        """Unpack one line; `unpacked` are the paths that this layer made so far."""
        directory, _, name = member.path.rpartition("/")
        directory = self._resolve(directory)
        path = f"{directory}/{name}" if directory else name
        if name == _OPAQUE:
            for child in list(self._children.get(directory, ())):
                self._remove_old(child, unpacked)
            return
        if name.startswith(_WHITEOUT):
            original = name.removeprefix(_WHITEOUT)
            self._remove(f"{directory}/{original}" if directory else original)
            return
        self._make_directories(directory)
        node = member.node
        if node is None:
            target = self._resolve(member.target)
            if target not in self.nodes:
                raise Broken(f"hard link {member.path!r} to {member.target!r}, which is not there")
            node = self.nodes[target]
        old = self.nodes.get(path)
        if old is not None and not (old.type == "dir" and node.type == "dir"):
            self._remove(path)
        self._put(path, node)
        unpacked.add(path)

    def _resolve(self, path: str) -> str:
        """Follow symlinks in all of `path`, inside the root; what is not there stays as written."""
        done = ""
        todo = [part for part in path.split("/") if part]
        for _ in range(400):
            if not todo:
                return done
            part = todo.pop(0)
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            if part == ".":
                continue
            step = f"{done}/{part}" if done else part
            node = self.nodes.get(step)
            if node is not None and node.type == "symlink":
                if node.link.startswith("/"):
                    done = ""
                todo = [p for p in node.link.split("/") if p] + todo
            else:
                done = step
        raise Broken(f"a loop of symlinks at {path!r}")

    def _make_directories(self, path: str) -> None:
        if not path or path in self._children:
            return
        self._make_directories(path.rpartition("/")[0])
        if path in self.nodes:
            raise Broken(f"{path!r} is no directory but has something in it")
        self._put(path, Node("dir", 0o755, 0, 0))

    def _put(self, path: str, node: Node) -> None:
        self.nodes[path] = node
        self._children[path.rpartition("/")[0]].add(path)
        if node.type == "dir":
            self._children.setdefault(path, set())

    def _remove(self, path: str) -> None:
        if path not in self.nodes:
            return
        for child in list(self._children.get(path, ())):
            self._remove(child)
        self._children.pop(path, None)
        self._children[path.rpartition("/")[0]].discard(path)
        del self.nodes[path]

    def _remove_old(self, path: str, unpacked: set[str]) -> None:
        for child in list(self._children.get(path, ())):
            self._remove_old(child, unpacked)
        if path not in unpacked and not self._children.get(path):
            self._remove(path)
