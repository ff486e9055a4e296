"""The local ports of a session: opened at its start, and others when devloop.yaml names others."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.app.forward_targets import ForwardTargets
from devloop.cluster.api.pod_ports import PodPorts
from devloop.config.schema import Port
from devloop.events import ForwardChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.app.pods import PodFeed
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.config.schema import Service
    from devloop.events import Event
    from devloop.model import WorkloadRef
    from devloop.port_forward.forwarder import PortForwarder


class Forwards:
    """Opens nothing, and imports nothing for it, before there is a port. For one thread at a time.
    The debugger's port of a service is one of its own where an editor is `attachable`."""

    def __init__(
        self,
        feed: PodFeed,
        view: ClusterView,
        connection: Connection,
        publish: Callable[[Event], None],
        *,
        attachable: Callable[[Service], bool] = lambda _: False,
    ) -> None:
        self._attachable = attachable
        self._debuggers: Mapping[tuple[str, int], str] = {}
        self._feed = feed
        self._view = view
        self._connection = connection
        self._publish = publish
        self._coming: Mapping[str, tuple[WorkloadRef, ...]] = {}
        self._open: dict[tuple[str, int], Port] = {}
        self._forwarder: PortForwarder | None = None
        self._targets: ForwardTargets | None = None
        self._dial: PodPorts | None = None

    def use(
        self,
        services: Mapping[str, Service],
        coming: Mapping[str, tuple[WorkloadRef, ...]] = MappingProxyType({}),
    ) -> None:
        """Have the ports of these services open and no others; those that stay are left alone.
        `coming` are the workloads of those that are not followed yet. Raises env/port-busy, and
        changes nothing then."""
        self._coming = coming
        wanted = {(s.name, port.local): port for s in services.values() for port in s.ports}
        debugs = [(s.name, s.debug) for s in services.values() if s.debug and self._attachable(s)]
        wanted |= {(name, d.port): Port(local=d.port, container=d.port) for name, d in debugs}
        self._debuggers = {(name, debug.port): debug.kind for name, debug in debugs}
        if wanted == self._open:
            return
        gone = [key for key, port in self._open.items() if wanted.get(key) != port]
        more = [
            (name, local, port.shown, port.address, port.target)
            for (name, local), port in wanted.items()
            if self._open.get((name, local)) != port
        ]
        places = self._places(wanted)
        if self._forwarder is None or self._targets is None:
            # Imported late: asyncio takes a while, and many sessions have no ports.
            from devloop.port_forward.forwarder import PortForwarder  # noqa: PLC0415

            targets = ForwardTargets(
                self._feed.picked, places, view=self._view, connection=self._connection
            )
            dial = PodPorts(self._connection, number_of=targets.port_of)
            try:
                forwarder = PortForwarder(more, dial, targets, self._publish_forward)
                forwarder.start()
            except BaseException:
                dial.close()
                raise
            targets.start()
            self._dial, self._targets, self._forwarder = dial, targets, forwarder
        else:
            self._targets.use({**self._places(self._open), **places})
            try:
                self._forwarder.change(more, gone)
            except BaseException:
                self._targets.use(self._places(self._open))
                raise
            self._targets.use(places)
        self._open = wanted

    def attached(self, service: str) -> bool:
        """Whether an editor is connected to the service's debugger, or waits for it. For any
        thread."""
        forwarder, debuggers = self._forwarder, self._debuggers
        ports = [local for name, local in debuggers if name == service]
        return forwarder is not None and any(forwarder.connected(service, p) for p in ports)

    def _publish_forward(self, event: Event) -> None:
        if isinstance(event, ForwardChanged):
            debugger = self._debuggers.get((event.service, event.local), "")
            event = replace(event, debugger=debugger) if debugger else event
        self._publish(event)

    def _places(self, ports: Mapping[tuple[str, int], Port]) -> dict[str, str]:
        """The namespace of each object that a service's ports lead to: the one of its own picked
        workload. What two services name is where the first one's is."""
        places: dict[str, str] = {}
        for (name, _), port in ports.items():
            if port.target:
                refs = self._feed.workloads(name) or self._coming.get(name, ())
                place = refs[0].namespace if refs else self._connection.namespace
                places.setdefault(port.target, place)
        return places

    def close(self) -> None:
        if self._forwarder is not None:
            self._forwarder.close()
        if self._targets is not None:
            self._targets.close()
        if self._dial is not None:
            self._dial.close()
