"""Where the watchers' threads leave what they noticed, for the one thread that makes hints of it.

It merges instead of queueing: however long nobody looks, it holds each path once, and beyond a
limit only the fact that too much happened.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Mail", "Mailbox"]

# More than this at once is a checkout or an install, and inotify's queue (16,384 events) may have
# overflowed: watchfiles drops the kernel's word of that, so the size is the only sign.
_MANY = 1000


@dataclass(slots=True)
class Mail:
    """Changes since the last look: (kind, absolute path), where a kind is watchfiles' `Change`: 1
    added, 2 modified, 3 deleted. `many` says that some may be missing,
    `fault` that a watcher died."""

    changes: set[tuple[int, str]] = field(default_factory=set)
    many: bool = False
    fault: Exception | None = None
    woken: bool = False


class Mailbox:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._mail = Mail()
        self._full = False

    def put(self, changes: Iterable[tuple[int, str]]) -> None:
        with self._changed:
            mail = self._mail
            mail.changes.update(changes)
            if len(mail.changes) > _MANY:
                mail.many = True
                mail.changes.clear()
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

    def take(self, seconds: float) -> Mail:
        """What is there; waits up to `seconds` for something."""
        with self._changed:
            if not self._full and seconds > 0:
                self._changed.wait(seconds)
            mail, self._mail, self._full = self._mail, Mail(), False
            return mail

    def _notify(self) -> None:
        self._full = True
        self._changed.notify()
