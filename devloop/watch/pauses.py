"""When to wait with a hint, and when to give one without an event.

A hint before a save is over costs a build that is thrown away, and each moment longer is one that
the user waits for every save. While git rewrites the working tree a scan would see half a checkout;
after the machine has slept (or the directory has, on a share) events may be missing: these two are
asked of the system, not guessed from events.
"""

from __future__ import annotations

import os
import time
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


_JUMP_SECONDS = 5.0
# A file that is written in place or put there whole: only another file of the same save may follow.
_SHORTEST_SECONDS = 0.004
# A file that is new under its name: its mode may be set right after it is closed (vim).
_NEW_SECONDS = 0.010
# A file still open, just begun, gone or empty: it comes back or is filled, or not at all.
LONGEST_SECONDS = 0.025


class Pace:
    """How long to wait for the rest of a save. Pure: times are handed in.

    What is known of the files decides, and what happened after the last hints: where saves go on (a
    formatter, an editor that writes several files), the wait grows until it covers that, and it
    shrinks again where they do not."""

    def __init__(self) -> None:
        self._seconds = _SHORTEST_SECONDS
        self._last: float | None = None

    def window(self, *, unfinished: bool, new: bool) -> float:
        """Seconds without news after which a save counts as over."""
        if unfinished:
            return LONGEST_SECONDS
        return max(self._seconds, _NEW_SECONDS if new else 0.0)

    def hinted(self, last: float) -> None:
        """A hint was given; its last news came at `last`."""
        self._last = last

    def came(self, now: float) -> None:
        """The first news after a hint."""
        if self._last is None:
            return
        gap, self._last = now - self._last, None
        if gap <= LONGEST_SECONDS:
            # One save would have been one hint, had the last one waited this long.
            self._seconds = min(LONGEST_SECONDS, max(gap * 1.5, self._seconds * 2))
        else:
            self._seconds = max(_SHORTEST_SECONDS, self._seconds * 0.8)


class GitOperations:
    """Whether git is at work in a repository that holds one of `directories`.

    Git holds `index.lock` from before the first file it writes until after the last (so does a
    `git commit` that waits in an editor: see `tolerate`)."""

    def __init__(self, directories: Iterable[str]) -> None:
        found = {_git_directory(directory) for directory in directories}
        self._locks = sorted(f"{directory}/index.lock" for directory in found if directory)
        self._tolerated: set[tuple[str, int, int]] = set()

    def busy(self) -> bool:
        return any(lock not in self._tolerated for lock in self._held())

    def tolerate(self) -> None:
        """Take the locks there are now for forgotten or long: they hold nothing back any more."""
        self._tolerated = set(self._held())

    def _held(self) -> list[tuple[str, int, int]]:
        held = []
        for lock in self._locks:
            try:
                status = os.lstat(lock)
            except OSError:
                continue
            held.append((lock, status.st_ino, status.st_mtime_ns))
        return held


def _git_directory(directory: str) -> str | None:
    """The git directory of the work tree around `directory`; follows the file that a worktree or a
    submodule has instead."""
    for above in (PurePath(directory), *PurePath(directory).parents):
        path = str(above / ".git")
        if os.path.isdir(path):  # noqa: PTH112
            return path
        if os.path.isfile(path):  # noqa: PTH113
            return _linked(path)
    return None


def _linked(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            text = file.readline()
    except OSError:
        return None
    target = text.removeprefix("gitdir:").strip()
    return os.path.join(os.path.dirname(path), target) if target != text.strip() else None  # noqa: PTH118, PTH120


def _slept() -> float:
    """Seconds the machine has slept, up to a constant. Without CLOCK_BOOTTIME (macOS) setting the
    clock looks the same, which costs one scan."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.time() - time.monotonic()


class SleepDetector:
    def __init__(self, slept: Callable[[], float] = _slept) -> None:
        self._slept = slept
        self._before = slept()

    def woke(self) -> bool:
        """Whether the machine slept since the last call."""
        before, self._before = self._before, self._slept()
        return abs(self._before - before) > _JUMP_SECONDS
