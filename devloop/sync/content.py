"""Reading a file of the context so that what is sent is what the scan saw, and nothing else.

Every folder on the way is opened without following a link, and the bytes are compared with the
snapshot's digest while they are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Self

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.model import ContextEntry

__all__ = ["VerifiedContent", "changed_meanwhile"]

_PIECE = 1 << 20
_WAY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def changed_meanwhile(path: str) -> DevloopError:
    return DevloopError.of(Code.BUILD_CONTEXT_CHANGED, f"{path} changed while it was being synced")


class VerifiedContent:
    """One file, opened now. A small one is read and compared at once, so that a changed one costs
    nothing. Raises build/context-changed when what is there cannot be what the scan saw.

    Iterating gives exactly `entry.size` bytes, whatever happens to the file; afterwards `same`
    tells whether they are what the scan saw. A context manager."""

    def __init__(self, context: Path, path: str, entry: ContextEntry) -> None:
        self.same = False
        self._path = path
        self._entry = entry
        self._small: bytes | None = None
        self._fd = _open(context, path)
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
                raise changed_meanwhile(path)
            if entry.size <= _PIECE:
                self._small = b"".join(self._read())
                if not self.same:
                    raise changed_meanwhile(path)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def __iter__(self) -> Iterator[bytes]:
        if self._small is not None:
            yield self._small
            return
        yield from self._read()

    def _read(self) -> Iterator[bytes]:
        left = self._entry.size
        digest = hashlib.sha256()
        while left:
            piece = os.read(self._fd, min(left, _PIECE))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
            yield piece
        self.same = left == 0 and digest.hexdigest() == self._entry.digest
        while left:
            # What was announced has to come; it will be thrown away.
            piece = bytes(min(left, _PIECE))
            left -= len(piece)
            yield piece


def _open(context: Path, path: str) -> int:
    *folders, name = path.split("/")
    fd = -1
    try:
        fd = os.open(context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in folders:
            inner = os.open(folder, _WAY, dir_fd=fd)
            os.close(fd)
            fd = inner
        return os.open(name, _FILE, dir_fd=fd)
    except OSError as error:
        raise changed_meanwhile(path) from error
    finally:
        if fd >= 0:
            os.close(fd)
