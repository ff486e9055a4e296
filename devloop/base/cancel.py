"""Telling a worker to stop, in a way that also wakes it from a blocking call."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Cancel", "Cancelled"]


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Raised by a worker whose `Cancel` was set; never shown to a user."""


class Cancel:
    """A one-way switch handed to every worker.

    A worker that blocks registers how to unblock itself with `closing`: kill the process group,
    shut the socket. The callbacks run once, in the thread that calls `set`, and must not block.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            # A resource that is closed already is what the caller wanted.
            with contextlib.suppress(OSError, ValueError):
                callback()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep for at most `seconds`; True when cancelled meanwhile."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise `Cancelled` when set; for loops between two blocking calls."""
        if self._event.is_set():
            raise Cancelled

    @contextlib.contextmanager
    def closing(self, callback: Callable[[], None]) -> Iterator[None]:
        """Run `callback` if `set` is called inside the block (at once if it already was)."""
        with self._lock:
            fired = self._event.is_set()
            if not fired:
                self._callbacks.append(callback)
        if fired:
            with contextlib.suppress(OSError, ValueError):
                callback()
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._callbacks.remove(callback)
