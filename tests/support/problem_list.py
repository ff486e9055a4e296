"""An editor's list of problems, by the rules of VS Code for a task in the background (its
problemCollectors.ts, WatchingProblemCollector), read from the lines that a session prints.
"""

from __future__ import annotations

import re

from devloop.editor import problems


class ProblemList:
    """Feed it lines; `shown` is what stands in the list then."""

    def __init__(self) -> None:
        self._listed: dict[str, set[tuple[int, str]]] = {}
        self._found: dict[str, set[tuple[int, str]]] = {}
        self._to_clean: set[str] = set()
        self._current: str | None = None
        self._active = True  # activeOnStart

    def shown(self, *severities: str) -> list[str]:
        """`path:line`, sorted; of all severities when none is given."""
        return sorted(
            f"{path}:{line}"
            for path, places in self._listed.items()
            for line, severity in places
            if not severities or severity in severities
        )

    def read(self, line: str) -> None:
        begin = re.search(problems.BEGIN, line)
        if begin and not self._active:
            self._active, self._found, self._current = True, {}, None
            # A group is a file, as that of the pattern is 1 unless it says otherwise.
            self._to_clean = {begin[1]} if begin.lastindex else set(self._listed)
        elif re.search(problems.END, line) and self._active:
            self._active = False
            self._deliver()
            self._current = None
            for path in self._to_clean:
                self._listed.pop(path, None)
            self._to_clean, self._found = set(), {}
        elif match := re.search(problems.PROBLEM, line):
            path = match[1]
            self._to_clean.discard(path)
            self._found.setdefault(path, set()).add((int(match[2]), match[4]))
            if self._current != path:
                self._deliver()
                self._current = path

    def _deliver(self) -> None:
        if self._current is not None and self._current in self._found:
            self._listed[self._current] = set(self._found[self._current])
