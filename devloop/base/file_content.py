"""Reading a file so that what was read is known to be one state of it.

Files change while they are read, vanish between two calls and turn out to be pipes; every reader of
the watch package goes through here, so that each of these has one answer. Never blocks on a pipe,
never follows a symlink unless told to.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel

__all__ = ["RACY_NS", "FileCache", "FileContent", "hash_file", "key_of", "read_small"]

RACY_NS = 2_000_000_000
"""A file that was read within this time of its last change may be written again without its
timestamps moving (kernels' clocks tick in milliseconds, FAT's in 2 s), so its timestamps prove
nothing yet: git's "racily clean" rule."""

_ATTEMPTS = 3
_CHUNK = 1 << 20
_SMALL = 1 << 16
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NO_LINK = _FLAGS | os.O_NOFOLLOW
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV})

Key = tuple[int, int, int, int, int]


def key_of(status: os.stat_result) -> Key:
    """What moves when a file is written or replaced: inode, size, mtime, ctime and mode."""
    return (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
    )


class FileContent(NamedTuple):
    """`digest` is the sha256 in hex of the state `key`. `settled` is False when the file would not
    hold still: then `key` must not be taken as a proof that nothing changed.

    A named tuple, not a dataclass: a scan makes one for each of 20,000 files."""

    digest: str
    key: Key
    settled: bool


def read_small(name: str, dir_fd: int, settled_before: int) -> tuple[str, Key] | None:
    """Digest and key of the usual file: small, and last changed before `settled_before` (wall
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
    key = (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
    )
    if key[3] >= settled_before or key[1] != len(data) or not stat.S_ISREG(key[4]):
        return None
    return hashlib.sha256(data).hexdigest(), key


def hash_file(
    name: str, cancel: Cancel, *, dir_fd: int | None = None, follow: bool = False
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
            after = os.fstat(fd)
            settled = (
                read == size == after.st_size
                and before.st_mtime_ns == after.st_mtime_ns
                and before.st_ctime_ns == after.st_ctime_ns
            )
        finally:
            os.close(fd)
        content = FileContent(digest, key_of(before), settled)
        if settled:
            break
        cancel.check()
    return content


def _hash_chunks(fd: int, cancel: Cancel) -> tuple[int, str]:
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
