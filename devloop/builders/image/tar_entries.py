"""The entries of a layer that comes in pieces, plain or in gzip, read once from front to back."""

from __future__ import annotations

import itertools
import os
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["read_entries"]


def read_entries(
    chunks: Iterable[bytes],
    what: str,
    take: Callable[[str, tarfile.TarInfo, tarfile.TarFile], None],
) -> None:
    """Call `take` with each entry in order: its path (relative to /, clean, "" for the root
    itself), its header, and the archive, from which it may read the entry's content.

    `what` names the layer in errors. Raises `NeedsFullBuild` for one that cannot be read, be it in
    `take`."""
    reader: Any = _PlainStream(chunks, what)
    try:
        with tarfile.open(
            fileobj=reader, mode="r|", bufsize=1 << 18, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for member in tar:
                take(os.path.normpath(f"/{member.name}").lstrip("/"), member, tar)
                # It keeps every member otherwise.
                tar.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise NeedsFullBuild(f"{what} cannot be read: {error}") from None


class _PlainStream:
    """The pieces of a layer as a file that can only be read on; gzip is undone on the way."""

    def __init__(self, chunks: Iterable[bytes], what: str) -> None:
        source = iter(chunks)
        first = b""
        while len(first) < 4 and (chunk := next(source, b"")):
            first += chunk
        if first.startswith(b"\x28\xb5\x2f\xfd"):
            raise NeedsFullBuild(f"{what} is compressed with zstd")
        packed = first.startswith(b"\x1f\x8b")
        self._source = _unpacked(first, source) if packed else source
        self._left = b"" if packed else first

    def read(self, size: int) -> bytes:
        parts, missing = [self._left], size - len(self._left)
        while missing > 0 and (chunk := next(self._source, None)) is not None:
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts)
        self._left = data[size:]
        return data[:size]


def _unpacked(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    stream = zlib.decompressobj(wbits=31)
    for chunk in itertools.chain((first,), rest):
        data = chunk
        while data:
            if stream.eof:
                # One stream may follow another.
                stream = zlib.decompressobj(wbits=31)
            yield stream.decompress(data)
            data = stream.unused_data
    if not stream.eof:
        raise EOFError("it ends too early")
