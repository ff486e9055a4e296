"""One directory that a build reads, by the rules that hold for it now: the context, or a named one.

Asks `context_rules` which paths count and `scan` what is there; decides neither itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devloop.base.patterns import existing_directory, is_directory
from devloop.watch.rules import NarrowRules
from devloop.watch.scan import TreeScanner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.model import Snapshot
    from devloop.watch.context_rules import RulesInForce
    from devloop.watch.rules import ContextRules


class ContextTree:
    """`look` and what it leaves behind are for one thread at a time; the rest never waits for it.

    `scanner` is None before the first look."""

    def __init__(
        self,
        directory: Path,
        in_force: RulesInForce,
        *,
        needed: Callable[[str], bool],
        progress: Callable[[str], None],
    ) -> None:
        """`needed` and `progress`: see `TreeScanner`."""
        self.directory = directory
        self.in_force = in_force
        self.scanner: TreeScanner | None = None
        self._path = os.fspath(directory)
        self._needed = needed
        self._progress = progress
        self._rules: ContextRules | None = None

    def look(
        self,
        hints: frozenset[Path] | None,
        cancel: Cancel,
        keep: frozenset[str] = frozenset(),
    ) -> Snapshot:
        """See `TreeScanner.scan`. Raises also what the rules do."""
        rules = self.in_force.rules(cancel, look=hints is None)
        scanner = self.scanner
        if scanner is None:
            scanner = self.scanner = TreeScanner(
                self.directory, rules, needed=self._needed, progress=self._progress
            )
        elif rules is not self._rules:
            scanner.use(rules)
        self._rules = rules
        snapshot = scanner.scan(hints, cancel, keep)
        if isinstance(rules, NarrowRules) and _link_on_the_way(rules, scanner, snapshot):
            self._rules = self.in_force.widen()
            scanner.use(self._rules)
            snapshot = scanner.scan(None, cancel, keep)
        return snapshot

    def concerns(self, path: str) -> bool:
        """Whether a change of `path` may change what is there. Knows names only, so a directory is
        believed to matter when something in it may."""
        if not path.startswith(self._path.rstrip("/") + "/"):
            return False
        relative = path[len(self._path.rstrip("/")) + 1 :]
        rules = self.in_force.last_rules()
        return rules.concerns(relative) or (rules.only_temporary(relative) and is_directory(path))

    def add_directories(self, cancel: Cancel, found: set[str]) -> None:
        """Put into `found` the directories whose direct changes matter."""
        if os.path.isdir(self._path):  # noqa: PTH112
            _walk_directories(self._path, self.in_force.last_rules(cancel), found)
        else:
            found.add(existing_directory(self._path))


def _link_on_the_way(rules: NarrowRules, scanner: TreeScanner, snapshot: Snapshot) -> bool:
    """Whether what is read may lie behind a symlink that the last scan found."""
    found = ((path, snapshot.entries.get(path)) for path in scanner.changes)
    return any(
        entry is not None and entry.type == "symlink" and rules.reads.lead_through(path)
        for path, entry in found
    )


def _walk_directories(top: str, rules: ContextRules, found: set[str]) -> None:
    todo = [(top, "", 0)]
    while todo:
        path, relative, inherited = todo.pop()
        found.add(path)
        try:
            with os.scandir(path) as listing:
                for entry in listing:
                    if entry.is_dir(follow_symlinks=False):
                        inner = f"{relative}{entry.name}"
                        _, look, bits = rules.directory(inherited, inner, entry.name)
                        if look:
                            todo.append((f"{path}/{entry.name}", f"{inner}/", bits))
        except OSError:
            # Gone, or not for us to read: the scan is the one to complain.
            continue
