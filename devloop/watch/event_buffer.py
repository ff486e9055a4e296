"""Where the watchers' threads leave what they noticed, for the one thread that makes hints of it.

It merges instead of queueing: however long nobody looks, it holds each path once, and beyond a
limit only the fact that too much happened.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ADDED", "DELETED", "MODIFIED", "BufferedEvents", "EventBuffer", "FileEvent"]

ADDED = 1
MODIFIED = 2
DELETED = 3

# More than this at once is a checkout or an install: to look at everything is cheaper than to look
# at each.
_MANY = 1000


class FileEvent(NamedTuple):
    """What a watcher says of one absolute path. `whole`: the file was closed after writing, or put
    in place as it is; False: it may just have been begun; None: no word on that."""

    kind: int
    path: str
    whole: bool | None = False


@dataclass(slots=True)
class BufferedEvents:
    """Changes since the last look, each a kind and a path. Of the paths in `whole` and `unfinished`
    that was the last word; those in `begun` were made anew instead of put in place. `many` says
    that some may be missing, `fault` that a watcher died."""

    changes: set[tuple[int, str]] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    many: bool = False
    fault: Exception | None = None
    woken: bool = False


class EventBuffer:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._mail = BufferedEvents()
        self._full = False

    def put(self, words: Iterable[FileEvent], *, many: bool = False) -> None:
        """`many`: besides `words`, something was left out."""
        with self._changed:
            mail = self._mail
            for kind, path, whole in words:
                mail.changes.add((kind, path))
                if whole:
                    mail.whole.add(path)
                    mail.unfinished.discard(path)
                elif whole is not None:
                    mail.unfinished.add(path)
                    mail.whole.discard(path)
                    if kind == ADDED:
                        mail.begun.add(path)
            mail.many |= many
            if len(mail.changes) > _MANY:
                mail.many = True
                mail.changes.clear()
                mail.whole.clear()
                mail.unfinished.clear()
                mail.begun.clear()
            self._notify()

    def fail(self, fault: Exception) -> None:
        """A watcher died of `fault`; it says no more."""
        with self._changed:
            self._mail.fault = fault
            self._notify()

    def wake(self) -> None:
        """End a `take` that waits."""
        with self._changed:
            self._mail.woken = True
            self._notify()

    def take(self, seconds: float) -> BufferedEvents:
        """What is there; waits up to `seconds` for something."""
        with self._changed:
            if not self._full and seconds > 0:
                self._changed.wait(seconds)
            mail, self._mail, self._full = self._mail, BufferedEvents(), False
            return mail

    def _notify(self) -> None:
        self._full = True
        self._changed.notify()
