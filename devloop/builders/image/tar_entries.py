"""The entries of a layer that comes in pieces, plain or in gzip, read once from front to back."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


_BUFFER = 1 << 18


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
