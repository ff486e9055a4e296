"""Where the watchers' threads leave what they noticed, for the one thread that makes hints of it.

It merges instead of queueing: however long nobody looks, it keeps each path once, and beyond a
limit only the fact that too much happened.
"""

from __future__ import annotations

import threading
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable


ADDED = 1
MODIFIED = 2
DELETED = 3

# More than this at once is a checkout or an install: to look at everything is cheaper than to look
# at each.
_MANY = 1000


class FileEvent(NamedTuple):
    """What a watcher noticed of one absolute path. `whole`: the file was closed after writing, or
    put in place as it is; False: it may just have been begun; None: not known."""

    kind: int
    path: str
    whole: bool | None = False


@dataclass(slots=True)
class BufferedEvents:
    """Changes since the last look, each a kind and a path. For the paths in `whole` and
    `unfinished` that is what their last event was; those in `begun` were created instead of put in
    place. `many`: some may be missing; `fault` is what a watcher died of."""

    changes: set[tuple[int, str]] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    many: bool = False
    fault: BaseException | None = None


class EventBuffer:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._found = BufferedEvents()
        self._full = False

    def put(self, events: Iterable[FileEvent], *, many: bool = False) -> None:
        """`many`: besides `events`, something was left out."""
        with self._changed:
            found = self._found
            for kind, path, whole in events:
                found.changes.add((kind, path))
                if whole:
                    found.whole.add(path)
                    found.unfinished.discard(path)
                elif whole is not None:
                    found.unfinished.add(path)
                    found.whole.discard(path)
                    if kind == ADDED:
                        found.begun.add(path)
            found.many |= many
            if len(found.changes) > _MANY:
                self._found = BufferedEvents(many=True, fault=found.fault)
            self._notify()

    def fail(self, fault: BaseException) -> None:
        """A watcher died of `fault`; no more events come from it."""
        with self._changed:
            self._found.fault = fault
            self._notify()

    def wake(self) -> None:
        """End a `take` that waits."""
        with self._changed:
            self._notify()

    def take(self, seconds: float) -> BufferedEvents:
        """What is there; waits up to `seconds` for something."""
        with self._changed:
            if not self._full and seconds > 0:
                self._changed.wait(seconds)
            found, self._found, self._full = self._found, BufferedEvents(), False
            return found

    def _notify(self) -> None:
        self._full = True
        self._changed.notify()
