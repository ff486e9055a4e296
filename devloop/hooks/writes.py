"""Which files of the context hooks write themselves: they are no change of the project.

Nobody says which process wrote a file. One that was written while a hook ran counts as its output
once that was so in two runs, or at once if a hook before a build made it, since what that leaves is
what is built. Once no hook runs, only the bytes that they left count: other ones are an edit.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.model import ContextEntry, Scan


_SUSPECTED, _PROVEN = 1, 2


class HookWrites:
    """For one service; asked by other threads than the one that runs its hooks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # the hooks' time -> path relative to the context -> in how many runs it was written
        self._runs: dict[str, dict[str, int]] = {}
        self._made: set[str] = set()
        self._left: dict[str, ContextEntry | None] = {}
        self._running = ""
        self._before: Scan | None = None
        self._prepared: Scan | None = None

    def begins(self, when: str, scan: Scan) -> None:
        """Hooks run from now on, and `scan` is what there was before."""
        with self._lock:
            self._running, self._before = when, scan
            if when == "before_build":
                self._prepared = None

    def ends(self, scan: Scan, written: Iterable[str], *, whole: bool = True) -> bool:
        """None runs any more; `written` are the paths that were written to meanwhile, and `scan` is
        what there is now. `whole`: they came to their end. Returns whether all that changed is
        known to be theirs."""
        with self._lock:
            when, before = self._running, self._before
            self._running, self._before = "", None
            if before is None:
                return True
            known = self._runs.setdefault(when, {})
            changed = scan.snapshot.changed_since(before.snapshot)
            if when == "before_build":
                self._prepared = scan if whole else None
                self._made |= {path for path in changed if path not in before.snapshot.entries}
            sure = all(self._count(path) >= _SUSPECTED for path in changed)
            for path in written:
                known[path] = known.get(path, 0) + 1
                self._left[path] = scan.snapshot.entries.get(path)
            return sure

    def broke_off(self) -> None:
        """What ran did not come to its end, and nobody knows what it wrote."""
        with self._lock:
            self._running, self._before = "", None

    def all_(self, before: Scan, after: Scan, *, sure: bool) -> bool:
        """Whether hooks wrote all in which `after` differs from `before`, in the context alone;
        unless `sure`, whether they may have."""
        least = _PROVEN if sure else _SUSPECTED
        if before.recipe != after.recipe:
            return False
        with self._lock:
            if self._prepared is not None and _same(after, self._prepared) and not self._running:
                return True
            if self._running and self._running != "before_build" and not sure:
                return True
            changed = after.snapshot.changed_since(before.snapshot)
            return bool(changed) and all(self._is_mine(path, after, least) for path in changed)

    def _is_mine(self, path: str, scan: Scan, least: int) -> bool:
        if self._running == "before_build":
            new = self._before is not None and path not in self._before.snapshot.entries
            return new or self._count(path) >= _SUSPECTED
        if self._running:
            return self._count(path) >= least
        if path not in self._left or self._left[path] != scan.snapshot.entries.get(path):
            return False
        return self._count(path) >= least

    def _count(self, path: str) -> int:
        if path in self._made:
            return _PROVEN
        return max((runs.get(path, 0) for runs in self._runs.values()), default=0)


def _same(one: Scan, other: Scan) -> bool:
    return one.fingerprint.build == other.fingerprint.build
