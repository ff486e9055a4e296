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
from typing import TYPE_CHECKING, Any

from devloop.base.threads import report_bug, supervised
from devloop.port_forward.dialer import Dialer
from devloop.port_forward.event_loop import SocketEvents
from devloop.port_forward.listeners import listen
from devloop.port_forward.route import Route
from devloop.port_forward.settings import ForwardSettings

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from devloop.base.sockets import Socket
    from devloop.engine.ports import PodSource
    from devloop.events import Event
    from devloop.port_forward.ports import Dial


class PortForwarder:
    """Forwards local ports to the newest pod of their service that can answer.

    `ports` are (service, local port, container port), or longer by the address to listen at ("" for
    loopback) and by whose pods to ask `pods` for; local 0 takes any free one. `publish` and
    `on_bug` are called in the forwarder's thread and must not block. Call `start`, then `close`
    once."""

    def __init__(
        self,
        ports: Sequence[tuple[str, int, int] | tuple[str, int, int | str, str, str]],
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
        self._listening: dict[Socket, SocketEvents] = {}
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._bug: BaseException | None = None
        self._accepting = False

    def start(self) -> None:
        """Open all listeners, or none. Errors: env/port-busy naming the owner."""
        try:
            for wanted in self._wanted:
                self._open(*wanted)
        except BaseException:
            self._release()
            raise
        self._loop.call_soon(self._begin)
        self._thread = supervised("forward", self._run, on_bug=self._on_bug)
        self._thread.start()
        self._unsubscribe = self._pods.on_change(lambda: self._in_loop(self._look))

    def _open(
        self, service: str, local: int, container: int | str, address: str = "", backend: str = ""
    ) -> None:
        listeners = listen(local, address)
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
        for listener in listeners:
            accept = functools.partial(self._accept, route, listener)
            self._listening[listener] = SocketEvents(self._loop, listener.fileno(), accept)

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
