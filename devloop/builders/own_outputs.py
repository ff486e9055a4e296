"""Which files of the context a build command writes itself: they are no change of the project.

Nobody says which process wrote a file. So a file counts as an output when it is written in one run
after the other and never in between; one that somebody edits is written before the build that the
edit starts. Until it has been so in two runs, what it has at the end is built once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.file_content import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from devloop.model import Scan


_SUSPECTED, _PROVEN = 1, 2


class OwnOutputs:
    """For one service; `may_hold` and `hold` are asked by other threads than the build's."""

    def __init__(self) -> None:
        # path relative to the context -> in how many runs without a break it was written
        self._runs: dict[str, int] = {}
        self._edited: frozenset[str] = frozenset()
        self._before: Scan | None = None

    def begins(self, scan: Scan) -> None:
        """The command runs on what `scan` saw: what changed since the run before is an edit."""
        if self._before is not None:
            changed = scan.snapshot.changed_since(self._before.snapshot)
            self._edited |= changed - self._runs.keys()
        self._before = scan

    def ends(self, written: frozenset[str], *, whole: bool) -> None:
        """Its end: `written` are the paths that were written to meanwhile. One that did not come to
        its end (`whole` False) says nothing of what it did not write."""
        rest = {} if whole else self._runs
        self._runs = {**rest, **{path: self._runs.get(path, 0) + 1 for path in written}}

    def may_hold(self, paths: Iterable[str]) -> bool:
        """Whether all of `paths` were written in the last run as well."""
        return self._all(paths, _SUSPECTED)

    def hold(self, paths: Iterable[str]) -> bool:
        """Whether all of `paths` are sure to be outputs."""
        return self._all(paths, _PROVEN)

    def _all(self, paths: Iterable[str], runs: int) -> bool:
        known, edited = self._runs, self._edited
        return all(known.get(path, 0) >= runs and path not in edited for path in paths)


def rewritten_otherwise(context: Path, scan: Scan, paths: Iterable[str]) -> list[str]:
    """Those of `paths` that have other bytes now than `scan` saw, sorted. Raises OSError."""
    return [path for path in sorted(paths) if not _as_before(context, scan, path)]


def _as_before(context: Path, scan: Scan, path: str) -> bool:
    entry = scan.snapshot.entries.get(path)
    if entry is None or entry.type == "symlink":
        return False
    if entry.type == "dir":
        return (context / path).is_dir()
    found = hash_file(str(context / path), Cancel())
    return found is not None and found.digest == entry.digest
