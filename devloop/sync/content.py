"""A file of the context on its way into containers: what is sent is what the scan saw, and exactly
as many bytes as were announced, whatever happens to the file meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from devloop.base.file_content import ContentChanged, VerifiedFiles
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.model import ContextEntry


_PIECE = 1 << 20


def changed_meanwhile(path: str) -> DevloopError:
    return DevloopError.of(Code.BUILD_CONTEXT_CHANGED, f"{path} changed while it was being synced")


class VerifiedContent:
    """One file, opened now. A small one is read and compared at once, so that a changed one costs
    nothing. Raises build/context-changed when what is there cannot be what the scan saw.

    Iterating gives exactly `entry.size` bytes; afterwards `same` is whether they are what the
    scan saw. A context manager."""

    def __init__(self, context: Path, path: str, entry: ContextEntry) -> None:
        self.same = False
        self._size = entry.size
        self._small: bytes | None = None
        try:
            with VerifiedFiles(context) as files:
                self._file = files.open(path, entry.size, entry.digest)
        except (ContentChanged, OSError) as error:
            raise changed_meanwhile(path) from error
        if entry.size <= _PIECE:
            try:
                self._small = b"".join(self._file)
            except (ContentChanged, OSError) as error:
                self._file.close()
                raise changed_meanwhile(path) from error
            self.same = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        if self._small is not None:
            yield self._small
            return
        left = self._size
        try:
            for piece in self._file:
                left -= len(piece)
                yield piece
            self.same = True
        except (ContentChanged, OSError):
            while left:
                # What was announced has to come; it will be thrown away.
                filler = bytes(min(left, _PIECE))
                left -= len(filler)
                yield filler
