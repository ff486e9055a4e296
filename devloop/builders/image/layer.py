"""Layers as tar archives: written from what COPYs place, read back to be compared with that.

A layer is written from the disk and yet holds exactly what was scanned. Not compressed: what is
made here goes to a registry nearby, where compressing takes longer than sending.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from typing import TYPE_CHECKING, Any, Literal

from devloop.base.file_content import VerifiedFiles
from devloop.builders.image.copies import FileEntry
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.tar_writer import END, header, padding, reading_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.base.file_content import Contents
    from devloop.model import Snapshot


_CHUNK = 1 << 20
_BUFFER = 1 << 18


def read_contents(
    paths: Iterable[str], snapshot: Snapshot, context: Path, cancel: Cancel
) -> Contents:
    """Files of the context as `snapshot` has them, to write layers of later. Raises Cancelled, and
    as `write_layer` does."""
    found: dict[str, tuple[int, list[bytes]]] = {}
    with VerifiedFiles(context) as files, reading_context():
        for path in paths:
            cancel.check()
            entry = snapshot.entries[path]
            found[path] = files.read(path, entry.size, entry.digest)
    return found


def write_layer(
    placed: Iterable[FileEntry], context: Path, contents: Contents | None = None
) -> bytes:
    """The tar of a layer with these entries, in their order; the same bytes for the same files.
    `contents` are those of files that were read before, of the same scan.

    Files keep their time of modification, which interpreters compare with what they compiled;
    directories and symlinks have none. Raises build/context-changed for a file that is not any more
    what was scanned, and env/file-unreadable."""
    parts: list[bytes] = []
    known = contents or {}
    with VerifiedFiles(context) as files, reading_context():
        for entry in placed:
            mtime, content = 0, list[bytes]()
            if entry.type == "file":
                before = known.get(entry.source)
                mtime, content = before or files.read(entry.source, entry.size, entry.digest)
            parts.append(
                header(
                    entry.path,
                    entry.type,
                    mode=entry.mode,
                    uid=entry.uid,
                    gid=entry.gid,
                    size=entry.size,
                    mtime=mtime,
                    link=entry.link,
                )
            )
            parts += content
            parts.append(padding(entry.size))
    parts.append(END)
    return b"".join(parts)


def read_layer(chunks: Iterable[bytes]) -> dict[str, FileEntry]:
    """The entries of a layer, plain or in gzip, by path; whiteouts are among them as they stand.

    A hard link has the size and the digest of what it leads to. What is no file, directory or
    symlink, and a file with extended attributes, is a file with the digest "", like none that was
    scanned. Raises `NeedsFullBuild` for a layer that cannot be read."""
    found: dict[str, FileEntry] = {}

    def take(path: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        if path:
            found[path] = _read_entry(tar, member, path, found)

    read_entries(chunks, "a layer", take)
    return found


def _read_entry(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, before: dict[str, FileEntry]
) -> FileEntry:
    kind: Literal["file", "dir", "symlink"] = "file"
    size, digest = 0, ""
    if member.isdir() or member.issym():
        kind = "dir" if member.isdir() else "symlink"
    elif any(key.startswith("SCHILY.xattr.") for key in member.pax_headers):
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
        path=path,
        type=kind,
        mode=0o777 if kind == "symlink" else member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        size=size,
        digest=digest,
        link=member.linkname if kind == "symlink" else "",
    )


def read_entries(
    chunks: Iterable[bytes],
    what: str,
    take: Callable[[str, tarfile.TarInfo, tarfile.TarFile], None],
) -> None:
    """Call `take` with each entry in order: its path (relative to /, clean, "" for the root
    itself), its header, and the archive, from which it may read the entry's content.

    `what` names the layer in errors. Raises `NeedsFullBuild` for one that cannot be read, be it in
    `take`."""
    source = io.BufferedReader(_Chunks(chunks), _BUFFER)
    start = source.peek(4)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        raise NeedsFullBuild(f"{what} is compressed with zstd")
    reader: Any = gzip.GzipFile(fileobj=source) if start.startswith(b"\x1f\x8b") else source
    try:
        with tarfile.open(
            fileobj=reader, mode="r|", bufsize=_BUFFER, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for member in tar:
                take(os.path.normpath(f"/{member.name}").lstrip("/"), member, tar)
                # It keeps every member otherwise.
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise NeedsFullBuild(f"{what} cannot be read: {error}") from None
    # What follows the end of the archive counts for the digest.
    for _ in chunks:
        pass


class _Chunks(io.RawIOBase):
    """The pieces of a layer as a file that can only be read on."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._source = iter(chunks)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        # As much as it asks for: a short read would be a short `peek`.
        done = 0
        while done < len(buffer):
            if not self._left:
                chunk = next(self._source, None)
                if chunk is None:
                    break
                self._left = memoryview(chunk)
            size = min(len(buffer) - done, len(self._left))
            buffer[done : done + size], self._left = self._left[:size], self._left[size:]
            done += size
        return done
