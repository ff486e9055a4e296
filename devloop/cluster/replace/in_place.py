"""The in-place rollout of one Deployment: the patches, in an order that can break off anywhere.

Pause the Deployment with the new image, patch the image of its pods (one after the other by
readiness), patch the ReplicaSet's template, wait until the controllers saw that, unpause. Whatever
breaks off in between is put right by unpausing alone: the controller then either finds the
ReplicaSet equal to the Deployment and does nothing, or rolls. So this is all that healing does, and
no state is left that it does not cover.
Decides nothing: see `inplace`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import Background
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import dig, metadata, name_of, number, pod_view, text, uid_of
from devloop.cluster.deploy.ownership import images_of
from devloop.cluster.deploy.recover import patch_as_devloop, release
from devloop.cluster.deploy.recovery_log import RecoveryEntry, RecoveryLog
from devloop.cluster.replace.in_place_rules import (
    HOLD,
    current_set,
    held,
    in_turn,
    is_odd,
    matching_set,
    paused_by_other,
    pod_images,
    pods_of,
    template_patch,
    why_not,
)
from devloop.cluster.rollout.rollout_status import serves
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView, View
    from devloop.cluster.replace.pod_restarts import PodRestarts
    from devloop.model import Deployed, ImageRef, WorkloadRef

__all__ = ["InPlace"]

# How long a rollout of several pods that was interrupted by a newer save waits for its successor.
_SUCCESSOR_SECONDS = 3.0
_SYNC_SECONDS = 2.0
# How long the controllers may take to see a ReplicaSet: some 10 ms, on a busy cluster much longer.
_OBSERVED_SECONDS = 1.0


class InPlace:
    """One Deployment's in-place rollouts and what was learned of its pods.

    `lock` is the workload's: `why_not`, `begin` and `adopt` are called with it held, everything
    else without. The views are those of the session; what it wrote itself it knows before they
    do."""

    def __init__(
        self,
        connection: Connection,
        view: ClusterView,
        ref: WorkloadRef,
        *,
        journal: RecoveryLog,
        restarts: PodRestarts,
        lock: threading.Lock,
    ) -> None:
        self._connection = connection
        self._ref = ref
        self._lock = lock
        self._journal = journal
        self._restarts = restarts
        self._workloads: View = view.workload(ref)
        self._sets: View = view.view("replicasets", ref.namespace)
        self._pods: View = view.view("pods", ref.namespace)
        self._events: View = view.view("events", ref.namespace)
        self._wrote: dict[str, Mapping[str, Any]] = {}  # uid -> the object as it came back
        self._open: RecoveryEntry | None = None
        self._barred = ""
        self._old_events: frozenset[tuple[str, str]] = frozenset()
        self._timer: threading.Timer | None = None

    # --- deciding ------------------------------------------------------------------------------

    def why_not(
        self,
        live: Mapping[str, Any],
        containers: tuple[str, ...],
        image: ImageRef,
        cancel: Cancel,
        *,
        restart: bool = True,
    ) -> str | None:
        """Why not in place, in a few words; None when it can be."""
        for view in (self._sets, self._pods):
            try:
                view.wait_synced(cancel, _SYNC_SECONDS)
            except Cancelled:
                raise
            except DevloopError as error:
                return error.diagnosis.message
        memory = self._restarts.memory(self._barred)
        return why_not(
            live,
            self._seen(self._sets),
            self._seen(self._pods),
            containers=containers,
            image=image,
            memory=memory,
            restart=restart,
        )

    def behind(self, live: Mapping[str, Any], containers: tuple[str, ...], image: ImageRef) -> bool:
        """Whether a pod of the current ReplicaSet does not ask for the image that the Deployment
        has: an earlier session ended before it was restarted."""
        if not (self._sets.synced.is_set() and self._pods.synced.is_set()):
            return False
        current = current_set(live, self._seen(self._sets))
        if current is None or images_of(current) != images_of(live):
            return False
        return any(
            pod_images(p).get(c) != image.pinned
            for p in pods_of(self._seen(self._pods), uid_of(current))
            for c in containers
        )

    def _seen(self, view: View) -> list[Mapping[str, Any]]:
        return [self.newest(thing) for thing in view.items()]

    def newest(self, seen: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was written last, where the watch has not told of it yet; else what it told."""
        own = self._wrote.get(uid_of(seen))
        return own if own is not None and _version(own) > _version(seen) else seen

    # --- the rollout ---------------------------------------------------------------------------

    def begin(
        self,
        live: Mapping[str, Any],
        containers: tuple[str, ...],
        image: ImageRef,
        hold: Callable[[], Mapping[str, Any]],
    ) -> tuple[Mapping[str, Any], str | None]:
        """Start, and with one replica also finish. `hold` writes the Deployment, paused and marked,
        with its new image. Returns the Deployment as it is then, and why it is rolled after all
        (the cluster refused a patch), None when it is not."""
        self._still()
        pods = self._pods_now(live)
        self._forget_others({uid_of(p) for p in pods})
        entry = self._enter(live, containers, image)
        self._old_events = frozenset(map(_event_key, self._events.items()))
        single = number(dig(live, "spec", "replicas"), 1) == 1 and len(pods) == 1
        todo = [p for p in pods if not _asks_for(p, entry)]
        beside: Background[None] | None = None
        if single and todo and self._open is None and self._restarts.includes(todo[0]):
            # What went well before is sent at the same time: each of the two waits for the cluster.
            pod = todo[0]
            self._journal.write(entry)  # before either
            beside = Background(
                "restart", lambda _: self._restart(pod, entry), expected=(DevloopError,)
            )
            result = self._hold_beside(entry, hold, beside, pod)
        else:
            result = self._hold(entry, hold)
        try:
            if beside is not None:
                beside.result(Cancel())
            elif todo:
                self._restart(todo[0], entry)
            return (self._finish(entry) or result if single else result), None
        except ApiError as error:
            if error.passing:
                raise
            return self._refused(entry, error) or result, self._barred

    def adopt(
        self,
        live: Mapping[str, Any],
        containers: tuple[str, ...],
        image: ImageRef,
        hold: Callable[[], Mapping[str, Any]],
    ) -> tuple[Mapping[str, Any], str | None]:
        """Bring Deployment and ReplicaSet to the image and leave the pods as they run; returns as
        `begin` does."""
        self._still()
        entry = self._enter(live, containers, image)
        result = self._hold(entry, hold)
        try:
            return self._finish(entry) or result, None
        except ApiError as error:
            if error.passing:
                raise
            return self._refused(entry, error) or result, self._barred

    def _enter(
        self, live: Mapping[str, Any], containers: tuple[str, ...], image: ImageRef
    ) -> RecoveryEntry:
        current = current_set(live, self._seen(self._sets))
        assert current is not None  # noqa: S101 - why_not said so
        had = images_of(current)
        return RecoveryEntry(
            context=self._connection.context,
            namespace=self._ref.namespace,
            name=self._ref.name,
            uid=uid_of(live),
            replicaset=name_of(current),
            before={c: had.get(c, "") for c in containers},
            after=dict.fromkeys(containers, image.pinned),
        )

    def _hold_beside(
        self,
        entry: RecoveryEntry,
        hold: Callable[[], Mapping[str, Any]],
        restart: Background[None],
        pod: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Hold while the pod is patched. If the Deployment does not get the image after all, the
        pod goes: its ReplicaSet makes it anew with the image that it had."""
        try:
            return self._hold(entry, hold)
        except BaseException:
            restart.join()
            self.make_anew(pod)
            raise

    def _hold(
        self, entry: RecoveryEntry, hold: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        self._journal.write(entry)
        already = self._open is not None
        try:
            result = hold()
        except ApiError:
            if not already:
                self._journal.remove(entry)
            raise
        self._wrote[uid_of(result)] = result
        self._open = entry
        if paused_by_other(result):
            self._leave_paused(entry)
        return result

    def _leave_paused(self, entry: RecoveryEntry) -> None:
        """Its owner paused it a moment before: it stays so, without devloop's mark."""
        body = {"metadata": {"uid": entry.uid, "labels": {HOLD: None}}}
        patch_as_devloop(self._connection, workload_path(self._ref), body)
        self._open = None
        self._journal.remove(entry)
        raise DevloopError.of(
            Code.CLUSTER_PAUSED,
            f"{self._ref} was paused just now: it does not roll anything out",
            suggestions=(f"kubectl -n {self._ref.namespace} rollout resume {self._ref}",),
        )

    def _pods_now(self, live: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The pods of the current ReplicaSet, those that are not ready first."""
        current = current_set(live, self._seen(self._sets))
        mine = pods_of(self._seen(self._pods), uid_of(current)) if current is not None else []
        return sorted(mine, key=lambda p: (pod_view(p).ready, name_of(p)))

    def _restart(self, pod: Mapping[str, Any], entry: RecoveryEntry) -> None:
        uid = uid_of(pod)
        marks = self._restarts.marks(pod, entry.after)
        image = next(iter(entry.after.values()))
        body = {"metadata": {"uid": uid}, "spec": template_patch(entry.after, image)}
        path = f"/api/v1/namespaces/{entry.namespace}/pods/{name_of(pod)}"
        result = patch_as_devloop(self._connection, path, body)
        if result is None:
            return  # it is gone: the next one comes from the ReplicaSet
        self._restarts.restarted(pod, marks, result)
        self._wrote[uid] = result

    def _finish(self, entry: RecoveryEntry) -> Mapping[str, Any] | None:
        """The ReplicaSet's template, then unpause; the Deployment as it is then."""
        image = next(iter(entry.after.values()))
        path = f"/apis/apps/v1/namespaces/{entry.namespace}/replicasets/{entry.replicaset}"
        changed = patch_as_devloop(
            self._connection,
            path,
            {"spec": {"template": {"spec": template_patch(entry.after, image)}}},
        )
        if changed is not None:
            self._wrote[uid_of(changed)] = changed
            self._wait_observed(changed)
        return self._release(entry)

    def _wait_observed(self, written: Mapping[str, Any]) -> None:
        """Wait until the controllers have the ReplicaSet as it is now.

        Deployments and ReplicaSets reach them on two streams. If the end of the pause came first,
        the Deployment would be rolled after all. All controllers read from one cache, and that of
        ReplicaSets says in the status what it saw there."""
        changed = threading.Event()
        deadline = time.monotonic() + _OBSERVED_SECONDS
        with self._sets.subscribe(lambda _: changed.set()):
            while not _observed(self._sets.get(name_of(written)), written):
                if not changed.wait(deadline - time.monotonic()):
                    return
                changed.clear()

    def _release(self, entry: RecoveryEntry) -> Mapping[str, Any] | None:
        result = release(self._connection, self._ref, entry.uid)
        if result is not None:
            self._wrote[uid_of(result)] = result
        self._open = None
        self._journal.remove(entry)
        return result

    def _refused(self, entry: RecoveryEntry, error: ApiError) -> Mapping[str, Any] | None:
        self._barred = f"the cluster refuses it: {error.diagnosis.message}"
        return self._release(entry)

    # --- following it --------------------------------------------------------------------------

    @property
    def replicaset(self) -> str:
        """The name of the ReplicaSet whose pods are being restarted; "" when none are."""
        entry = self._open
        return entry.replicaset if entry is not None else ""

    def advance(
        self, deployed: Deployed, accepted: frozenset[tuple[str, str]], cancel: Cancel
    ) -> None:
        """Restart the next pod once those before it serve, and finish after the last."""
        with self._lock:
            cancel.check()
            seen = self._workloads.get(self._ref.name)
            live = self.newest(seen) if seen is not None else None
            entry = self._open
            if entry is None:
                if live is not None and _has(live, deployed):
                    self._sweep(live, deployed.containers, deployed.image.pinned)
                return
            if entry.after != dict.fromkeys(deployed.containers, deployed.image.pinned):
                return
            if not held(live) or live is None or uid_of(live) != entry.uid:
                # Somebody resumed it: the controller rolls, and that is followed as ever.
                self._open = None
                self._journal.remove(entry)
                return
            pods = self._pods_now(live)
            asked = [p for p in pods if _asks_for(p, entry)]
            if not all(serves(pod_view(self.seen(p, deployed)), deployed, accepted) for p in asked):
                return
            todo = [p for p in pods if not _asks_for(p, entry)]
            try:
                if todo:
                    self._restart(todo[0], entry)
                elif len(pods) >= number(dig(live, "spec", "replicas"), 1):
                    self._finish(entry)
            except ApiError as error:
                if error.passing:
                    raise
                self._refused(entry, error)

    def seen(self, pod: Mapping[str, Any], deployed: Deployed) -> Mapping[str, Any]:
        """The pod as a rollout is to judge it."""
        if is_odd(pod, deployed.containers, deployed.image.pinned):
            return in_turn(pod, deployed.containers)
        return self._restarts.as_new(pod)

    def sweep(self, live: Mapping[str, Any], images: Mapping[str, str]) -> None:
        """After a rollback: see that no pod of the ReplicaSet that comes back is left with the
        image that failed. `images` maps containers to what they shall have."""
        for container, image in images.items():
            self._sweep(live, (container,), image)

    def _sweep(self, live: Mapping[str, Any], containers: tuple[str, ...], image: str) -> None:
        """Delete pods that ask for another image than their ReplicaSet, which makes them anew: the
        controller sees no difference between them and the others."""
        current = matching_set(live, self._seen(self._sets))
        if current is None or dig(live, "spec", "paused") is True:
            return
        pods = pods_of(self._seen(self._pods), uid_of(current))
        odd = [p for p in pods if is_odd(p, containers, image)]
        broken = [p for p in odd if not pod_view(p).ready]
        if not broken and not all(pod_view(p).ready for p in pods):
            return
        for pod in broken or odd[:1]:
            self.make_anew(pod)

    def held_back(self) -> list[Mapping[str, Any]]:
        """The pods whose new container the kubelet does not start yet."""
        return self._restarts.held_back(self._pods.items())

    def make_anew(self, pod: Mapping[str, Any]) -> None:
        """Delete the pod, if it is still there: its ReplicaSet makes another."""
        path = f"/api/v1/namespaces/{self._ref.namespace}/pods/{name_of(pod)}"
        body = {"preconditions": {"uid": uid_of(pod)}}
        with contextlib.suppress(DevloopError):
            self._wrote[uid_of(pod)] = self._connection.request("DELETE", path, body)

    def events(self) -> list[Mapping[str, Any]]:
        """The events since the rollout began: a pod that stays keeps those of its earlier lives."""
        return [e for e in self._events.items() if _event_key(e) not in self._old_events]

    def served(self) -> None:
        """What was restarted is ready: learn from how it went."""
        self._restarts.served(self._pods.items())

    # --- the end -------------------------------------------------------------------------------

    def settle(self) -> None:
        """If a rollout is still open, let the controller do the rest."""
        with self._lock:
            self._still()
            if self._open is not None:
                self._release(self._open)

    def settle_later(self) -> None:
        """As `settle`, unless a newer deploy takes the rollout over within a few seconds."""
        with self._lock:
            if self._open is None or self._timer is not None:
                return
            timer = threading.Timer(_SUCCESSOR_SECONDS, self._settle_quietly)
            timer.name, timer.daemon = f"devloop-settle {self._ref}", True
            self._timer = timer
            timer.start()

    def _settle_quietly(self) -> None:
        with contextlib.suppress(DevloopError, Cancelled):  # the journal keeps what is left
            self.settle()

    def _still(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """The end of the session: nothing stays paused."""
        timer = self._timer
        self._settle_quietly()
        if timer is not None and timer is not threading.current_thread():
            timer.join(timeout=1.0)

    def _forget_others(self, uids: set[str]) -> None:
        self._restarts.keep(uids)
        self._wrote = {k: v for k, v in self._wrote.items() if k in uids or v.get("kind") != "Pod"}


def _has(live: Mapping[str, Any], deployed: Deployed) -> bool:
    now = images_of(live)
    return all(now.get(c) == deployed.image.pinned for c in deployed.containers)


def _asks_for(pod: Mapping[str, Any], entry: RecoveryEntry) -> bool:
    now = pod_images(pod)
    return all(now.get(c) == image for c, image in entry.after.items())


def _observed(seen: Mapping[str, Any] | None, written: Mapping[str, Any]) -> bool:
    if seen is None or uid_of(seen) != uid_of(written):
        return False
    generation = number(metadata(written).get("generation"))
    return number(dig(seen, "status", "observedGeneration")) >= generation


def _version(thing: Mapping[str, Any]) -> int:
    found = text(metadata(thing).get("resourceVersion"))
    return int(found) if found.isdigit() else 0


def _event_key(event: Mapping[str, Any]) -> tuple[str, str]:
    return uid_of(event), text(metadata(event).get("resourceVersion"))
