"""Port forwarding: local ports that stay open for a whole session while pods come and go.

One thread owns every socket; a few more only open streams. A connection that comes while no pod
can answer waits for the next one that does. What is ready the `PodSource` decides, never this
module. An exception in one client's connection resets that connection; any other is a bug that
closes all ports and is handed to `on_bug`, so that the session does not go on without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

from devloop.base.threads import report_bug, supervised
from devloop.port_forward.dialer import Dialer
from devloop.port_forward.event_loop import SocketEvents
from devloop.port_forward.listeners import listen
from devloop.port_forward.route import Route
from devloop.port_forward.settings import ForwardSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from devloop.base.sockets import Socket
    from devloop.engine.ports import PodSource
    from devloop.events import Event
    from devloop.port_forward.ports import Dial


WantedPort: TypeAlias = "tuple[str, int, int] | tuple[str, int, int | str, str, str]"


class PortForwarder:
    """Forwards local ports to the newest pod of their service that can answer.

    `ports` are (service, local port, container port), or longer by the address to listen at ("" for
    loopback) and by whose pods to ask `pods` for; local 0 takes any free one. `publish` and
    `on_bug` are called in the forwarder's thread and must not block. Call `start`, then `close`
    once."""

    def __init__(
        self,
        ports: Sequence[WantedPort],
        dial: Dial,
        pods: PodSource,
        publish: Callable[[Event], None],
        *,
        on_bug: Callable[[BaseException], None] = report_bug,
        settings: ForwardSettings | None = None,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop,
    ) -> None:
        self._wanted = tuple(ports)
        self._dial = dial
        self._pods = pods
        self._publish = publish
        self._on_bug = on_bug
        self._settings = settings or ForwardSettings()
        self._dialer = Dialer(dial, self._settings)
        self._loop = new_loop()
        self._loop.set_exception_handler(self._bug_in_loop)
        self._routes: list[Route] = []
        # The listeners of each route, and its local port as it was asked for.
        self._opened: dict[Route, tuple[int, tuple[Socket, ...]]] = {}
        self._listening: dict[Socket, SocketEvents] = {}
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._bug: BaseException | None = None
        self._accepting = False

    def start(self) -> None:
        """Open all listeners, or none. Errors: env/port-busy naming the owner."""
        try:
            for wanted in self._wanted:
                self._open(_listeners(wanted), wanted)
        except BaseException:
            self._release()
            raise
        self._loop.call_soon(self._begin)
        self._thread = supervised("forward", self._run, on_bug=self._on_bug)
        self._thread.start()
        self._unsubscribe = self._pods.on_change(lambda: self._in_loop(self._look))

    def change(self, more: Iterable[WantedPort], gone: Iterable[tuple[str, int]]) -> None:
        """While it runs, open `more` ports and close those of (service, local port). Not both at
        once for the same local port: what is to be another one is closed first. Raises
        env/port-busy, and opens and closes nothing then, unless a port that was closed for another
        one is taken by somebody else just then."""
        more, gone = tuple(more), frozenset(gone)
        freed = {local for _, local in gone}
        later = [wanted for wanted in more if wanted[1] in freed]
        opened = _listening([wanted for wanted in more if wanted not in later])
        closed = threading.Event()
        self._in_loop(functools.partial(self._shut, gone, closed))
        closed.wait(self._settings.close_timeout)
        try:
            opened += _listening(later)
        finally:
            self._in_loop(lambda: self._add(opened))

    def connected(self, service: str, local: int) -> bool:
        """Whether somebody is connected to this port. For any thread."""
        found = [
            route
            for route, (port, _) in tuple(self._opened.items())
            if (route.service, port) == (service, local)
        ]
        return any(route.connections for route in found)

    def _add(self, opened: Sequence[tuple[tuple[Socket, ...], WantedPort]]) -> None:
        for listeners, wanted in opened:
            route = self._open(listeners, wanted)
            route.report("listening")
            for listener in listeners:
                self._listening[listener].want(read=self._accepting)
        self._look()

    def _shut(self, gone: frozenset[tuple[str, int]], done: threading.Event) -> None:
        for route, (local, listeners) in list(self._opened.items()):
            if (route.service, local) in gone:
                del self._opened[route]
                self._routes.remove(route)
                for listener in listeners:
                    self._listening.pop(listener).stop()
                    listener.close()
                route.close("devloop.yaml has it no more")
        done.set()

    def _open(self, listeners: tuple[Socket, ...], wanted: WantedPort) -> Route:
        service, local, container = wanted[:3]
        backend = wanted[4] if len(wanted) == 5 else ""
        route = Route(
            service,
            listeners[0].getsockname()[1],
            container,
            backend=backend,
            loop=self._loop,
            dialer=self._dialer,
            publish=self._publish,
            on_end=self._made_room,
            settings=self._settings,
        )
        self._routes.append(route)
        self._opened[route] = local, listeners
        for listener in listeners:
            accept = functools.partial(self._accept, route, listener)
            self._listening[listener] = SocketEvents(self._loop, listener.fileno(), accept)
        return route

    def close(self) -> None:
        """Reset what is open, close the ports; takes at most about 300 ms. Safe to repeat."""
        self._unsubscribe()
        if self._thread is None:
            self._release()
            return
        self._in_loop(self._loop.stop)
        self._thread.join(self._settings.close_timeout)

    def _in_loop(self, callback: Callable[[], None]) -> None:
        # A closed loop has nothing left to do.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        self._loop.run_forever()
        reason = "" if self._bug is None else f"a bug in devloop: {self._bug!r}"
        self._accepting = True  # no client that goes makes room for another
        for route in self._routes:
            route.close(reason)
        self._dialer.close(self._settings.close_timeout)
        # Streams that arrived meanwhile are closed by their routes.
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()
        self._release()
        if self._bug is not None:
            raise self._bug

    def _bug_in_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._bug = self._bug or context.get("exception") or RuntimeError(context["message"])
        loop.stop()

    def _release(self) -> None:
        for listener, events in self._listening.items():
            if not self._loop.is_closed():
                events.stop()
            listener.close()
        self._loop.close()

    def _begin(self) -> None:
        for route in self._routes:
            route.report("listening")
        self._accept_on(True)
        self._look()
        self._loop.call_later(self._settings.ping_interval, self._ping)

    def _look(self) -> None:
        for route in self._routes:
            route.look(self._pods.current(route.backend))
        self._dial.prepare({pod.uid: pod for r in self._routes for pod in r.likely}.values())

    def _ping(self) -> None:
        for route in self._routes:
            for connection in tuple(route.connections):
                connection.ping()
        self._loop.call_later(self._settings.ping_interval, self._ping)

    # --- clients come ----------------------------------------------------------------------

    def _accept_on(self, wanted: bool) -> None:
        self._accepting = wanted
        for events in self._listening.values():
            events.want(read=wanted)

    def _accept(self, route: Route, listener: Socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            # No descriptors left: clients wait in the kernel's queue meanwhile.
            self._accept_on(False)
            self._loop.call_later(self._settings.crowded_pause, self._accept_on, True)
            return
        route.take(client)
        if self._connections >= self._settings.most_connections:
            self._accept_on(False)

    @property
    def _connections(self) -> int:
        return sum(len(route.connections) for route in self._routes)

    def _made_room(self) -> None:
        if not self._accepting and self._connections < self._settings.most_connections:
            self._accept_on(True)


def _listeners(wanted: WantedPort) -> tuple[Socket, ...]:
    return listen(wanted[1], wanted[3] if len(wanted) == 5 else "")


def _listening(ports: Iterable[WantedPort]) -> list[tuple[tuple[Socket, ...], WantedPort]]:
    """All of them, or none."""
    opened: list[tuple[tuple[Socket, ...], WantedPort]] = []
    try:
        for wanted in ports:
            each = _listeners(wanted)
            opened.append((each, wanted))
    except BaseException:
        for listeners, _ in opened:
            for listener in listeners:
                listener.close()
        raise
    return opened
