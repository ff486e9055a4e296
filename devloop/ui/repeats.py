"""Logs of a container that starts again and again: what its new start says once more, word for
word, is one line. Pure.

A line is put away only while it equals the one that stood there after the start before, and the
line that stands for them says so first: nothing waits here for what may never come, and once a
line differs all that was put away is shown before it. For people only; programs get every line.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from devloop.events import LogLine

# Fewer lines than that are as short as what would stand for them.
_WORTH = 3

# What is remembered of a start, in lines and characters: a container that says more has worked for
# a while, and says it at other times. And of so many containers.
_LINES = 200
_TEXT = 32 * 1024
_CONTAINERS = 32


@dataclass(slots=True, kw_only=True)
class _Start:
    """What a container said since it started, while `same` is None; otherwise what it said after
    the start before, of which `same` lines came again. `over`: more than is remembered."""

    restarts: int
    lines: list[str] = field(default_factory=list)
    size: int = 0
    over: bool = False
    same: int | None = None


class Repeats:
    """Remembers the lines of each container's last start."""

    def __init__(self) -> None:
        self._starts: dict[tuple[str, str, str], _Start] = {}

    def take(self, event: LogLine) -> list[LogLine]:
        """What to show for a line, of the same container."""
        if not event.ts:  # a remark about the log, which the container did not write
            return [event]
        key = (event.service, event.pod, event.container)
        start = self._starts.get(key)
        if start is None:
            if len(self._starts) >= _CONTAINERS:
                del self._starts[next(iter(self._starts))]
            start = self._starts[key] = _Start(restarts=event.restarts)
        if start.over and start.restarts == event.restarts:
            return [event]
        notes = [] if start.restarts == event.restarts else self._again(key, event)
        return [*(replace(event, text=text) for text in notes), *_shown(self._starts[key], event)]

    def _again(self, key: tuple[str, str, str], event: LogLine) -> list[str]:
        """The container was started anew; what is to be said of the start before."""
        before = self._starts.pop(key)
        start = self._starts[key] = _Start(restarts=event.restarts)
        if event.restarts > before.restarts and not before.over and len(before.lines) >= _WORTH:
            start.lines, start.size, start.same = before.lines, before.size, 0
        if before.same and before.same < len(before.lines):
            return [f"(restart {before.restarts}: ended after {before.same} of these lines)"]
        return []


def _shown(start: _Start, event: LogLine) -> list[LogLine]:
    text, lines, same = event.text, start.lines, start.same
    if same is not None and same < len(lines):
        if text == lines[same]:
            start.same = same + 1
            if same:
                return []
            note = f"the same {len(lines)} lines again, shown only if they differ"
            return [replace(event, text=f"(restart {event.restarts}: {note})")]
        start.lines, start.same = lines[:same], None
        start.size = sum(map(len, start.lines))
        return [*(replace(event, text=known) for known in start.lines), *_shown(start, event)]
    start.lines.append(text)
    start.size += len(text)
    if same is not None:
        start.same = len(start.lines)
    if len(start.lines) > _LINES or start.size > _TEXT:
        start.over, start.same = True, None
        start.lines, start.size = [], 0
    return [event]
