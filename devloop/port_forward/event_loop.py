"""What sockets and timers need on the asyncio loop that all forwarded ports share.

The loop runs in one thread of its own and everything here belongs to that thread. Knows nothing of
pods or clients.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar, cast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


_LOG = logging.getLogger(__name__)

P = ParamSpec("P")


class _Abortable(Protocol):
    def abort(self) -> None: ...


A = TypeVar("A", bound=_Abortable)


def isolated(method: Callable[Concatenate[A, P], bool | None]) -> Callable[Concatenate[A, P], bool]:
    """A bug met in `method` aborts the object that it belongs to instead of ending the loop."""

    @functools.wraps(method)
    def call(self: A, *args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            return bool(method(self, *args, **kwargs))
        except Exception:  # noqa: BLE001 - one client's bug is not the others'
            _LOG.exception("a bug in devloop: a forwarded connection is reset")
            self.abort()
            return False

    return cast("Callable[Concatenate[A, P], bool]", call)


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
