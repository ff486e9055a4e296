"""The build context made from exactly the paths that a scan saw: as a tar, or as a directory.

The tar is for the classic builder, which takes its context in one piece; the directory for one that
reads by itself and later: where files change faster than it reads, its image would never be what a
scan saw. Every file is checked against the scan while it is read. File times are the disk's:
BuildKit keeps them, and so does this.
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


def directories_of(snapshot: Snapshot) -> set[str]:
    """All directories of the context, those among them that are there only for what is below."""
    found = {path for path, entry in snapshot.entries.items() if entry.type == "dir"}
    for path in snapshot.entries:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


def copy_context(context: Path, snapshot: Snapshot, into: Path) -> None:
    """Copy what `snapshot` has below `context` to the directory `into`, with modes and times.

    Raises build/context-changed and env/file-unreadable, OSError of writing."""
    ordered = sorted(directories_of(snapshot))
    for path in ordered:
        (into / path).mkdir(exist_ok=True)
    with VerifiedFiles(context) as files, reading_context():
        for path, entry in snapshot.entries.items():
            goal = into / path
            if entry.type == "file":
                with files.open(path, entry.size, entry.digest) as file, goal.open("wb") as copy:
                    copy.writelines(file)
                    mtime = file.mtime
                goal.chmod(entry.mode)
                os.utime(goal, (mtime, mtime))
            elif entry.type == "symlink":
                goal.symlink_to(entry.link)
                _like(context / path, goal, path)
    # What lies below a directory is written by now: it may be read-only, and its time stays.
    for path in reversed(ordered):
        entry_of = snapshot.entries.get(path)
        _like(context / path, into / path, path, mode=entry_of.mode if entry_of else None)


def _like(original: Path, goal: Path, path: str, mode: int | None = None) -> None:
    with reading_context():
        try:
            found = os.lstat(original)
        except FileNotFoundError:
            raise ContentChanged(path) from None
    if not goal.is_symlink():
        goal.chmod(found.st_mode & 0o7777 if mode is None else mode)
    os.utime(goal, (found.st_mtime, found.st_mtime), follow_symlinks=False)
