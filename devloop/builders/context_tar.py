"""The build context as a tar stream, made from exactly the paths that a scan saw.

For the classic builder, which takes its context in one piece. Every file is checked against the
scan while it is read, so the stream either is what was scanned or ends with
build/context-changed. File times are the disk's: BuildKit keeps them, and so does this.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from devloop.model import ContextEntry, Snapshot

__all__ = ["stream"]

_CHUNK = 1 << 20


def stream(
    context: Path, snapshot: Snapshot, replaced: Mapping[str, bytes] | None = None
) -> Iterator[bytes]:
    """Yield the tar in pieces, in the order of the paths. `replaced` gives contents for files that
    are to differ from the disk or that the snapshot does not have.

    Raises build/context-changed and env/file-unreadable in the middle of the stream."""
    contents = dict(replaced or {})
    for path, entry in snapshot.entries.items():
        if path not in contents:
            yield from _member(context, path, entry)
    for path in sorted(contents):
        data = contents[path]
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(data), 0o644
        yield _header(info) + data + _padding(len(data))
    yield b"\0" * 1024


def _header(info: tarfile.TarInfo) -> bytes:
    # The GNU form keeps any bytes as a name; pax would have to declare them as text.
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 512)


def _member(context: Path, path: str, entry: ContextEntry) -> Iterator[bytes]:
    full = context / path
    info = tarfile.TarInfo(path)
    info.mode = entry.mode
    try:
        found = os.lstat(full)
    except OSError:
        raise _changed(path) from None
    info.mtime = int(found.st_mtime)
    if entry.type == "dir":
        info.type = tarfile.DIRTYPE
        yield _header(info)
    elif entry.type == "symlink":
        info.type, info.linkname = tarfile.SYMTYPE, entry.link
        if not stat.S_ISLNK(found.st_mode) or os.fsencode(full.readlink()) != os.fsencode(
            entry.link
        ):
            raise _changed(path)
        yield _header(info)
    else:
        info.size = entry.size
        yield _header(info)
        yield from _content(full, path, entry)


def _content(full: Path, path: str, entry: ContextEntry) -> Iterator[bytes]:
    try:
        # Not through a link that took the file's place, and never stuck on a FIFO.
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE, f"cannot read {path}", cause=error.strerror
        ) from error
    except OSError:
        raise _changed(path) from None
    hashed, left = hashlib.sha256(), entry.size
    with contextlib.closing(io.FileIO(fd)) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _changed(path)
        while data := file.read(_CHUNK):
            left -= len(data)
            if left < 0:
                raise _changed(path)
            hashed.update(data)
            yield data
    if left or hashed.hexdigest() != entry.digest:
        raise _changed(path)
    yield _padding(entry.size)


def _changed(path: str) -> DevloopError:
    return DevloopError.of(
        Code.BUILD_CONTEXT_CHANGED, "a file changed while the image was being built", cause=path
    )
