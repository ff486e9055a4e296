"""Layers as tar archives: written from what COPYs place, read back to be compared with that.

A layer is written from the disk and yet holds exactly what was scanned: every file is opened
without following a symlink on the way, and its digest is compared while it is read. Not compressed:
what is made here goes to a registry nearby, where compressing takes longer than sending.

Not by tarfile: that takes several times as long for thousands of small files. It reads, though.

Formats: POSIX pax (ustar with extended headers), as
https://github.com/opencontainers/image-spec/blob/main/layer.md asks for.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Self

from devloop.builders.image.copies import FileEntry
from devloop.builders.image.tar_entries import read_entries
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterable
    from pathlib import Path

    from devloop.base.cancel import Cancel

__all__ = ["read_layer", "write_layer"]

_BLOCK = 512
_CHUNK = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _OPEN | os.O_DIRECTORY
# A FIFO that took a file's place must not hold the build.
_FILE = _OPEN | os.O_NONBLOCK
_KINDS = {"file": b"0", "symlink": b"2", "dir": b"5"}
_MOST_ID = 0o7777777
_MOST_SIZE = 0o77777777777


def write_layer(placed: Iterable[FileEntry], context: Path, cancel: Cancel | None = None) -> bytes:
    """The tar of a layer with these entries, in their order; the same bytes for the same files.

    Files keep their time of modification, which interpreters compare with what they compiled;
    folders and symlinks have none. Raises build/context-changed for a file that is not any more
    what was scanned, env/file-unreadable, and Cancelled."""
    parts: list[bytes] = []
    with _Files(context) as files:
        for entry in placed:
            if cancel is not None:
                cancel.check()
            if entry.type == "file":
                mtime, content = files.read(entry)
                parts.append(_header(entry, mtime))
                parts += content
                if entry.size % _BLOCK:
                    parts.append(bytes(-entry.size % _BLOCK))
            else:
                parts.append(_header(entry, 0))
    parts.append(bytes(2 * _BLOCK))
    return b"".join(parts)


class _Files:
    """Opens files of a context, folder by folder, without following symlinks in it."""

    def __init__(self, context: Path) -> None:
        self._context = context
        # The folders on the way to the last file: names and descriptors, the context first.
        self._names: list[str] = []
        self._open: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(0)

    def _close(self, keep: int) -> None:
        while len(self._open) > keep:
            os.close(self._open.pop())

    def read(self, entry: FileEntry) -> tuple[int, list[bytes]]:
        """A file's time of modification in seconds and its bytes, as they were scanned."""
        path = entry.source
        try:
            folder, _, name = path.rpartition("/")
            fd = os.open(name, _FILE, dir_fd=self._folder(folder))
        except PermissionError as error:
            raise DevloopError.of(
                Code.ENV_FILE_UNREADABLE, f"cannot read {path}", cause=error.strerror
            ) from None
        except OSError:
            raise _changed(path) from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
                raise _changed(path)
            return int(found.st_mtime), _content(fd, entry)
        finally:
            os.close(fd)

    def _folder(self, path: str) -> int:
        names = path.split("/") if path else []
        if not self._open:
            self._open.append(os.open(self._context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if names != self._names:
            common = 0
            for one, other in zip(names, self._names, strict=False):
                if one != other:
                    break
                common += 1
            self._close(common + 1)
            self._names = names[:common]
            for name in names[common:]:
                self._open.append(os.open(name, _FOLDER, dir_fd=self._open[-1]))
                self._names.append(name)
        return self._open[-1]


def _content(fd: int, entry: FileEntry) -> list[bytes]:
    """Raises build/context-changed."""
    hashed, found, left = hashlib.sha256(), list[bytes](), entry.size
    # One byte more than there should be shows a file that has grown.
    while data := os.read(fd, min(left, _CHUNK) + 1):
        left -= len(data)
        if left < 0:
            break
        hashed.update(data)
        found.append(data)
    if left or hashed.hexdigest() != entry.digest:
        raise _changed(entry.source)
    return found


def _changed(path: str) -> DevloopError:
    return DevloopError.of(
        Code.BUILD_CONTEXT_CHANGED, "a file changed while the image was being built", cause=path
    )


def _header(entry: FileEntry, mtime: int) -> bytes:
    name = os.fsencode(entry.path)
    if entry.type == "dir":
        name += b"/"
    link = os.fsencode(entry.link)
    mtime = min(max(mtime, 0), _MOST_SIZE)
    extended: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        extended[b"path"] = name
        name = name[:100] if name.isascii() else b"@"
    if len(link) > 100 or not link.isascii():
        extended[b"linkpath"] = link
        link = link[:100] if link.isascii() else b"@"
    uid, gid, size = entry.uid, entry.gid, entry.size
    if uid > _MOST_ID:
        extended[b"uid"], uid = b"%d" % uid, 0
    if gid > _MOST_ID:
        extended[b"gid"], gid = b"%d" % gid, 0
    if size > _MOST_SIZE:
        extended[b"size"], size = b"%d" % size, 0
    block = _block(name, _KINDS[entry.type], (entry.mode, uid, gid, size, mtime), link)
    return _extended(extended) + block if extended else block


def _extended(records: dict[bytes, bytes]) -> bytes:
    lines = []
    for key, value in records.items():
        length = rest = len(key) + len(value) + 3
        while length != rest + len(b"%d" % length):
            length = rest + len(b"%d" % length)
        lines.append(b"%d %s=%s\n" % (length, key, value))
    data = b"".join(lines)
    head = _block(b"@PaxHeader", b"x", (0o644, 0, 0, len(data), 0), b"")
    return head + data + bytes(-len(data) % _BLOCK)


def _block(name: bytes, kind: bytes, numbers: tuple[int, int, int, int, int], link: bytes) -> bytes:
    """`numbers` are the mode, the owner's and the group's id, the size and the time."""
    start = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    end = kind + link.ljust(100, b"\0") + b"ustar\00000"
    # The field of the sum itself counts as eight spaces.
    return start + b"%06o\0 " % (sum(start) + sum(end) + 256) + end.ljust(356, b"\0")


def read_layer(chunks: Iterable[bytes]) -> dict[str, FileEntry]:
    """The entries of a layer, plain or in gzip, by path; whiteouts are among them as they stand.

    A hard link has the size and the digest of what it leads to. What is no file, folder or symlink,
    and a file with extended attributes, is a file with the digest "", like none that was scanned.
    Raises `NeedsFullBuild` for a layer that cannot be read."""
    found: dict[str, FileEntry] = {}

    def take(path: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        if path:
            found[path] = _read_entry(tar, member, path, found)

    read_entries(chunks, "a layer", take)
    return found


def _read_entry(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, before: dict[str, FileEntry]
) -> FileEntry:
    size, digest, mode = 0, "", member.mode & 0o7777
    if member.isdir() or member.issym():
        return FileEntry(
            path=path,
            type="dir" if member.isdir() else "symlink",
            mode=mode if member.isdir() else 0o777,
            uid=member.uid,
            gid=member.gid,
            link=member.linkname if member.issym() else "",
        )
    if any(key.startswith("SCHILY.xattr.") for key in member.pax_headers):
        pass
    elif member.islnk():
        first = before.get(os.path.normpath(f"/{member.linkname}").lstrip("/"))
        if first is not None:
            size, digest = first.size, first.digest
    elif member.isreg():
        size, hashed = member.size, hashlib.sha256()
        content = tar.extractfile(member)
        while content is not None and (data := content.read(_CHUNK)):
            hashed.update(data)
        digest = hashed.hexdigest()
    return FileEntry(
        path=path, type="file", mode=mode, uid=member.uid, gid=member.gid, size=size, digest=digest
    )
