"""One thread that waits for many sockets and timers. Knows nothing of pods or clients."""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import selectors
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.port_forward.ports import Duplex

__all__ = ["Loop"]


class Loop:
    """`call` and `wake` are for any thread, the rest for the one that runs `once`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._masks: dict[int, int] = {}
        self._selector.register(self._wake_end, selectors.EVENT_READ, self._woken)

    def once(self) -> None:
        """Wait for something to do and do it."""
        timeout: float | None = None
        if self._soon or self._calls:
            timeout = 0.0
        elif self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for key, mask in self._selector.select(timeout):
            # An earlier turn of this round may have closed it and given its number to another.
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data == key.data:
                key.data(mask)
        soon, self._soon = self._soon, []
        for turn in soon:
            turn()
        self.drain()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def drain(self) -> None:
        """Do what other threads asked for."""
        while self._calls:
            self._calls.popleft()()

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_end.recv(4096)

    def wake(self) -> None:
        # A full buffer wakes as well; a closed socket has nobody left to wake.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def call(self, turn: Callable[[], None]) -> None:
        """Have the loop's thread call `turn`."""
        self._calls.append(turn)
        self.wake()

    def watch(self, thing: socket.socket | Duplex, mask: int, turn: Callable[[int], None]) -> None:
        """Call `turn` with what `thing` is ready for; a mask of 0 ends that."""
        fd = thing.fileno()
        before = self._masks.get(fd, 0)
        if mask == before:
            return
        if not mask:
            self._selector.unregister(fd)
            del self._masks[fd]
            return
        if before:
            self._selector.modify(fd, mask, turn)
        else:
            self._selector.register(fd, mask, turn)
        self._masks[fd] = mask

    def at(self, seconds: float, turn: Callable[[], None]) -> None:
        """Call `turn` once, `seconds` from now."""
        entry = (time.monotonic() + seconds, next(self._numbers), turn)
        heapq.heappush(self._timers, entry)

    def soon(self, turn: Callable[[], None]) -> None:
        """Call `turn` once after all others had theirs."""
        self._soon.append(turn)

    def close(self) -> None:
        self._selector.close()
        self._waker.close()
        self._wake_end.close()
