"""A Deployment, its ReplicaSets and pods as last known: what the watches saw, and the answers to
devloop's own writes, which are ahead of them. Decides nothing, writes nothing.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import (
    Json,
    dig,
    generation_of,
    metadata,
    name_of,
    number,
    pod_view,
    text,
    uid_of,
)
from devloop.cluster.rollout.replica_sets import current_set, pods_of

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.view import ClusterView, View
    from devloop.model import WorkloadRef


_SYNC_SECONDS = 2.0
# How long the controllers may take to see a ReplicaSet: some 10 ms, on a busy cluster much longer;
# and how long where somebody waits for the end.
_OBSERVED_SECONDS = 10.0
_HURRIED_SECONDS = 1.0


class LiveObjects:
    """Those of one Deployment. For one thread at a time; the views are the session's."""

    def __init__(self, view: ClusterView, ref: WorkloadRef) -> None:
        self._name = ref.name
        self._workloads: View = view.workload(ref)
        self._sets: View = view.view("replicasets", ref.namespace)
        self._pods: View = view.view("pods", ref.namespace)
        self._events: View = view.view("events", ref.namespace)
        self._written: dict[str, Json] = {}  # uid -> the object as it came back
        self._old_events: frozenset[tuple[str, str]] = frozenset()

    def wait_synced(self, cancel: Cancel) -> None:
        """Errors: cluster/* when ReplicaSets and pods are not known within a moment."""
        for view in (self._sets, self._pods):
            view.wait_synced(cancel, _SYNC_SECONDS)

    @property
    def synced(self) -> bool:
        return self._sets.synced.is_set() and self._pods.synced.is_set()

    def wrote(self, thing: Json) -> None:
        """`thing` is what a write answered."""
        self._written[uid_of(thing)] = thing

    def newest(self, seen: Json) -> Json:
        """What was written last, where the watch is not that far yet; else what it saw."""
        own = self._written.get(uid_of(seen))
        return own if own is not None and _version(own) > _version(seen) else seen

    def workload(self) -> Json | None:
        seen = self._workloads.get(self._name)
        return self.newest(seen) if seen is not None else None

    def replicasets(self) -> list[Json]:
        """Those of the namespace."""
        return [self.newest(thing) for thing in self._sets.items()]

    def pods(self) -> list[Json]:
        """Those of the namespace."""
        return [self.newest(thing) for thing in self._pods.items()]

    def current_pods(self, live: Json) -> list[Json]:
        """The pods of the current ReplicaSet, those that are not ready first."""
        current = current_set(live, self.replicasets())
        mine = pods_of(self.pods(), uid_of(current)) if current is not None else []
        return sorted(mine, key=lambda p: (pod_view(p).ready, name_of(p)))

    def keep_pods(self, uids: set[str]) -> None:
        """Forget what was written to all pods but these."""
        self._written = {
            k: v for k, v in self._written.items() if k in uids or v.get("kind") != "Pod"
        }

    def wait_observed(self, written: Json, cancel: Cancel) -> None:
        """Wait until the controllers have the ReplicaSet as it is now.

        Deployments and ReplicaSets reach them on two streams. If the end of the pause came first,
        the Deployment would be rolled after all. All controllers read from one cache, and that of
        ReplicaSets says in the status what it saw there."""
        changed = threading.Event()
        began = time.monotonic()
        with self._sets.subscribe(lambda _: changed.set()), cancel.closing(changed.set):
            while not _observed(self._sets.get(name_of(written)), written):
                limit = _HURRIED_SECONDS if cancel.is_set() else _OBSERVED_SECONDS
                if not changed.wait(began + limit - time.monotonic()):
                    return
                changed.clear()

    def begin_events(self) -> None:
        """All events until now are old."""
        self._old_events = frozenset(map(_event_key, self._events.items()))

    def is_news(self, event: Json) -> bool:
        return _event_key(event) not in self._old_events


def _observed(seen: Json | None, written: Json) -> bool:
    if seen is None or uid_of(seen) != uid_of(written):
        return False
    generation = generation_of(written)
    return number(dig(seen, "status", "observedGeneration")) >= generation


def _version(thing: Json) -> int:
    found = text(metadata(thing).get("resourceVersion"))
    return int(found) if found.isdigit() else 0


def _event_key(event: Json) -> tuple[str, str]:
    return uid_of(event), text(metadata(event).get("resourceVersion"))
