"""Telling a worker to stop, in a way that also wakes it from a blocking call."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Raised by a worker whose `Cancel` was set; never shown to a user."""


class Checks(Protocol):
    """What long work calls again and again."""

    def check(self) -> None:
        """Raise `Cancelled` when it is to end."""
        ...


class Cancel:
    """A one-way switch handed to every worker.

    A worker that blocks registers how to unblock itself with `closing`: kill the process group,
    shut the socket. The callbacks run once, in the thread that calls `set`, and must not block."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._changed = threading.Condition()
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._setter: int | None = None  # the thread that calls the callbacks
        self._running: object = None  # the key of the one that it is calling

    def set(self) -> None:
        with self._changed:
            if self._event.is_set():
                return
            self._event.set()
            self._setter = threading.get_ident()
        while (callback := self._next()) is not None:
            try:
                _run(callback)
            finally:
                with self._changed:
                    self._running = None
                    self._changed.notify_all()

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
    def closing(self, callback: Callable[[], object]) -> Iterator[None]:
        """Run `callback` if `set` is called inside the block (at once if it already was).

        It neither runs nor begins to run after the block, so what it acts on (a file descriptor, a
        process group) may be given back there. The block must not be left with a lock held that
        the callback takes."""
        key = object()
        with self._changed:
            fired = self._event.is_set()
            if not fired:
                self._callbacks[key] = callback
        if fired:
            _run(callback)
        try:
            yield
        finally:
            with self._changed:
                if self._callbacks.pop(key, None) is None:
                    # A callback that itself leaves the block must not wait for its own end.
                    own = self._setter == threading.get_ident()
                    self._changed.wait_for(lambda: own or self._running is not key)

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            for key in self._callbacks:
                self._running = key
                return self._callbacks.pop(key)
        return None


def _run(callback: Callable[[], object]) -> None:
    # A resource that is closed already is what the caller wanted.
    with contextlib.suppress(OSError, ValueError):
        callback()
