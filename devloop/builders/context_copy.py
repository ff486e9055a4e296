"""The build context as a directory of its own, made from exactly the paths that a scan saw.

For a builder that reads a directory by itself and later: where files change faster than it reads,
its image would never be what a scan saw. What the copy has is checked while it is read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devloop.base.file_content import ContentChanged, VerifiedFiles
from devloop.builders.image.tar_writer import reading_context

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from devloop.model import Snapshot


def copy_context(context: Path, snapshot: Snapshot, directories: Iterable[str], into: Path) -> None:
    """Copy what `snapshot` has below `context` to the directory `into`, with modes and times.

    `directories` are the paths of all directories, those among them that the snapshot has for what
    is below them only. Raises build/context-changed and env/file-unreadable, OSError of writing."""
    ordered = sorted(directories)
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
