"""One forwarded port: who waits, which pod is dialled and when, what happens when it is replaced.

Everything runs in the loop's thread. The route never decides what is ready: it believes its
`BackendChooser`, and what its own dials meet.
"""

from __future__ import annotations

import collections
import contextlib
import selectors
import time
from typing import TYPE_CHECKING, Literal, Protocol

from devloop.port_forward.backends import BackendChooser

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from devloop.base.cancel import Cancel
    from devloop.model import PodView
    from devloop.port_forward.client_connection import ClientConnection
    from devloop.port_forward.dialer import Dialer
    from devloop.port_forward.event_loop import Loop
    from devloop.port_forward.ports import Duplex

__all__ = ["ReportState", "Route"]

_DIAL = 10.0  # seconds a stream may take to open
# The pause between two tries: each costs the node something, so it is a multiple of what the last
# one took, and a part of the time that it has been in vain.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0  # seconds
_TIMES_ITS_COST = 3
_PART_OF_OUTAGE = 1 / 30
# For what part of the shortest of the last replacements nobody is dialled, and for how long at
# most: the node has its hands full with the new container meanwhile.
_SURE_TO_BE_GONE, _LONGEST_REST = 0.7, 0.5
_REPORT_AFTER = 2.0  # seconds in vain until the user hears why
_LAST_ANSWERS = 0.1  # seconds that a pod being deleted gets for what it was asked before
_OLD_PROCESS = 5.0  # seconds that one which is to be replaced gets to go
_QUIET = 0.008  # seconds in which most refusals come
_PROBE = 0.04  # seconds within which a port refuses if nobody listens
_PROBE_PAUSE = 0.03


class ReportState(Protocol):
    """Is told what state the route is in."""

    def __call__(
        self,
        route: Route,
        state: Literal["listening", "ready", "waiting", "closed"],
        *,
        pod: str = "",
        reason: str = "",
    ) -> None: ...


