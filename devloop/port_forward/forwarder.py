"""Port forwarding: local ports that stay open for a whole session while pods come and go.

One thread owns every socket; a few more only open streams. A connection that comes while no pod
can answer waits for the next one that does. What is ready the `PodSource` decides, never this
module.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Literal

from devloop.events import ForwardChanged
from devloop.port_forward.client_connection import ClientConnection
from devloop.port_forward.dialer import Dialer
from devloop.port_forward.event_loop import Loop
from devloop.port_forward.listeners import listen
from devloop.port_forward.route import Route

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from devloop.events import Event
    from devloop.port_forward.ports import Dial, PodSource

__all__ = ["PortForwarder"]

_CONNECT_TIMEOUT = 60.0  # seconds a client is kept waiting for a pod
_MOST_CONNECTIONS = 1024
_CROWDED = 0.2  # seconds without accepting when there are no descriptors left
_PING = 60.0  # seconds between two signs of life on quiet streams
_CLOSE = 0.3  # seconds
_READ = 1


class PortForwarder:
    """Forwards local ports to the newest pod of their service that can answer.

    `ports` are (service, local port, container port); local 0 takes any free one. `publish` is
    called in the forwarder's thread and must not block. Call `start`, then `close` once."""

    def __init__(
        self,
        ports: Sequence[tuple[str, int, int]],
        dial: Dial,
        pods: PodSource,
        publish: Callable[[Event], None],
        *,
        connect_timeout: float = _CONNECT_TIMEOUT,
    ) -> None:
        self._wanted = tuple(ports)
        self._dial = dial
        self._pods = pods
        self._publish = publish
        self._connect_timeout = connect_timeout
        self._dialer = Dialer(dial)
        self._loop = Loop()
        self._routes: list[Route] = []
        self._reported: dict[Route, tuple[str, str, str]] = {}
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._closing = False
        self._accepting = True

    @property
    def locals(self) -> tuple[int, ...]:
        """The local ports in the order of `ports`, known after `start`."""
        return tuple(route.local for route in self._routes)

    def start(self) -> None:
        """Open all listeners, or none. Errors: env/port-busy naming the owner."""
        try:
            for service, local, container in self._wanted:
                self._routes.append(self._route(service, container, listen(local)))
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="devloop-forward", daemon=True)
        self._thread.start()
        self._unsubscribe = self._pods.on_change(lambda: self._loop.call(self._look))

    def _route(self, service: str, container: int, listeners: tuple[socket.socket, ...]) -> Route:
        route = Route(
            service,
            container,
            listeners=listeners,
            loop=self._loop,
            dialer=self._dialer,
            report=self._report,
            connect_timeout=self._connect_timeout,
        )
        route.on_end = self._made_room
        return route

    def close(self) -> None:
        """Reset what is open, close the ports; takes at most about 300 ms. Safe to repeat."""
        deadline = time.monotonic() + _CLOSE
        self._unsubscribe()
        if self._thread is None:
            self._release()
            return
        self._closing = True
        for route in self._routes:
            route.closing = True
        self._loop.wake()
        self._thread.join(_CLOSE)
        self._dialer.close(max(0.05, deadline - time.monotonic()))
        # Streams that arrived after the loop had ended are closed by the routes.
        self._loop.drain()

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        reason = ""
        try:
            for route in self._routes:
                self._report(route, "listening")
            self._accept_on(True)
            self._look()
            self._loop.at(_PING, self._ping)
            while not self._closing:
                self._loop.once()
        except Exception as error:  # noqa: BLE001 - a port forward that died silently is worse
            reason = f"a bug in devloop: {error!r}"
        finally:
            self._closing = True
            for route in self._routes:
                route.closing = True
                for connection in tuple(route.connections):
                    connection.abort()
                self._report(route, "closed", reason=reason)
            self._release()

    def _release(self) -> None:
        for route in self._routes:
            for listener in route.listeners:
                listener.close()
        self._loop.close()

    def _look(self) -> None:
        for route in self._routes:
            route.look(self._pods.current(route.service))
        self._dial.prepare({pod.uid: pod for r in self._routes for pod in r.likely}.values())

    def _ping(self) -> None:
        for route in self._routes:
            for connection in route.connections:
                connection.ping()
        self._loop.at(_PING, self._ping)

    # --- clients come ----------------------------------------------------------------------

    def _accept_on(self, wanted: bool) -> None:
        self._accepting = wanted
        for route in self._routes:
            for listener in route.listeners:
                mask = _READ if wanted else 0
                self._loop.watch(
                    listener,
                    mask,
                    lambda _mask, route=route, listener=listener: self._accept(route, listener),  # type: ignore[misc]
                )

    def _accept(self, route: Route, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            # No descriptors left: clients wait in the kernel's queue meanwhile.
            self._accept_on(False)
            self._loop.at(_CROWDED, lambda: self._accept_on(True))
            return
        route.take(ClientConnection(route, client))
        if self._connections >= _MOST_CONNECTIONS:
            self._accept_on(False)

    @property
    def _connections(self) -> int:
        return sum(len(route.connections) for route in self._routes)

    def _made_room(self) -> None:
        if not self._accepting and not self._closing and self._connections < _MOST_CONNECTIONS:
            self._accept_on(True)

    def _report(
        self,
        route: Route,
        state: Literal["listening", "ready", "waiting", "closed"],
        *,
        pod: str = "",
        reason: str = "",
    ) -> None:
        if self._reported.get(route) == (state, pod, reason):
            return
        self._reported[route] = (state, pod, reason)
        self._publish(
            ForwardChanged(
                service=route.service,
                local=route.local,
                port=route.container,
                state=state,
                pod=pod,
                reason=reason,
            )
        )
