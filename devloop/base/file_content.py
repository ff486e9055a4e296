"""Reading a file so that what was read is known to be one state of it.

Files change while they are read, vanish between two calls and turn out to be pipes; the scan and
everybody who later reads what a scan saw go through here, so that each of these has one answer.
Never blocks on a pipe, never follows a symlink unless asked to.

Directories on the way are opened one below the other without following a link, and stay open for
the next file: one `open` for most files, on every system (openat2 would be a second way for Linux
alone that saves nothing).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from devloop.base.cancel import Cancel, Checks


RACY_NS = 2_000_000_000
"""A file that was read within this time of its last change may be written again without its
timestamps moving (kernels' clocks tick in milliseconds, FAT's in 2 s), so its timestamps prove
nothing yet: git's "racily clean" rule."""

_ATTEMPTS = 3
_CHUNK = 1 << 20
_SMALL = 1 << 16
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NO_LINK = _FLAGS | os.O_NOFOLLOW
_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WAY = _TOP | os.O_NOFOLLOW
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV})

Key = tuple[int, int, int, int, int]

if TYPE_CHECKING:
    Contents = Mapping[str, tuple[int, list[bytes]]]
    """Path in the context -> time of modification in seconds, and the bytes."""


def key_of(status: os.stat_result) -> Key:
    """What moves when a file is written or replaced: inode, size, mtime, ctime and mode."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


class FileContent(NamedTuple):
    """`digest` is the sha256 in hex of the state `key`. `settled` is False when the file would not
    hold still: then `key` must not be taken as a proof that nothing changed.

    A named tuple, not a dataclass: a scan makes one for each of 20,000 files."""

    digest: str
    key: Key
    settled: bool


def read_small(name: str, dir_fd: int, settled_before: int) -> FileContent | None:
    """The content of the usual file: small, and last changed before `settled_before` (wall
    clock, ns; at least a moment ago), so that it cannot have changed while it was read and one
    look at it is enough. None for any other and for none at all: ask `hash_file`."""
    try:
        fd = os.open(name, _NO_LINK, dir_fd=dir_fd)
    except OSError:
        return None
    try:
        data = os.read(fd, _SMALL)
        status = os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    key = key_of(status)
    if key[3] >= settled_before or key[1] != len(data) or not stat.S_ISREG(key[4]):
        return None
    return FileContent(hashlib.sha256(data).hexdigest(), key, True)


def read_whole(name: str, most: int, *, dir_fd: int) -> tuple[FileContent, int, bytes] | None:
    """A file of `most` bytes at most: its content, its size and its bytes, which are all of one
    read and so belong together even where the file does not hold still. None for a bigger one and
    for none at all. Raises OSError for one that cannot be read."""
    try:
        fd = os.open(name, _NO_LINK, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    with os.fdopen(fd, "rb", buffering=0) as file:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode) or before.st_size > most:
            return None
        data = bytearray()
        while len(data) <= most and (more := file.read(_CHUNK)):
            data += more
        if len(data) > most:
            return None
        key = key_of(before)
        settled = len(data) == before.st_size and key == key_of(os.fstat(fd))
    content = FileContent(hashlib.sha256(data).hexdigest(), key, settled)
    return content, len(data), bytes(data)


def hash_file(
    name: str, cancel: Checks, *, dir_fd: int | None = None, follow: bool = False
) -> FileContent | None:
    """The content of the regular file `name`; None when there is none (or no longer).

    A file that changes while it is being read is read again, a few times. Raises OSError for one
    that is there and cannot be read, and `Cancelled`."""
    flags = _FLAGS if follow else _NO_LINK
    content = None
    for _ in range(_ATTEMPTS):
        try:
            fd = os.open(name, flags, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return None
            size = before.st_size
            if size < _CHUNK:
                # One byte more than there should be: the usual file takes one call.
                data = os.read(fd, size + 1)
                read = len(data)
                digest = hashlib.sha256(data).hexdigest()
            else:
                read, digest = _hash_chunks(fd, cancel)
            settled = read == size and key_of(before) == key_of(os.fstat(fd))
        finally:
            os.close(fd)
        content = FileContent(digest, key_of(before), settled)
        if settled:
            break
        cancel.check()
    return content


def _hash_chunks(fd: int, cancel: Checks) -> tuple[int, str]:
    total = hashlib.sha256()
    read = 0
    while data := os.read(fd, _CHUNK):
        total.update(data)
        read += len(data)
        cancel.check()
    return read, total.hexdigest()


class FileCache:
    """Digests of single files outside of a tree (a Dockerfile, manifests), read when they changed.

    Follows symlinks, as everybody does who uses these files. For one thread."""

    def __init__(self) -> None:
        self._known: dict[str, FileContent] = {}

    def digest(self, path: str, cancel: Cancel) -> str | None:
        """The content's sha256 in hex, None if there is no such file. Raises OSError for one that
        cannot be read."""
        # The clock first: what is written from here on counts as too young.
        now = time.time_ns()
        try:
            known = self._known.get(path)
            if known is not None and key_of(os.stat(path)) == known.key:  # noqa: PTH116 - hot path
                return known.digest
            content = hash_file(path, cancel, follow=True)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            content = None
        if content is not None and content.settled and content.key[3] < now - RACY_NS:
            self._known[path] = content
        else:
            self._known.pop(path, None)
        return content.digest if content is not None else None


class ContentChanged(Exception):  # noqa: N818 - somebody saved meanwhile, which is no error here
    """The file `path` is not any more what was expected."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class VerifiedFile:
    """An open file that gives the content of `size` bytes whose sha256 in hex is `digest`, once.

    `mtime` is in seconds. Iterating raises ContentChanged, at the end at the latest, when the
    content is another one; what came before then is worth nothing. A context manager."""

    __slots__ = ("_digest", "_fd", "_path", "_size", "mtime")

    def __init__(self, fd: int, path: str, size: int, digest: str) -> None:
        self._fd = fd
        self._path = path
        self._size = size
        self._digest = digest
        found = os.fstat(fd)
        self.mtime = int(found.st_mtime)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            self.close()
            raise ContentChanged(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def __iter__(self) -> Iterator[bytes]:
        hashed, left = hashlib.sha256(), self._size
        # One byte more than there should be shows a file that has grown.
        while data := os.read(self._fd, min(left, _CHUNK) + 1):
            left -= len(data)
            if left < 0:
                break
            hashed.update(data)
            yield data
        if left or hashed.hexdigest() != self._digest:
            raise ContentChanged(self._path)


class KeptFile:
    """As `VerifiedFile`, for content that was kept: the disk is not asked."""

    __slots__ = ("_pieces", "mtime")

    def __init__(self, mtime: int, pieces: list[bytes]) -> None:
        self.mtime = mtime
        self._pieces = pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


class VerifiedFiles:
    """The files of the directory `top` as a scan saw them, none of them through a symlink (`top`
    itself may be one). Quickest in the order of the paths. A context manager, for one thread."""

    def __init__(self, top: Path, kept: Contents | None = None) -> None:
        """`kept` is what the scan kept of files that are something else by now, for all one
        knows (see `Scan`)."""
        self._top = top
        self._kept = kept or {}
        # The directories on the way to the last file: names and descriptors, `top` first.
        self._names: list[str] = []
        self._open: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(0)

    def _close(self, keep: int) -> None:
        while len(self._open) > keep:
            os.close(self._open.pop())

    def open(self, path: str, size: int, digest: str) -> VerifiedFile | KeptFile:
        """The file, to be closed by the caller. Raises ContentChanged when it is not there or of
        another size, and PermissionError (with `path`)."""
        if (kept := self._kept.get(path)) is not None:
            return KeptFile(*kept)
        directory, _, name = path.rpartition("/")
        try:
            fd = os.open(name, _NO_LINK, dir_fd=self._directory(directory))
        except PermissionError as error:
            raise PermissionError(error.errno, error.strerror, path) from None
        except OSError as error:
            raise ContentChanged(path) from error
        return VerifiedFile(fd, path, size, digest)

    def read(self, path: str, size: int, digest: str) -> tuple[int, list[bytes]]:
        """The file's time of modification in seconds and its content. Raises as `open` does."""
        with self.open(path, size, digest) as file:
            return file.mtime, list(file)

    def _directory(self, path: str) -> int:
        names = path.split("/") if path else []
        if not self._open:
            self._open.append(os.open(self._top, _TOP))
        if names != self._names:
            same = (one == other for one, other in zip(names, self._names, strict=False))
            common = sum(takewhile(bool, same))
            self._close(common + 1)
            self._names = names[:common]
            for name in names[common:]:
                self._open.append(os.open(name, _WAY, dir_fd=self._open[-1]))
                self._names.append(name)
        return self._open[-1]
