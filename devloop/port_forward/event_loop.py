"""What sockets and timers need on the asyncio loop that all forwarded ports share.

The loop runs in one thread of its own and everything here belongs to that thread. Knows nothing of
pods.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from devloop.port_forward.client_connection import ClientConnection


_LOG = logging.getLogger(__name__)

C = TypeVar("C", bound="ClientConnection")
P = ParamSpec("P")
T = TypeVar("T")


def isolated(method: Callable[Concatenate[C, P], T]) -> Callable[Concatenate[C, P], T | None]:
    """A bug met in `method` resets the connection that it belongs to instead of ending the loop."""

    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return method(self, *args, **kwargs)
        except Exception:  # noqa: BLE001 - one client's bug is not the others'
            _LOG.exception("a bug in devloop: a forwarded connection is reset")
            self.abort()
            return None

    return call


class SocketEvents:
    """Asks the loop for what is wanted of one descriptor and no more. `stop` before it is
    closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        on_readable: Callable[[], object],
        on_writable: Callable[[], object] = lambda: None,
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._on_readable = on_readable
        self._on_writable = on_writable
        self._read = self._write = False

    def want(self, *, read: bool, write: bool = False) -> None:
        """Call `on_readable` and `on_writable` as long as the descriptor is."""
        if read != self._read:
            self._read = read
            if read:
                self._loop.add_reader(self._fd, self._on_readable)
            else:
                self._loop.remove_reader(self._fd)
        if write != self._write:
            self._write = write
            if write:
                self._loop.add_writer(self._fd, self._on_writable)
            else:
                self._loop.remove_writer(self._fd)

    def stop(self) -> None:
        self.want(read=False)


class Timers:
    """Callbacks that are due later, at most one of each kind."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handles: dict[Callable[[], object], asyncio.TimerHandle] = {}

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call `callback` then; takes the place of an earlier wish for the same."""
        if (handle := self._handles.get(callback)) is not None:
            handle.cancel()
        self._handles[callback] = self._loop.call_later(seconds, callback)

    def clear(self) -> None:
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
