"""The build context as a tar stream, made from exactly the paths that a scan saw.

For the classic builder, which takes its context in one piece. Every file is checked against the
scan while it is read, so the stream either is what was scanned or ends with
build/context-changed. File times are the disk's: BuildKit keeps them, and so does this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devloop.base.file_content import ContentChanged, VerifiedFiles
from devloop.builders.image.tar_writer import END, header, padding, reading_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from devloop.model import ContextEntry, Snapshot


def stream(
    context: Path, snapshot: Snapshot, replaced: Mapping[str, bytes] | None = None
) -> Iterator[bytes]:
    """Yield the tar in pieces, in the order of the paths. `replaced` gives contents for files that
    are to differ from the disk or that the snapshot does not have.

    Raises build/context-changed and env/file-unreadable in the middle of the stream."""
    contents = dict(replaced or {})
    with VerifiedFiles(context) as files, reading_context():
        for path, entry in snapshot.entries.items():
            if path not in contents:
                yield from _member(context, files, path, entry)
    for path in sorted(contents):
        data = contents[path]
        yield header(path, "file", mode=0o644, size=len(data)) + data + padding(len(data))
    yield END


def _member(context: Path, files: VerifiedFiles, path: str, entry: ContextEntry) -> Iterator[bytes]:
    if entry.type == "file":
        with files.open(path, entry.size, entry.digest) as file:
            yield header(path, "file", mode=entry.mode, size=entry.size, mtime=file.mtime)
            yield from file
        yield padding(entry.size)
        return
    full = context / path
    try:
        mtime = int(os.lstat(full).st_mtime)
        if entry.type == "symlink" and os.readlink(full) != entry.link:  # noqa: PTH115 - any bytes
            raise ContentChanged(path)
    except OSError:
        raise ContentChanged(path) from None
    yield header(path, entry.type, mode=entry.mode, mtime=mtime, link=entry.link)
