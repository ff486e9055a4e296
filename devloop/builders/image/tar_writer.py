"""Tar headers and the context's files behind them, for layers and for the context of a build.

Not by tarfile: that takes several times as long for thousands of small files. It reads, though.

Format: POSIX pax (ustar with extended headers), as
https://github.com/opencontainers/image-spec/blob/main/layer.md asks for. Names that are no UTF-8
stand in the extended headers as they are, which Go's archive/tar takes.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Literal

from devloop.base.file_content import ContentChanged
from devloop.errors import Code, DevloopError, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from devloop.base.cancel import Cancel


END = bytes(1024)
"""What an archive ends with."""

_BLOCK = 512
_KINDS = {"file": b"0", "symlink": b"2", "dir": b"5"}
_MOST_ID = 0o7777777
_MOST_SIZE = 0o77777777777


@contextlib.contextmanager
def reading_context() -> Iterator[None]:
    """Turns what `VerifiedFiles` raises into build/context-changed and env/file-unreadable."""
    try:
        yield
    except ContentChanged as error:
        raise DevloopError.of(
            Code.BUILD_CONTEXT_CHANGED,
            "a file changed while the image was being built",
            cause=error.path,
        ) from None
    except PermissionError as error:
        raise unreadable(error.filename, error) from None


def until(cancel: Cancel, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What came before the end of a stream that is broken off takes long enough to work on."""
    for chunk in chunks:
        cancel.check()
        yield chunk


def in_pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of at least `size`, but for the last."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= size:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def padding(size: int) -> bytes:
    """What follows a content of `size` bytes."""
    return bytes(-size % _BLOCK)


def header(
    path: str,
    kind: Literal["file", "dir", "symlink"],
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: str = "",
) -> bytes:
    """What stands before the content; `path` and `link` are decoded with surrogateescape."""
    name = os.fsencode(path)
    if kind == "dir":
        name += b"/"
    target = os.fsencode(link)
    mtime = min(max(mtime, 0), _MOST_SIZE)
    extended: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        extended[b"path"] = name
        name = name[:100] if name.isascii() else b"@"
    if len(target) > 100 or not target.isascii():
        extended[b"linkpath"] = target
        target = target[:100] if target.isascii() else b"@"
    if uid > _MOST_ID:
        extended[b"uid"], uid = b"%d" % uid, 0
    if gid > _MOST_ID:
        extended[b"gid"], gid = b"%d" % gid, 0
    if size > _MOST_SIZE:
        extended[b"size"], size = b"%d" % size, 0
    block = _block(name, _KINDS[kind], (mode, uid, gid, size, mtime), target)
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
