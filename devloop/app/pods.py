"""One view of each service's pods, handed to everyone who follows them.

The cluster's watch reports single pods; port forwards and logs want a service's pods as a
whole. This is the translation between the two, and nothing more.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.view import owned_by
from devloop.events import PodChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.cluster.api.view import ClusterView
    from devloop.events import Event
    from devloop.model import ContainerView, PodView, WorkloadRef


@dataclass(eq=False)
class PodFeed:
    """The pods of each service as last seen; publishes `pod.changed`.

    A listener (service, pods) is called after each change with all of the service's pods, in the
    watch's thread; it must not block."""

    view: ClusterView
    workloads: Mapping[str, WorkloadRef]
    publish: Callable[[Event], None]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: dict[str, dict[str, PodView]] = {name: {} for name in self.workloads}
        self._listeners: list[Callable[[str, tuple[PodView, ...]], None]] = []
        # (pod uid, container name) -> how often its process was to start anew, and did
        self._starts: dict[tuple[str, str], tuple[int, int]] = {}

    def start(self) -> None:
        for service, ref in self.workloads.items():
            take = functools.partial(self._take, service)
            self.view.subscribe_pods(ref.namespace, owned_by(ref), take)

    def listen(self, listener: Callable[[str, tuple[PodView, ...]], None]) -> Callable[[], None]:
        """Call `listener(service, pods)` after each change; returns how to stop that."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return stop

    # --- as engine.ports.PodSource -------------------------------------------------------------

    def current(self, service: str) -> tuple[PodView, ...]:
        with self._lock:
            return self._now(service)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self.listen(lambda _service, _pods: callback())

    # --- processes that devloop itself starts anew ---------------------------------------------

    def process_starts(self, service: str, pod: PodView, container: str, *, done: bool) -> None:
        """The process of a container is about to start anew, or has (`done`). From any thread."""
        with self._lock:
            key = (pod.uid, container)
            asked, _ = before = self._starts.get(key, (0, 0))
            self._starts[key] = (asked, asked) if done else (asked + 1, before[1])
        self._tell(service)

    # --- the watch's thread --------------------------------------------------------------------

    def _take(self, service: str, pod: PodView, gone: bool) -> None:
        with self._lock:
            pods = self._pods[service]
            if gone:
                pods.pop(pod.uid, None)
            else:
                pods[pod.uid] = pod
            living = {uid for seen in self._pods.values() for uid in seen}
            self._starts = {key: n for key, n in self._starts.items() if key[0] in living}
        self.publish(_changed(service, pod, gone=gone))
        self._tell(service)

    def _tell(self, service: str) -> None:
        with self._lock:
            now = self._now(service)
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(service, now)

    def _now(self, service: str) -> tuple[PodView, ...]:
        if not self._starts:
            return tuple(self._pods[service].values())
        return tuple(self._with_starts(pod) for pod in self._pods[service].values())

    def _with_starts(self, pod: PodView) -> PodView:
        def one(container: ContainerView) -> ContainerView:
            asked, done = self._starts.get((pod.uid, container.name), (0, 0))
            return replace(container, starts_asked=asked, starts_done=done)

        return replace(pod, containers=tuple(map(one, pod.containers)))


def _changed(service: str, pod: PodView, *, gone: bool) -> PodChanged:
    return PodChanged(
        service=service,
        pod=pod.name,
        phase="Gone" if gone else pod.phase,
        ready=pod.ready and not gone,
        deleting=pod.deleting or gone,
        image_ids=tuple(c.image_id for c in pod.containers if c.image_id and not c.init),
        reason=next((c.reason for c in pod.containers if c.reason), ""),
        restarts=sum(c.restarts for c in pod.containers),
    )