class Route:
    """Is the `Hub` of its connections."""

    def __init__(
        self,
        service: str,
        container: int,
        *,
        listeners: tuple[socket.socket, ...],
        loop: Loop,
        dialer: Dialer,
        report: ReportState,
        connect_timeout: float,
    ) -> None:
        self.service = service
        self.container = container
        self.listeners = listeners
        self.local: int = listeners[0].getsockname()[1]
        self.connections: set[ClientConnection] = set()
        self.likely: tuple[PodView, ...] = ()
        self.on_end: Callable[[], None] = lambda: None
        self.closing = False
        self.unsettled = False
        self._loop = loop
        self._dialer = dialer
        self._report = report
        self._connect_timeout = connect_timeout
        self._chooser = BackendChooser()
        self._target: PodView | None = None
        self._waiting: collections.deque[ClientConnection] = collections.deque()
        self._dialing: dict[ClientConnection, float] = {}
        self._failures = 0
        self._failing_since = 0.0
        self._failed_at = 0.0
        self._next_try = 0.0
        self._was_refused = False
        self._cost = 0.0  # seconds that the last dial took
        self._trial: ClientConnection | None = (
            None  # the one connection that tries whether it works again
        )
        self._going: float | None = None  # since when the target's old process is about to go
        self._replaced_at = 0.0  # when the one under way began
        self._took: collections.deque[float] = collections.deque(maxlen=3)  # seconds, the last ones
        self._probing = False
        self._deleting: frozenset[str] | set[str] = frozenset()
        self._epoch = 0  # connections of an earlier one may be attached to a process that is gone
        self._sweeping = False

    # --- Hub, as connection.Hub has it -----------------------------------------------------------

    def watch(self, thing: socket.socket | Duplex, mask: int, turn: Callable[[int], None]) -> None:
        self._loop.watch(thing, mask, turn)

    def at(self, seconds: float, turn: Callable[[], None]) -> None:
        self._loop.at(seconds, turn)

    def soon(self, turn: Callable[[], None]) -> None:
        self._loop.soon(turn)

    def trusted(self, connection: ClientConnection) -> None:
        if self._trial is connection:
            self._trial = None
        if not self._failures or connection.epoch != self._epoch:
            return
        refused = self._was_refused
        if refused and self._replaced_at:
            self._took.append(time.monotonic() - self._replaced_at)
            self._replaced_at = 0.0
        self._recovered()
        if refused:
            # Nobody listened and now somebody does: another process, which gets what the one
            # before it left unanswered.
            self._from_before(lambda older: older.retry_elsewhere())
        self.show_target()
        self._dispatch()

    def failed(self, connection: ClientConnection, reason: str, *, refused: bool) -> None:
        self._wait(connection, first=True)
        self._failure(connection, reason, refused=refused)

    def wants_backend(self, connection: ClientConnection) -> None:
        self._wait(connection)
        self._dispatch()

    def ended(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        self._dialing.pop(connection, None)
        with contextlib.suppress(ValueError):
            self._waiting.remove(connection)
        if self._trial is connection:
            self._trial = None
            self._dispatch()
        self.on_end()

    # --- clients come ----------------------------------------------------------------------

    def take(self, connection: ClientConnection) -> None:
        """Serve a client from now on."""
        self.connections.add(connection)
        self._wait(connection)
        self._dispatch()

    def _wait(self, connection: ClientConnection, *, first: bool = False) -> None:
        connection.waits_since = time.monotonic()
        if self._trial is connection:
            # It will not show any more whether it works again: another one has to.
            self._trial = None
        if first:
            self._waiting.appendleft(connection)
        else:
            self._waiting.append(connection)
        self._sweep_later()

    def _sweep_later(self) -> None:
        if self._waiting and not self._sweeping:
            self._sweeping = True
            self._loop.at(min(1.0, self._connect_timeout / 4), self._sweep)

    def _sweep(self) -> None:
        """Let go of clients that have waited for too long."""
        self._sweeping = False
        latest = time.monotonic() - self._connect_timeout
        for connection in tuple(self._waiting):
            if connection.waits_since < latest:
                connection.abort()
        self._sweep_later()

    # --- pods come and go ------------------------------------------------------------------

    def look(self, pods: Iterable[PodView]) -> None:
        """These are all the service's pods now."""
        pods = tuple(pods)
        sight = self._chooser.look(pods, time.monotonic())
        before, self._target = self._target, sight.target
        self.likely = sight.likely
        self._retry_deleting(pods)
        alive = {pod.uid for pod in pods}
        self._free(
            lambda connection: (
                bool(connection.pod) and connection.pod not in alive and connection.leave()
            )
        )
        target = sight.target
        if target is None:
            self._report(self, "waiting")
        elif before is None or before.uid != target.uid:
            self._turn_to(target)
        if target is not None:
            if target.uid in sight.replacing:
                self._old_is_going(target)
            elif target.uid in sight.replaced:
                self._old_has_gone(target)
        self._dispatch()

    def _retry_deleting(self, pods: Iterable[PodView]) -> None:
        """Who asked a pod that is being deleted asks its successor, where that is safe.

        The runtime would tell of the pod's end a second late."""
        deleting = {pod.uid for pod in pods if pod.deleting}
        fresh, self._deleting = deleting - self._deleting, deleting

        def enough() -> None:
            if self._target is not None:
                self._free(
                    lambda connection: connection.pod in fresh and connection.retry_elsewhere()
                )
                self._dispatch()

        if fresh:
            self._loop.at(_LAST_ANSWERS, enough)

    def _turn_to(self, target: PodView) -> None:
        """New requests go to another pod than before."""
        self._recovered()
        self._trial, self._going, self.unsettled = None, None, False
        self._replaced_at = 0.0
        # Whoever is answered by it must never hear from an older one again.
        self._free(lambda connection: connection.pod != target.uid and connection.release())
        self.show_target()

    def _old_is_going(self, target: PodView) -> None:
        """The node was told to replace the pod's process: nobody new is sent to the old one."""
        began = self._going = self._replaced_at = time.monotonic()
        self.unsettled = True
        self._epoch += 1
        self._free(lambda connection: connection.pod == target.uid and connection.release())
        if self._left_behind:
            self._probe(target)

        def enough() -> None:
            if self._going == began:
                self._going = None
                self._dispatch()

        self._loop.at(_OLD_PROCESS, enough)

    def _old_has_gone(self, target: PodView) -> None:
        """The pod's new container runs."""
        self._going, self.unsettled = None, False
        self._next_try = 0.0
        self._from_before(lambda connection: connection.pod == target.uid and connection.leave())

    @property
    def _left_behind(self) -> bool:
        """Whether somebody waits for an answer of a process that is to go, or gone."""
        return any(
            connection.alive and connection.pod and connection.epoch < self._epoch
            for connection in self.connections
        )

    def _from_before(self, free: Callable[[ClientConnection], bool]) -> None:
        self._free(lambda connection: connection.epoch < self._epoch and free(connection))

    def _free(self, free: Callable[[ClientConnection], bool]) -> None:
        """Have those wait for another stream that `free` has freed of theirs."""
        for connection in tuple(self.connections):
            if free(connection):
                self._wait(connection)

    def show_target(self) -> None:
        if self._target is not None:
            self._report(self, "ready", pod=self._target.name)

    # --- dialing ---------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Dial for those who wait: for all of them, or after a failure for one at a time."""
        while self._waiting and self._target is not None and not self.closing:
            if self._going is not None:
                self._probe(self._target)
                return
            if self._failures:
                if self._trial is not None or time.monotonic() < self._next_try:
                    return
                # One that has asked for something soon shows whether it gets an answer.
                self._trial = next((k for k in self._waiting if k.asks), self._waiting[0])
                self._waiting.remove(self._trial)
                self._dial(self._trial, self._target)
            else:
                self._dial(self._waiting.popleft(), self._target)

    def _dial(self, connection: ClientConnection, pod: PodView) -> None:
        began = self._dialing[connection] = time.monotonic()
        connection.epoch = self._epoch

        def arrived(result: Duplex | str) -> None:
            self._loop.call(lambda: self._dialed(connection, pod, result, began))

        cancel: Cancel = self._dialer.start(pod, self.container, arrived)
        self._loop.at(_DIAL, cancel.set)

    def _dialed(
        self, connection: ClientConnection, pod: PodView, result: Duplex | str, began: float
    ) -> None:
        self._cost = time.monotonic() - began
        wanted = connection.alive and self._dialing.get(connection) == began and not self.closing
        if not wanted:
            if not isinstance(result, str):
                result.close()
        elif self._target is None or self._target.uid != pod.uid or connection.epoch != self._epoch:
            # Another pod, or another process in it, is to be asked by now.
            if not isinstance(result, str):
                result.close()
            del self._dialing[connection]
            if self._trial is connection:
                self._trial = None
            self._waiting.appendleft(connection)
            self._dispatch()
        elif isinstance(result, str):
            self._waiting.appendleft(connection)
            self._failure(connection, result, refused=False)
        else:
            connection.attach(result, pod.uid, quiet=_QUIET if self._failures else 0.0)

    def _failure(self, connection: ClientConnection, reason: str, *, refused: bool) -> None:
        began = self._dialing.pop(connection, 0.0)
        if self._trial is connection:
            self._trial = None
        # Those who dialed in the same round learn the same thing; it counts once.
        if began >= self._failed_at:
            self._failed_once(reason, refused=refused)
        self._dispatch()

    def _failed_once(self, reason: str, *, refused: bool) -> None:
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        if refused and not self._was_refused:
            self._was_refused = True
            self._epoch += 1
        self._failures += 1
        self._failed_at = now
        in_vain = now - self._failing_since
        pause = max(_SHORTEST_PAUSE, in_vain * _PART_OF_OUTAGE, self._cost * _TIMES_ITS_COST)
        self._try_in(min(pause, _LONGEST_PAUSE))
        if in_vain >= _REPORT_AFTER and self._target is not None:
            self._report(self, "waiting", pod=self._target.name, reason=reason)

    def _try_in(self, pause: float) -> None:
        now = time.monotonic()
        if self._replaced_at and self._took:
            rest = min(_SURE_TO_BE_GONE * min(self._took), _LONGEST_REST)
            pause = max(pause, self._replaced_at + rest - now)
        self._next_try = now + pause
        self._loop.at(pause, self._dispatch)

    def _recovered(self) -> None:
        self._failures, self._next_try, self._was_refused = 0, 0.0, False

    # --- has the old process gone? ---------------------------------------------------------

    def _probe(self, pod: PodView) -> None:
        """Connect and send nothing while the old process may still answer, until nobody does."""
        if self._probing:
            return
        self._probing = True
        going = self._going

        def seen(result: Duplex | str) -> None:
            self._loop.call(lambda: self._probe_connected(result, going))

        cancel = self._dialer.start(pod, self.container, seen)
        self._loop.at(_DIAL, cancel.set)

    def _probe_again(self) -> None:
        if self._going is not None and self._target is not None and self._left_behind:
            self._probe(self._target)
        else:
            self._dispatch()

    def _probe_connected(self, result: Duplex | str, going: float | None) -> None:
        if isinstance(result, str):
            self._probed(going, refused=False)
            return
        stream = result
        if self.closing:
            stream.close()
            return
        told = False

        def over(*, refused: bool) -> None:
            nonlocal told
            if not told:
                told = True
                self._loop.watch(stream, 0, read)
                stream.close()
                self._probed(going, refused=refused)

        def read(_mask: int) -> None:
            if told:
                return
            try:
                if stream.receive() is not None:
                    over(refused=False)
            except ConnectionRefusedError:
                over(refused=True)
            except OSError:
                over(refused=False)

        self._loop.watch(stream, selectors.EVENT_READ, read)
        self._loop.at(_PROBE, lambda: over(refused=False))
        read(0)

    def _probed(self, going: float | None, *, refused: bool) -> None:
        self._probing = False
        if self._going is None or self._going != going:
            self._dispatch()
        elif refused:
            self._going = None
            # Nobody listens any more: what the old process has not answered it never will, and
            # the runtime tells of its end a second late.
            self._from_before(lambda connection: connection.retry_elsewhere())
            self._failing_since = self._failed_at = time.monotonic()
            self._failures, self._was_refused = 1, True
            self._try_in(_SHORTEST_PAUSE)
        else:
            self._loop.at(_PROBE_PAUSE, self._probe_again)
