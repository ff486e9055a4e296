"""The front door: local ports that stay open for a whole session while pods come and go.

One thread owns every socket; a few more only open streams. A connection that comes while no pod
is ready is held and handed to the newest ready one. The door never decides what is ready: it
believes its `PodSource`.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Literal

from devloop.events import ForwardChanged
from devloop.forward.choose import choose
from devloop.forward.dialer import Dialer
from devloop.forward.link import Link
from devloop.forward.listeners import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.engine.cancel import Cancel
    from devloop.events import Event
    from devloop.forward.ports import Dial, Duplex, PodSource
    from devloop.model import PodView

__all__ = ["FrontDoor"]

_HOLD = 60.0  # seconds a client is kept waiting for a pod
_DIAL = 10.0  # seconds a stream may take to open
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries; each costs the kubelet work
_TELL_AFTER = 3  # failed rounds until the user hears why
_MOST_LINKS = 1024
_CROWDED = 0.2  # seconds without accepting when there are no descriptors left
_CLOSE = 0.3  # seconds


class _Door:
    """One forwarded port: its listeners, who waits, and how dialing has gone lately."""

    def __init__(self, service: str, container: int, listeners: tuple[socket.socket, ...]) -> None:
        self.service = service
        self.container = container
        self.listeners = listeners
        self.local: int = listeners[0].getsockname()[1]
        self.target: PodView | None = None
        self.waiting: collections.deque[Link] = collections.deque()
        self.links: set[Link] = set()
        self.dialing: dict[Link, float] = {}
        self.failed_rounds = 0
        self.failed_at = 0.0
        self.next_try = 0.0
        self.trial: Link | None = None  # the one connection that tries whether it works again
        self.sweeping = False
        self.told: tuple[str, str, str] = ("", "", "")


class FrontDoor:
    """Forwards local ports to the newest ready pod of their service.

    `ports` are (service, local port, container port); local 0 takes any free one. `publish` is
    called in the door's thread and must not block. Call `start`, then `close` once."""

    def __init__(
        self,
        ports: Sequence[tuple[str, int, int]],
        dial: Dial,
        pods: PodSource,
        publish: Callable[[Event], None],
        *,
        hold: float = _HOLD,
    ) -> None:
        self._wanted = tuple(ports)
        self._pods = pods
        self._publish = publish
        self._hold = hold
        self._dialer = Dialer(dial)
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._doors: list[_Door] = []
        self._owner: dict[Link, _Door] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._masks: dict[int, int] = {}
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._closing = False
        self._accepting = True

    @property
    def locals(self) -> tuple[int, ...]:
        """The local ports in the order of `ports`, known after `start`."""
        return tuple(door.local for door in self._doors)

    def start(self) -> None:
        """Open all listeners, or none. Errors: env/port-busy naming the owner."""
        self._wake_end.setblocking(False)
        self._waker.setblocking(False)
        try:
            for service, local, container in self._wanted:
                self._doors.append(_Door(service, container, listen(local)))
        except BaseException:
            self._release()
            raise
        self._selector.register(self._wake_end, selectors.EVENT_READ, self._woken)
        self._thread = threading.Thread(target=self._run, name="devloop-forward", daemon=True)
        self._thread.start()
        self._unsubscribe = self._pods.on_change(lambda: self._call(self._look))

    def close(self) -> None:
        """Reset what is open, close the ports; takes at most about 300 ms. Safe to repeat."""
        deadline = time.monotonic() + _CLOSE
        self._unsubscribe()
        if self._thread is None:
            self._release()
            return
        self._closing = True
        self._wake()
        self._thread.join(_CLOSE)
        self._dialer.close(max(0.05, deadline - time.monotonic()))
        self._drop_late_streams()

    # --- the loop --------------------------------------------------------------------------

    def _run(self) -> None:
        reason = ""
        try:
            for door in self._doors:
                self._tell(door, "listening")
            self._accept_on(True)
            self._look()
            while not self._closing:
                self._once()
        except Exception as error:  # noqa: BLE001 - a front door that died silently is worse
            reason = f"a bug in devloop: {error!r}"
        finally:
            for link in tuple(self._owner):
                link.abort()
            for door in self._doors:
                self._tell(door, "closed", reason=reason)
            self._release()

    def _once(self) -> None:
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
        while self._calls:
            self._calls.popleft()()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_end.recv(4096)

    def _wake(self) -> None:
        # A full buffer wakes as well; a closed socket has nobody left to wake.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _call(self, turn: Callable[[], None]) -> None:
        """Have the loop's thread call `turn`; from any thread."""
        self._calls.append(turn)
        self._wake()

    def _release(self) -> None:
        for door in self._doors:
            for listener in door.listeners:
                listener.close()
        self._selector.close()
        self._waker.close()
        self._wake_end.close()

    def _drop_late_streams(self) -> None:
        while self._calls:
            self._calls.popleft()()

    # --- what links ask for (see link.Hub) -------------------------------------------------

    def watch(self, thing: socket.socket | Duplex, mask: int, turn: Callable[[int], None]) -> None:
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
        entry = (time.monotonic() + seconds, next(self._numbers), turn)
        heapq.heappush(self._timers, entry)

    def soon(self, turn: Callable[[], None]) -> None:
        self._soon.append(turn)

    def trusted(self, link: Link) -> None:
        door = self._owner[link]
        if door.trial is link:
            door.trial = None
        if door.failed_rounds:
            door.failed_rounds, door.next_try = 0, 0.0
            self._show_target(door)
            self._dispatch(door)

    def refused(self, link: Link, reason: str) -> None:
        door = self._owner[link]
        door.waiting.appendleft(link)
        self._failed(door, link, reason)

    def ended(self, link: Link) -> None:
        door = self._owner.pop(link)
        door.links.discard(link)
        door.dialing.pop(link, None)
        with contextlib.suppress(ValueError):
            door.waiting.remove(link)
        if door.trial is link:
            door.trial = None
            self._dispatch(door)
        if not self._accepting and not self._closing and len(self._owner) < _MOST_LINKS:
            self._accept_on(True)

    # --- clients come ----------------------------------------------------------------------

    def _accept_on(self, wanted: bool) -> None:
        self._accepting = wanted
        for door in self._doors:
            for listener in door.listeners:
                mask = selectors.EVENT_READ if wanted else 0
                self.watch(listener, mask, lambda _m, d=door, s=listener: self._accept(d, s))  # type: ignore[misc]

    def _accept(self, door: _Door, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            # No descriptors left: clients wait in the kernel's queue meanwhile.
            self._accept_on(False)
            self.at(_CROWDED, lambda: self._accept_on(True))
            return
        link = Link(self, client)
        self._owner[link] = door
        door.links.add(link)
        door.waiting.append(link)
        self._dispatch(door)
        self._sweep_later(door)
        if len(self._owner) >= _MOST_LINKS:
            self._accept_on(False)

    def _sweep_later(self, door: _Door) -> None:
        if door.waiting and not door.sweeping:
            door.sweeping = True
            self.at(min(1.0, self._hold / 4), lambda: self._sweep(door))

    def _sweep(self, door: _Door) -> None:
        """Let go of clients that have waited for too long."""
        door.sweeping = False
        latest = time.monotonic() - self._hold
        for link in tuple(door.waiting):
            if link.born < latest:
                link.abort()
        self._sweep_later(door)

    # --- pods come and go ------------------------------------------------------------------

    def _look(self) -> None:
        for door in self._doors:
            pods = self._pods.current(door.service)
            alive = {pod.uid for pod in pods}
            for link in tuple(door.links):
                if link.pod and link.pod not in alive:
                    link.leave("its pod is gone")
            target = choose(pods)
            before, door.target = door.target, target
            if target is None:
                self._tell(door, "waiting")
            elif before is None or before.uid != target.uid:
                door.failed_rounds, door.next_try, door.trial = 0, 0.0, None
                self._show_target(door)
            self._dispatch(door)

    def _show_target(self, door: _Door) -> None:
        if door.target is not None:
            self._tell(door, "ready", pod=door.target.name)

    def _dispatch(self, door: _Door) -> None:
        """Dial for those who wait: for all of them, or after a failure for one at a time."""
        while door.waiting and door.target is not None and not self._closing:
            if door.failed_rounds:
                if door.trial is not None or time.monotonic() < door.next_try:
                    return
                door.trial = door.waiting[0]
            self._dial(door, door.waiting.popleft(), door.target)

    def _dial(self, door: _Door, link: Link, pod: PodView) -> None:
        began = door.dialing[link] = time.monotonic()
        cancel: Cancel = self._dialer.start(
            pod,
            door.container,
            lambda result: self._arrived(door, link, pod, result, began),
        )
        self.at(_DIAL, cancel.set)

    def _arrived(
        self, door: _Door, link: Link, pod: PodView, result: Duplex | str, began: float
    ) -> None:
        """In a dialer's thread."""
        if self._closing and not isinstance(result, str):
            result.close()
        else:
            self._call(lambda: self._dialed(door, link, pod, result, began))

    def _dialed(
        self, door: _Door, link: Link, pod: PodView, result: Duplex | str, began: float
    ) -> None:
        wanted = link.alive and door.dialing.get(link) == began and not self._closing
        if isinstance(result, str):
            if wanted:
                door.waiting.appendleft(link)
                self._failed(door, link, result)
        elif wanted:
            link.join(result, pod.uid)
        else:
            result.close()

    def _failed(self, door: _Door, link: Link, reason: str) -> None:
        began = door.dialing.pop(link, 0.0)
        if door.trial is link:
            door.trial = None
        now = time.monotonic()
        # Those who dialed in the same round learn the same thing; it counts once.
        if began >= door.failed_at:
            pause = min(_FIRST_PAUSE * 2**door.failed_rounds, _LONGEST_PAUSE)
            door.failed_rounds += 1
            door.failed_at, door.next_try = now, now + pause
            self.at(pause, lambda: self._dispatch(door))
            if door.failed_rounds == _TELL_AFTER and door.target is not None:
                self._tell(door, "waiting", pod=door.target.name, reason=reason)
        self._dispatch(door)
        self._sweep_later(door)

    def _tell(
        self,
        door: _Door,
        state: Literal["listening", "ready", "waiting", "closed"],
        *,
        pod: str = "",
        reason: str = "",
    ) -> None:
        if door.told == (state, pod, reason):
            return
        door.told = (state, pod, reason)
        self._publish(
            ForwardChanged(
                service=door.service,
                local=door.local,
                port=door.container,
                state=state,
                pod=pod,
                reason=reason,
            )
        )
