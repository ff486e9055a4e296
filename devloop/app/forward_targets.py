"""Where forwarded ports lead that are given by a name or as another object's: `8080:http`,
`5432:service/db:5432`.

The pods of such an object are followed as those of services are; what a name means is looked up
when a pod is dialled. A Service may come with the first deploy, or change: it is asked for again
and again, at a person's pace.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import supervised
from devloop.cluster.api.pod_view import dig, items, labels, name_of, text
from devloop.cluster.api.view import owned_by
from devloop.errors import Code, DevloopError
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.api.view import ClusterView
    from devloop.engine.ports import PodSource
    from devloop.model import PodView


_UNKNOWN_SECONDS, _KNOWN_SECONDS = 1.0, 15.0


class ForwardTargets:
    """The pods of services (`own`) and of the objects `targets` (KIND/NAME -> its namespace), as a
    `PodSource`, and what their ports are. Call `start`, then `close` once."""

    def __init__(
        self,
        own: PodSource,
        targets: Mapping[str, str],
        *,
        view: ClusterView,
        connection: Connection,
    ) -> None:
        self._own = own
        # Replaced, never changed: many threads read it.
        self._targets: dict[str, _Target] = {}
        self._first = dict(targets)
        self._view = view
        self._connection = connection
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._stop = Cancel()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.use(self._first)

    def use(self, targets: Mapping[str, str]) -> None:
        """From now on these are the objects; for one thread at a time."""
        before = self._targets
        new = {target for target in targets if target not in before}
        self._targets = {t: before.get(t) or _Target(place) for t, place in targets.items()}
        for target in before.keys() - targets.keys():
            before[target].end()
        for target in new:
            kind, name = target.split("/")
            if kind == "pod":
                self._follow(target, functools.partial(_is_called, name))
            elif kind != "service":
                ref = WorkloadRef(kind, name, targets[target])
                self._follow(target, owned_by(ref))
        if any(target.startswith("service/") for target in new):
            self._wake.set()
            if self._thread is None:
                self._thread = supervised("forward-targets", self._look_again)
                self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        for target in self._targets.values():
            target.end()
        if self._thread is not None:
            self._thread.join(0.3)

    # --- as engine.ports.PodSource -------------------------------------------------------------

    def current(self, service: str) -> tuple[PodView, ...]:
        """`service` may be one of the targets."""
        target = self._targets.get(service)
        if target is None:
            return self._own.current(service)
        with self._lock:
            return tuple(target.pods.values())

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        ends = self._own.on_change(callback)
        with self._lock:
            self._listeners.append(callback)

        def stop() -> None:
            ends()
            with self._lock:
                self._listeners.remove(callback)

        return stop

    # --- what a port is in a pod ---------------------------------------------------------------

    def port_of(self, pod: PodView, port: int | str) -> int:
        """The number of `port` (`http`, `service/db:5432`) in `pod`. Raises config/value when it
        has none."""
        wanted: int | str = port
        if isinstance(port, str) and "/" in port:
            target, _, wanted = port.rpartition(":")
            if target.startswith("service/"):
                with self._lock:
                    followed = self._targets.get(target)
                    service = followed.service if followed is not None else {}
                wanted = _target_port(service, wanted)
        if isinstance(wanted, int) or wanted.isdigit():
            return int(wanted)
        named = dict(each for c in pod.containers if not c.init for each in c.named_ports)
        if wanted in named:
            return named[wanted]
        there = ", ".join(named) or "none has a name"
        raise DevloopError.of(
            Code.CONFIG_VALUE, f"pod {pod.name} has no port {wanted!r}; its ports: {there}"
        )

    # --- objects -------------------------------------------------------------------------------

    def _follow(self, target: str, belongs: Callable[[Json], bool]) -> None:
        followed = self._targets.get(target)
        if followed is None:
            return
        followed.end()
        pods: dict[str, PodView] = {}
        with self._lock:
            followed.pods = pods

        def take(pod: PodView, gone: bool) -> None:
            with self._lock:
                if gone:
                    pods.pop(pod.uid, None)
                else:
                    pods[pod.uid] = pod
                listeners = tuple(self._listeners)
            for listener in listeners:
                listener()

        followed.end = self._view.subscribe_pods(followed.namespace, belongs, take)
        if self._targets.get(target) is not followed:
            followed.end()  # nobody wants it any more, since just now

    def _look_again(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            services = [t for t in self._targets if t.startswith("service/")]
            found = [t for t in services if self._look(t)]
            all_there = len(found) == len(services)
            self._wake.wait(_KNOWN_SECONDS if all_there else _UNKNOWN_SECONDS)

    def _look(self, target: str) -> bool:
        """Whether the Service is there."""
        known = self._targets.get(target)
        if known is None:
            return True  # nobody wants it any more
        path = f"/api/v1/namespaces/{known.namespace}/services/{target.partition('/')[2]}"
        try:
            service = self._connection.find(path, absent={403, 404})
        except DevloopError:
            return False
        if service is not None:
            before = dig(known.service, "spec", "selector")
            with self._lock:
                known.service = service
            selector = dig(service, "spec", "selector") or {}
            if selector and selector != before:
                self._follow(target, functools.partial(_is_selected, selector))
        return service is not None


@dataclass(slots=True, eq=False)
class _Target:
    """`service` is the Kubernetes Service as last seen; `end` stops following the pods."""

    namespace: str
    pods: dict[str, PodView]
    service: Json
    end: Callable[[], None]

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.pods, self.service, self.end = {}, {}, lambda: None


def _is_called(name: str, pod: Json) -> bool:
    return name_of(pod) == name


def _is_selected(selector: Json, pod: Json) -> bool:
    return selector.items() <= labels(pod).items()


def _target_port(service: Json, wanted: str) -> int | str:
    """The pods' port behind a Service's, which is given by number or name; else `wanted`, as a port
    of the pods themselves."""
    for port in items(dig(service, "spec", "ports")):
        if wanted in (str(port.get("port")), text(port.get("name"))):
            target = port.get("targetPort") or port.get("port")
            return target if isinstance(target, int) else text(target)
    return wanted
