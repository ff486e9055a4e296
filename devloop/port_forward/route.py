"""One forwarded port: who waits, which pod is dialled and when, what happens when it is replaced.

Everything runs in the loop's thread. The route never decides what is ready: it believes its
`BackendChooser`, and what its own dials meet.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from typing import TYPE_CHECKING, Literal

from devloop.events import ForwardChanged
from devloop.port_forward.backends import BackendChooser
from devloop.port_forward.client_connection import ClientConnection
from devloop.port_forward.event_loop import Timers
from devloop.port_forward.outage import OldProcess, Outage, ProcessReplacement
from devloop.port_forward.pod_stream import await_refusal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from devloop.base.sockets import Socket
    from devloop.events import Event
    from devloop.model import PodView
    from devloop.port_forward.dialer import Dialer
    from devloop.port_forward.ports import Duplex
    from devloop.port_forward.settings import ForwardSettings


_State = Literal["listening", "ready", "waiting", "closed"]


class Route:
    """Owns the clients of one port; `backend` is whose pods have it, the service's by default.
    `likely` are the pods that may be dialled next; `process` is that of the pod which is asked now;
    `on_end` is called after a client has gone."""

    def __init__(
        self,
        service: str,
        local: int,
        container: int | str,
        *,
        backend: str = "",
        loop: asyncio.AbstractEventLoop,
        dialer: Dialer,
        publish: Callable[[Event], None],
        on_end: Callable[[], None],
        settings: ForwardSettings,
    ) -> None:
        self.service = service
        self.backend = backend or service
        self._container = container
        self._event = functools.partial(
            ForwardChanged, service=service, local=local, port=container
        )
        self.connections: set[ClientConnection] = set()
        self.likely: tuple[PodView, ...] = ()
        self._on_end = on_end
        self._closing = False
        self._loop = loop
        self._timers = Timers(loop)
        self._dialer = dialer
        self._publish = publish
        self._reported: ForwardChanged | None = None
        self._settings = settings
        self._chooser = BackendChooser()
        self._target: PodView | None = None
        self._waiting: collections.deque[ClientConnection] = collections.deque()
        self._dialing: dict[ClientConnection, float] = {}
        self._outage = Outage(settings)
        self.process = ProcessReplacement(settings)
        self._end_probe: Callable[[], None] = lambda: None
        self._deleting: set[str] = set()

    def close(self, reason: str) -> None:
        """Reset all clients; streams that still arrive are closed."""
        self._closing = True
        self._end_probe()
        for connection in tuple(self.connections):
            connection.abort()
        self.report("closed", reason=reason)

    def report(self, state: _State, *, pod: str = "", reason: str = "") -> None:
        event = self._event(state=state, pod=pod, reason=reason)
        if event != self._reported:
            self._reported = event
            self._publish(event)

    # --- what connections report -----------------------------------------------------------

    def trusted(self, connection: ClientConnection) -> None:
        """The connection's stream leads somewhere."""
        self._outage.end_trial(connection)
        if not self._outage or connection.epoch != self.process.epoch:
            return
        refused = self._outage.refused
        self._outage.over()
        if refused:
            self.process.answered(self._loop.time())
            # Nobody listened and now somebody does: another process, which gets what the one
            # before it left unanswered.
            self._free_left_behind(ClientConnection.retry_elsewhere)
        self._report_target()
        self._dispatch()

    def failed(self, connection: ClientConnection, reason: str, *, refused: bool) -> None:
        """The connection's stream led nowhere, nothing is lost, it waits for another one.
        `refused`: nobody listened on the port."""
        self._wait(connection, first=True)
        self._dial_failed(connection, reason, refused=refused)

    def wants_backend(self, connection: ClientConnection) -> None:
        """The connection was parked and its client has sent another request."""
        self._wait(connection)
        self._dispatch()

    def ended(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        self._dialing.pop(connection, None)
        with contextlib.suppress(ValueError):
            self._waiting.remove(connection)
        if self._outage.end_trial(connection):
            self._dispatch()
        self._on_end()

    # --- clients come ----------------------------------------------------------------------

    def take(self, client: Socket) -> None:
        """Serve a client from now on."""
        connection = ClientConnection(self, client, self._loop, self._settings)
        self.connections.add(connection)
        self._wait(connection)
        self._dispatch()

    def _wait(self, connection: ClientConnection, *, first: bool = False) -> None:
        connection.wait()
        # It will not show any more whether it works again: another one has to.
        self._outage.end_trial(connection)
        if first:
            self._waiting.appendleft(connection)
        else:
            self._waiting.append(connection)

    # --- pods come and go ------------------------------------------------------------------

    def look(self, pods: Iterable[PodView]) -> None:
        """These are all the service's pods now."""
        pods = tuple(pods)
        view = self._chooser.look(pods, self._loop.time())
        before, target = self._target, view.target
        self._target = target
        self.likely = view.likely
        self._free_deleting(pods)
        alive = {pod.uid for pod in pods}
        self._free(lambda c: bool(c.pod) and c.pod not in alive and c.leave())
        if target is None:
            self.report("waiting")
        elif before is None or before.uid != target.uid:
            self._turn_to(target)
        if target is not None:
            if target.uid in view.replacing:
                self._process_is_going(target)
            elif target.uid in view.replaced:
                self._process_was_replaced(target)
        self._dispatch()

    def _free_deleting(self, pods: Iterable[PodView]) -> None:
        """Who asked a pod that is being deleted asks its successor, where that is safe.

        The runtime would report the pod's end a second late."""
        deleting = {pod.uid for pod in pods if pod.deleting}
        fresh, self._deleting = deleting - self._deleting, deleting

        def enough() -> None:
            if self._target is not None:
                self._free(lambda c: c.pod in fresh and c.retry_elsewhere())
                self._dispatch()

        if fresh:
            self._loop.call_later(self._settings.delete_grace, enough)

    def _turn_to(self, target: PodView) -> None:
        """New requests go to another pod than before."""
        self._outage.over()
        self._outage.trial = None
        self.process.reset()
        # Whoever is answered by it must never get an answer of an older one again.
        self._free(lambda c: c.pod != target.uid and c.release())
        self._report_target()

    def _process_is_going(self, target: PodView) -> None:
        """The pod asks for another image: nobody new is sent to its old process."""
        began = self._loop.time()
        self.process.begin(began)
        self._free(lambda c: c.pod == target.uid and c.release())
        if self._is_anybody_left_behind:
            self._probe(target)

        def enough() -> None:
            if self.process.is_overdue(began):
                self._dispatch()

        self._loop.call_later(self._settings.old_process_timeout, enough)

    def _process_was_replaced(self, target: PodView) -> None:
        """The pod's new container runs."""
        self.process.container_reported()
        self._outage.resting = False
        self._free_left_behind(lambda c: c.pod == target.uid and c.leave())

    @property
    def _is_anybody_left_behind(self) -> bool:
        """Whether somebody waits for an answer of a process that is to go, or gone."""
        return any(c.pod and c.epoch < self.process.epoch for c in self.connections)

    def _free_left_behind(self, free: Callable[[ClientConnection], object]) -> None:
        self._free(lambda c: c.epoch < self.process.epoch and free(c))

    def _free(self, free: Callable[[ClientConnection], object]) -> None:
        """Have those wait for another stream that `free` has freed of theirs."""
        for connection in tuple(self.connections):
            if free(connection):
                self._wait(connection)

    def _report_target(self) -> None:
        if self._target is not None:
            self.report("ready", pod=self._target.name)

    # --- dialing ---------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Dial for those who wait: for all of them, or after a failure for one at a time."""
        while self._waiting and self._target is not None and not self._closing:
            if self.process.is_going:
                self._probe(self._target)
                return
            if not self._outage.allows_dial():
                return
            connection = self._waiting[0]
            if self._outage:
                # One that has asked for something soon shows whether it gets an answer.
                connection = next((c for c in self._waiting if c.asks), connection)
                self._outage.trial = connection
            self._waiting.remove(connection)
            began = self._dialing[connection] = self._loop.time()
            connection.epoch = self.process.epoch
            self._open(
                self._target, functools.partial(self._dialed, connection, self._target, began)
            )

    def _open(self, pod: PodView, opened: Callable[[Duplex | str], None]) -> None:
        """Open a stream to `pod`; `opened` gets it, or why there is none."""

        def arrived(result: Duplex | str) -> None:
            try:
                self._loop.call_soon_threadsafe(finish, result)
            except RuntimeError:  # the loop was closed meanwhile
                if not isinstance(result, str):
                    result.close()

        def finish(result: Duplex | str) -> None:
            timer.cancel()
            if not self._closing:
                opened(result)
            elif not isinstance(result, str):
                result.close()

        cancel = self._dialer.start(pod, self._container, arrived)
        timer = self._loop.call_later(self._settings.dial_timeout, cancel.set)

    def _dialed(
        self, connection: ClientConnection, pod: PodView, began: float, result: Duplex | str
    ) -> None:
        self._outage.cost = self._loop.time() - began
        wanted = connection.alive and self._dialing.get(connection) == began
        # Another pod, or another process in it, may be the one to ask by now.
        current = (
            self._target is not None
            and self._target.uid == pod.uid
            and connection.epoch == self.process.epoch
        )
        if not isinstance(result, str):
            if wanted and current:
                quiet = self._settings.quiet if self._outage else 0.0
                connection.attach(result, pod.uid, quiet=quiet)
                return
            result.close()
        if not wanted:
            return
        self._waiting.appendleft(connection)
        if current and isinstance(result, str):
            self._dial_failed(connection, result, refused=False)
            return
        del self._dialing[connection]
        self._outage.end_trial(connection)
        self._dispatch()

    def _dial_failed(self, connection: ClientConnection, reason: str, *, refused: bool) -> None:
        began = self._dialing.pop(connection, 0.0)
        self._outage.end_trial(connection)
        now = self._loop.time()
        first_refusal = refused and not self._outage.refused
        pause = self._outage.failed(now, began=began, refused=refused)
        if pause is not None:
            if first_refusal:
                self.process.epoch += 1  # whoever listens next is another process
            self._try_in(pause)
            if self._outage.lasted(now) >= self._settings.report_after and self._target is not None:
                self.report("waiting", pod=self._target.name, reason=reason)
        self._dispatch()

    def _try_in(self, pause: float) -> None:
        self._outage.resting = True
        pause = max(pause, self.process.rest_until - self._loop.time())
        self._timers.after(pause, self._end_rest)

    def _end_rest(self) -> None:
        # By the clock it may not be over: a loop calls back up to a tick of its clock early.
        self._outage.resting = False
        self._dispatch()

    # --- has the old process gone? ---------------------------------------------------------

    def _probe(self, pod: PodView) -> None:
        """Connect and send nothing while the old process may still answer, until nobody does."""
        began = self.process.start_probe()
        if began is None:
            return

        def opened(result: Duplex | str) -> None:
            if isinstance(result, str):
                probed(False)
                return
            seconds = self._settings.probe_timeout
            self._end_probe = await_refusal(self._loop, result, seconds, probed)

        def probed(refused: bool) -> None:
            self._probed(self.process.probed(began, refused=refused))

        self._open(pod, opened)

    def _probe_again(self) -> None:
        if self.process.is_going and self._target is not None and self._is_anybody_left_behind:
            self._probe(self._target)
        else:
            self._dispatch()

    def _probed(self, old: OldProcess) -> None:
        if old is OldProcess.IRRELEVANT:
            self._dispatch()
        elif old is OldProcess.LISTENS:
            self._loop.call_later(self._settings.probe_pause, self._probe_again)
        else:
            # Nobody listens any more: what the old process has not answered it never will, and
            # the runtime reports its end a second late.
            self._free_left_behind(ClientConnection.retry_elsewhere)
            self._outage.begin(self._loop.time())
            self._try_in(self._settings.shortest_pause)
