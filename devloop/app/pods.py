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
    from collections.abc import Callable, Mapping, Sequence

    from devloop.cluster.api.view import ClusterView
    from devloop.events import Event
    from devloop.model import ContainerView, PodView, WorkloadRef


class PodFeed:
    """The pods of each service as last seen; publishes `pod.changed`.

    `workloads` are what runs each service, the picked one first. A listener (service, pods) is
    called after each change with all of the service's pods, in the watch's thread; it must not
    block. `picked` and `serving` are a part of the same pods: those of the picked workload, and
    those of workloads that serve, which are not there to end."""

    def __init__(
        self,
        view: ClusterView,
        workloads: Mapping[str, Sequence[WorkloadRef]],
        publish: Callable[[Event], None],
    ) -> None:
        self._view = view
        self._publish = publish
        self._lock = threading.Lock()
        self._following = threading.Lock()
        self._workloads = {name: tuple(refs) for name, refs in workloads.items()}
        # (service, workload) -> pod uid -> pod, and how to stop following it
        self._pods: dict[tuple[str, WorkloadRef], dict[str, PodView]] = {}
        self._ends: dict[tuple[str, WorkloadRef], Callable[[], None]] = {}
        self._started = False
        self._listeners: list[Callable[[str, tuple[PodView, ...]], None]] = []
        # (pod uid, container name) -> how often its process was to start anew, and did
        self._starts: dict[tuple[str, str], tuple[int, int]] = {}
        self.picked = _Part(self, lambda ref, first: ref == first)
        self.serving = _Part(self, lambda ref, _first: ref.serves)

    def start(self) -> None:
        with self._following:
            self._started = True
            for service in self._workloads:
                self._follow(service)

    def follow(self, service: str, workloads: Sequence[WorkloadRef]) -> None:
        """From now on these run the service. From any thread but the watch's."""
        if self._workloads.get(service) == tuple(workloads):
            return
        with self._following:
            with self._lock:
                self._workloads[service] = tuple(workloads)
            if self._started:
                self._follow(service)

    def forget(self, service: str) -> None:
        """Follow what runs the service no more; its pods stay as they are."""
        with self._following:
            with self._lock:
                self._workloads.pop(service, None)
            for key in [key for key in self._ends if key[0] == service]:
                self._ends.pop(key)()
                with self._lock:
                    self._pods.pop(key, None)

    def workloads(self, service: str) -> tuple[WorkloadRef, ...]:
        """What runs the service, as far as known, the picked one first."""
        return self._workloads.get(service, ())

    def _follow(self, service: str) -> None:
        wanted = {(service, ref) for ref in self._workloads[service]}
        for key in [key for key in self._ends if key[0] == service and key not in wanted]:
            self._ends.pop(key)()
            with self._lock:
                left = self._pods.pop(key, {})
            for pod in left.values():
                self._publish(_changed(service, pod, gone=True))
            self._tell(service)
        for key in [key for key in wanted if key not in self._ends]:
            with self._lock:
                self._pods[key] = {}
            ref = key[1]
            take = functools.partial(self._take, key)
            self._ends[key] = self._view.subscribe_pods(ref.namespace, owned_by(ref), take)

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
        return self.of(service, lambda _ref, _first: True)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self.listen(lambda _service, _pods: callback())

    def of(
        self, service: str, belongs: Callable[[WorkloadRef, WorkloadRef], bool]
    ) -> tuple[PodView, ...]:
        """The pods of those workloads that `belongs(workload, the picked one)` accepts."""
        with self._lock:
            return self._now(service, belongs)

    # --- processes that devloop itself starts anew ---------------------------------------------

    def process_starts(self, service: str, pod: PodView, container: str, *, done: bool) -> None:
        """The process of a container is about to start anew, or has (`done`). From any thread."""
        with self._lock:
            key = (pod.uid, container)
            asked, _ = before = self._starts.get(key, (0, 0))
            self._starts[key] = (asked, asked) if done else (asked + 1, before[1])
        self._tell(service)

    # --- the watch's thread --------------------------------------------------------------------

    def _take(self, key: tuple[str, WorkloadRef], pod: PodView, gone: bool) -> None:
        service = key[0]
        with self._lock:
            pods = self._pods.get(key)
            if pods is None:
                return  # it is not followed any more
            if gone:
                pods.pop(pod.uid, None)
            else:
                pods[pod.uid] = pod
            living = {uid for seen in self._pods.values() for uid in seen}
            self._starts = {key: n for key, n in self._starts.items() if key[0] in living}
        self._publish(_changed(service, pod, gone=gone))
        self._tell(service)

    def _tell(self, service: str) -> None:
        with self._lock:
            now = self._now(service)
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(service, now)

    def _now(
        self,
        service: str,
        belongs: Callable[[WorkloadRef, WorkloadRef], bool] = lambda _ref, _first: True,
    ) -> tuple[PodView, ...]:
        refs = self._workloads.get(service, ())
        found = [
            pod
            for ref in refs
            if belongs(ref, refs[0])
            for pod in self._pods.get((service, ref), {}).values()
        ]
        return tuple(map(self._with_starts, found)) if self._starts else tuple(found)

    def _with_starts(self, pod: PodView) -> PodView:
        def one(container: ContainerView) -> ContainerView:
            asked, done = self._starts.get((pod.uid, container.name), (0, 0))
            return replace(container, starts_asked=asked, starts_done=done)

        return replace(pod, containers=tuple(map(one, pod.containers)))


@dataclass(frozen=True, eq=False)
class _Part:
    """A `PodSource` of some of a feed's pods."""

    feed: PodFeed
    belongs: Callable[[WorkloadRef, WorkloadRef], bool]

    def current(self, service: str) -> tuple[PodView, ...]:
        return self.feed.of(service, self.belongs)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self.feed.on_change(callback)


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
