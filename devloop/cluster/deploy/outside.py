"""Somebody else's hands: a workload that does not look any more as this session left it.

Looks at what the watch brings anyway, and only at the pod template: what is scaled or annotated
still runs what devloop deployed. So does what is restarted, with other pods: that is only said.
What follows from a change is the engine's to decide.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.threads import supervised
from devloop.cluster.api.pod_view import (
    dig,
    generation_of,
    images_of,
    name_of,
    uid_of,
)
from devloop.cluster.api.writes import is_undone, last_writer
from devloop.cluster.deploy.ownership import gitops_manager
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.api.reflector import WatchEvent
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.replace.workload_lock import WorkloadLock
    from devloop.model import WorkloadRef


_TEMPLATE = ("spec", "template")
_RESTARTED = "kubectl.kubernetes.io/restartedAt"

# So many states are known again; the Deployment itself keeps ten ReplicaSets.
_EARLIER = 10

# Several writes in a row are one change; a watch brings them within a few milliseconds.
_REST = 0.1


def outside_change(
    ref: WorkloadRef, left: Json, now: Json | None, earlier: Sequence[object] = ()
) -> Diagnosis | None:
    """What somebody else made of a workload that this session `left` so; None for nothing that
    matters to what its pods run, or where `now` is older than `left`. `earlier` are the specs of
    its pods that the session left before."""
    if now is None:
        return _changed(f"{ref} was deleted", "save a file of the service to deploy it again")
    if _is_older(now, left) or dig(now, *_TEMPLATE, "spec") == dig(left, *_TEMPLATE, "spec"):
        return None
    before = images_of(left)
    images = [f"{c} runs {i}" for c, i in images_of(now).items() if before.get(c) != i]
    what = ", ".join(images) or "its pod template is another"
    manager = gitops_manager(now)
    tip = "save a file of the service to take it over again"
    if manager is not None:
        tip = f"pause {manager} for {ref} while you work, or take it out of {manager}'s hands"
    done, by = "changed by", last_writer(now)
    if is_undone(now):
        done, by = "rolled back by", f"{by} (`kubectl rollout undo`)"
    elif dig(now, *_TEMPLATE, "spec") in earlier:
        # Who only takes fields away owns nothing afterwards, and is not named.
        done, by = "put back to an earlier state by", f"{by}, as `kubectl rollout undo` does"
    return _changed(f"{ref} was {done} {by}: {what}", tip)


def outside_restart(ref: WorkloadRef, left: Json, now: Json | None) -> Diagnosis | None:
    """That somebody else had other pods made of the same content; None where nobody did."""
    if now is None or _is_older(now, left) or uid_of(now) != uid_of(left):
        return None
    if dig(now, *_TEMPLATE, "metadata") == dig(left, *_TEMPLATE, "metadata"):
        return None
    before, at = (
        dig(each, *_TEMPLATE, "metadata", "annotations", _RESTARTED) for each in (left, now)
    )
    done = f"was restarted by {last_writer(now)}"
    if at == before:
        done = f"got other labels or annotations for its pods from {last_writer(now)}"
    elif at is None:
        done = "was rolled back to before it was restarted"
    return Diagnosis(
        code=Code.SAFETY_CHANGED_OUTSIDE,
        severity="info",
        message=f"{ref} {done}: new pods take the place of those that ran",
        cause="they start with the image that devloop deployed, and get what was synced since",
    )


def _is_older(now: Json, left: Json) -> bool:
    return uid_of(now) == uid_of(left) and generation_of(now) < generation_of(left)


def _changed(message: str, tip: str) -> Diagnosis:
    return Diagnosis(
        code=Code.SAFETY_CHANGED_OUTSIDE,
        severity="warning",
        message=message,
        cause="what runs is not what is on disk",
        suggestions=(tip,),
    )


class OutsideWatch:
    """Looks on at the workloads that a session writes; does nothing until `start`. Never judges
    while devloop itself writes: `lock_of` gives a workload's lock."""

    def __init__(self, view: ClusterView, lock_of: Callable[[WorkloadRef], WorkloadLock]) -> None:
        self._report: Callable[[str, Diagnosis | None], None] | None = None
        self._notify: Callable[[str, Diagnosis], None] = lambda _service, _diagnosis: None
        self._view = view
        self._lock_of = lock_of
        self._changed = threading.Condition()
        self._left: dict[WorkloadRef, Json] = {}
        self._earlier: dict[WorkloadRef, list[object]] = {}
        self._services: dict[WorkloadRef, set[str]] = {}
        self._suspects: set[WorkloadRef] = set()
        self._told: dict[WorkloadRef, Diagnosis] = {}
        self._ending = Cancel()
        self._thread: threading.Thread | None = None

    def start(
        self,
        report: Callable[[str, Diagnosis | None], None],
        notify: Callable[[str, Diagnosis], None],
    ) -> None:
        """Tell `report` (service, what was changed) for each service that deploys a workload which
        somebody else changed, once a change; with None when it is again as it was left. `notify`
        gets what changes nothing of what runs. From a thread of its own. Called before the first
        write."""
        self._report, self._notify = report, notify
        self._thread = supervised("outside", self._look_on)
        self._thread.start()

    def wrote(self, ref: WorkloadRef, service: str, left: Json) -> None:
        """From now on the workload is expected to be so. Called with its lock held."""
        if self._report is None:
            return
        with self._changed:
            first = ref not in self._left
            spec, earlier = dig(left, *_TEMPLATE, "spec"), self._earlier.setdefault(ref, [])
            self._earlier[ref] = [*(e for e in earlier if e != spec), spec][-_EARLIER:]
            self._left[ref] = left
            self._services.setdefault(ref, set()).add(service)
            self._told.pop(ref, None)
        if first:
            self._view.workload(ref).add(lambda event: self._take(ref, event))

    def close(self) -> None:
        self._ending.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(1.0)

    def _take(self, ref: WorkloadRef, event: WatchEvent) -> None:
        if event.type not in {"PUT", "DELETE"} or name_of(event.object) != ref.name:
            return
        now = event.object if event.type == "PUT" else None
        with self._changed:
            left = self._left[ref]
            changed = outside_change(ref, left, now) or outside_restart(ref, left, now)
            if ref in self._told or changed is not None:
                self._suspects.add(ref)
                self._changed.notify_all()

    def _look_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._suspects or self._ending.is_set())
            self._ending.wait(_REST)
            with self._changed:
                suspects, self._suspects = self._suspects, set()
            for ref in suspects:
                with self._lock_of(ref).acquired(self._ending):
                    self._look(ref)
            self._ending.check()

    def _look(self, ref: WorkloadRef) -> None:
        now = self._view.workload(ref).get(ref.name)
        with self._changed:
            left = self._left[ref]
            found = outside_change(ref, left, now, self._earlier[ref])
            known = self._told.pop(ref, None)
            if found is not None:
                self._told[ref] = found
            services = sorted(self._services[ref])
            restart = outside_restart(ref, left, now) if found is None else None
            if restart is not None and now is not None:
                self._left[ref] = now  # said once
        if restart is not None:
            for service in services:
                self._notify(service, restart)
        if found != known and self._report is not None:
            for service in services:
                self._report(service, found)
