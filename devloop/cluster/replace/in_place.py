"""`replace: in-place`: the containers of one Deployment's pods are restarted with the new image.

Pause the Deployment with the new image, patch the image of its pods (one after the other by
readiness), patch the ReplicaSet's template, wait until the controllers saw that, resume. Whatever
breaks off in between is recovered by resuming alone: the controller then either finds the
ReplicaSet equal to the Deployment and does nothing, or rolls. So this is all that recovery does,
and no state is left that it does not cover.
What may be done in place is decided in `in_place_rules`.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.threads import Background
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.pod_view import (
    Json,
    dig,
    images_of,
    name_of,
    number,
    pod_images,
    pod_view,
    uid_of,
)
from devloop.cluster.api.writes import delete_pod, patch_as_devloop
from devloop.cluster.replace.in_place_rules import in_place_blocker, template_patch
from devloop.cluster.replace.pause import paused_by_devloop, paused_by_other, resume
from devloop.cluster.replace.recovery_log import RecoveryEntry
from devloop.cluster.replace.strategy import Change, Replaced, Replacement, Written
from devloop.cluster.rollout.replica_sets import current_set, matching_set, pods_of
from devloop.cluster.rollout.restarted_pod import mismatched, pending
from devloop.cluster.rollout.rollout_status import serves
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.replace.live_objects import LiveObjects
    from devloop.cluster.replace.pod_restarts import PodRestarts
    from devloop.cluster.replace.recovery_log import RecoveryLog
    from devloop.cluster.replace.stop_signal import StopSignals
    from devloop.cluster.replace.workload_lock import WorkloadLock
    from devloop.cluster.rollout.rollout_status import Accepted
    from devloop.model import DeployedWorkload, ImageRef, WorkloadRef


_LOG = logging.getLogger(__name__)

# How long a rollout of several pods that was interrupted by a newer save waits for its successor.
_SUCCESSOR_SECONDS = 3.0


class InPlace(Replacement):
    """One Deployment's in-place rollouts and what was learned of its pods.

    `lock` is the workload's: `blocker`, `replace` and `adopt` are called with it held, everything
    else without."""

    def __init__(
        self,
        connection: Connection,
        ref: WorkloadRef,
        *,
        objects: LiveObjects,
        recovery_log: RecoveryLog,
        restarts: PodRestarts,
        signals: StopSignals,
        lock: WorkloadLock,
    ) -> None:
        self._connection = connection
        self._ref = ref
        self._lock = lock
        self._recovery_log = recovery_log
        self._restarts = restarts
        self._signals = signals
        self._asking: Background[None] | None = None
        self._objects = objects
        self._open: RecoveryEntry | None = None
        self._refusal = ""
        self._timer: Background[None] | None = None

    # --- deciding ------------------------------------------------------------------------------

    def blocker(self, change: Change, cancel: Cancel) -> str | None:
        live = change.live
        if live is None or not (
            change.image_differs
            or paused_by_devloop(live)
            or self._behind(live, change.containers, change.image)
        ):
            return ""
        return (
            self._rules(change, live, cancel, restart=True)
            or change.write.other_changes()
            or self._signal_blocker(change, live, cancel)
            or None
        )

    def _signal_blocker(self, change: Change, live: Json, cancel: Cancel) -> str:
        for pod in self._objects.current_pods(live):
            for name in change.containers:
                if pod_images(pod).get(name) == change.image.pinned:
                    continue
                if blocker := self._signals.blocker(pod, name, cancel):
                    return blocker
        return ""

    def _rules(self, change: Change, live: Json, cancel: Cancel, *, restart: bool) -> str | None:
        try:
            self._objects.wait_synced(cancel)
        except DevloopError as error:
            return error.diagnosis.message
        return in_place_blocker(
            live,
            self._objects.replicasets(),
            self._objects.pods(),
            containers=change.containers,
            image=change.image,
            memory=self._restarts.memory(self._refusal),
            restart=restart,
            insists=change.insists,
        )

    def _behind(self, live: Json, containers: tuple[str, ...], image: ImageRef) -> bool:
        """Whether a pod of the current ReplicaSet does not ask for the image that the Deployment
        has: an earlier session ended before it was restarted."""
        if not self._objects.synced:
            return False
        current = current_set(live, self._objects.replicasets())
        if current is None or images_of(current) != images_of(live):
            return False
        return any(
            pod_images(p).get(c) != image.pinned
            for p in self._objects.current_pods(live)
            for c in containers
        )

    # --- the rollout ---------------------------------------------------------------------------

    def replace(self, change: Change, cancel: Cancel) -> Replaced:
        """Start, and with one replica also finish. A patch that the cluster refuses for good makes
        it a rolling update."""
        live = change.live or {}
        pods = self._objects.current_pods(live)
        uids = {uid_of(p) for p in pods}
        self._restarts.keep(uids)
        self._objects.keep_pods(uids)
        entry = self._enter(change)
        self._objects.begin_events()
        replicas = number(dig(live, "spec", "replicas"), 1)
        single = replicas == 1 and len(pods) == 1
        todo = [p for p in pods if not _asks_for(p, entry)]
        restart = partial(self._restart, todo[0], entry) if todo else None
        if restart and single and self._open is None and self._restarts.includes(todo[0]):
            # What went well before is sent at the same time: each of the two waits for the cluster.
            self._recovery_log.write(entry)  # before either
            beside = Background(
                "restart", lambda _: self._restart(todo[0], entry), expected=(DevloopError,)
            )
            try:
                result = self._pause(entry, change)
            except BaseException:
                # The Deployment did not get the image after all, so the pod goes: its ReplicaSet
                # makes another with the image that it had.
                beside.join()
                self.recreate(todo[0])
                raise
            restart = partial(beside.result, Cancel())
        else:
            result = self._pause(entry, change)
        with self._or_roll(entry):
            if restart is not None:
                restart()
            if single:
                self._finish(entry, cancel)
        written = Written(object=self._objects.newest(result))
        if self._refusal:
            return Replaced(how="rolling", written=written, blocker=self._refusal)
        return Replaced(how="in-place", written=written, alone=replicas == 1)

    def adopt(self, change: Change, cancel: Cancel) -> tuple[Json | None, str | None]:
        """Bring Deployment and ReplicaSet to the image and leave the pods as they run. Returns the
        Deployment as it is then, None where nothing was written; and why not, None when it is
        so."""
        live = change.live or {}
        blocker = self._rules(change, live, cancel, restart=False) or change.write.other_changes()
        if blocker:
            return None, blocker
        entry = self._enter(change)
        result = self._pause(entry, change)
        with self._or_roll(entry):
            self._finish(entry, cancel)
        return self._objects.newest(result), self._refusal or None

    def _enter(self, change: Change) -> RecoveryEntry:
        live = change.live or {}
        current = current_set(live, self._objects.replicasets())
        assert current is not None  # noqa: S101 - in_place_blocker said so
        had = images_of(current)
        return RecoveryEntry(
            strategy="in-place",
            context=self._connection.context,
            namespace=self._ref.namespace,
            name=self._ref.name,
            uid=uid_of(live),
            replicaset=name_of(current),
            before={c: had.get(c, "") for c in change.containers},
            after=dict.fromkeys(change.containers, change.image.pinned),
        )

    def _pause(self, entry: RecoveryEntry, change: Change) -> Json:
        self._recovery_log.write(entry)
        already = self._open is not None
        try:
            result = change.write.paused()
        except ApiError:
            if not already:
                self._recovery_log.remove(entry)
            raise
        self._objects.wrote(result)
        self._stop_timer()
        self._open = entry
        if paused_by_other(result):
            # Its owner paused it a moment before: it stays so, without devloop's mark.
            resume(self._connection, self._ref, entry.uid, stay_paused=True)
            self._done(entry)
            raise DevloopError.of(
                Code.CLUSTER_PAUSED,
                f"{self._ref} was paused just now: it does not roll anything out",
                suggestions=(f"kubectl -n {self._ref.namespace} rollout resume {self._ref}",),
            )
        return result

    def _restart(self, pod: Json, entry: RecoveryEntry) -> None:
        records = self._restarts.records(pod, entry.after)
        body = {"metadata": {"uid": uid_of(pod)}, "spec": template_patch(entry.after)}
        path = f"/api/v1/namespaces/{entry.namespace}/pods/{name_of(pod)}"
        result = patch_as_devloop(self._connection, path, body)
        if result is None:
            return  # it is gone: the next one comes from the ReplicaSet
        self._restarts.restarted(pod, records, result)
        self._objects.wrote(result)

    def _finish(self, entry: RecoveryEntry, cancel: Cancel) -> None:
        """The ReplicaSet's template, then resume."""
        path = f"/apis/apps/v1/namespaces/{entry.namespace}/replicasets/{entry.replicaset}"
        body = {"spec": {"template": {"spec": template_patch(entry.after)}}}
        changed = patch_as_devloop(self._connection, path, body)
        if changed is not None:
            self._objects.wrote(changed)
            self._objects.wait_observed(changed, cancel)
        self._resume(entry)

    def _resume(self, entry: RecoveryEntry) -> None:
        result = resume(self._connection, self._ref, entry.uid)
        if result is not None:
            self._objects.wrote(result)
        self._done(entry)

    @contextlib.contextmanager
    def _or_roll(self, entry: RecoveryEntry) -> Iterator[None]:
        """What the cluster refuses for good it is not asked for again: the controller rolls."""
        try:
            yield
        except ApiError as error:
            if error.passing:
                raise
            self._refusal = f"the cluster refuses it: {error.diagnosis.message}"
            self._resume(entry)

    def _done(self, entry: RecoveryEntry) -> None:
        self._open = None
        self._recovery_log.remove(entry)

    # --- following it --------------------------------------------------------------------------

    def advance(self, deployed: DeployedWorkload, accepted: Accepted, cancel: Cancel) -> str:
        """Restart the next pod once those before it serve, and finish after the last."""
        with self._lock.acquired(cancel):
            live, entry = self._objects.workload(), self._open
            wanted = _wanted(deployed)
            if live is None or entry is None:
                if live is not None and wanted.items() <= images_of(live).items():
                    self._sweep(live, wanted)
            elif not paused_by_devloop(live) or uid_of(live) != entry.uid:
                # Somebody resumed it: the controller rolls, and that is followed as ever.
                self._done(entry)
            elif entry.after == wanted:
                self._advance(live, entry, deployed, accepted, cancel)
            return self._open.replicaset if self._open is not None else ""

    def _advance(
        self,
        live: Json,
        entry: RecoveryEntry,
        deployed: DeployedWorkload,
        accepted: Accepted,
        cancel: Cancel,
    ) -> None:
        pods = self._objects.current_pods(live)
        todo = [p for p in pods if not _asks_for(p, entry)]
        asked = [p for p in pods if p not in todo]
        if not all(serves(pod_view(self.seen(p, deployed)), deployed, accepted) for p in asked):
            return
        with self._or_roll(entry):
            if todo:
                self._restart(todo[0], entry)
            elif len(pods) >= number(dig(live, "spec", "replicas"), 1):
                self._finish(entry, cancel)

    def seen(self, pod: Json, deployed: DeployedWorkload) -> Json:
        if mismatched(pod, deployed.containers, deployed.image.pinned):
            return pending(pod, deployed.containers)
        return self._restarts.normalised(pod)

    def newest(self, workload: Json) -> Json:
        return self._objects.newest(workload)

    def is_news(self, event: Json) -> bool:
        return self._objects.is_news(event)

    def had_before(self, pod: Json, image_id: str) -> bool:
        return self._restarts.had_before(pod, image_id)

    def in_back_off(self) -> list[Json]:
        return self._restarts.in_back_off(self._objects.pods())

    def recreate(self, pod: Json) -> None:
        self._objects.wrote(delete_pod(self._connection, pod))

    def _sweep(self, live: Json, images: Mapping[str, str]) -> None:
        """Recreate pods that ask for another image than their ReplicaSet: the controller sees no
        difference between them and the others."""
        current = matching_set(live, self._objects.replicasets())
        if current is None or dig(live, "spec", "paused") is True:
            return
        pods = pods_of(self._objects.pods(), uid_of(current))
        wrong = [p for p in pods if any(mismatched(p, (c,), i) for c, i in images.items())]
        broken = [p for p in wrong if not pod_view(p).ready]
        if not broken and not all(pod_view(p).ready for p in pods):
            return
        for pod in broken or wrong[:1]:
            self.recreate(pod)

    # --- the end -------------------------------------------------------------------------------

    def ready(self, deployed: DeployedWorkload) -> None:
        """Learn from how it went, and ask ahead of the next save."""
        self._restarts.served(self._objects.pods())
        if self._asking is not None:
            self._asking.stop()
        ask = partial(self._ask, deployed.containers)
        self._asking = Background("stop-signal", ask, expected=(DevloopError,))

    def _ask(self, containers: tuple[str, ...], cancel: Cancel) -> None:
        live = self._objects.workload()
        for pod in self._objects.current_pods(live) if live is not None else ():
            for name in containers:
                self._signals.blocker(pod, name, cancel)

    def rolled_back(self, live: Json, images: Mapping[str, str]) -> None:
        """See that no pod of the ReplicaSet that comes back is left with the image that failed."""
        self._sweep(live, images)

    def failed(self, deployed: DeployedWorkload) -> None:
        """If the rollout is still open, let the controller do the rest."""
        if (entry := self._open_for(deployed)) is not None:
            self._settle(entry, Cancel())

    def superseded(self, deployed: DeployedWorkload) -> None:
        """As `failed`, unless a newer deploy takes the rollout over within a few seconds."""
        if (entry := self._open_for(deployed)) is not None:
            self._stop_timer()
            self._timer = Background("settle", partial(self._settle_later, entry))

    def _open_for(self, deployed: DeployedWorkload) -> RecoveryEntry | None:
        """The open rollout if it is the one of `deployed`, not that of another service."""
        entry = self._open
        return entry if entry is not None and entry.after == _wanted(deployed) else None

    def _settle_later(self, entry: RecoveryEntry, stopped: Cancel) -> None:
        if stopped.wait(_SUCCESSOR_SECONDS):
            return
        try:
            self._settle(entry, Cancel())
        except DevloopError as error:  # the recovery log keeps what is left
            _LOG.warning("%s stays paused for now: %s", self._ref, error)

    def _settle(self, entry: RecoveryEntry | None, cancel: Cancel) -> None:
        with self._lock.acquired(cancel):
            # Another one was opened meanwhile: that is its own deploy's.
            if entry is not None and self._open is entry:
                self._stop_timer()
                self._resume(entry)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()

    def close(self, cancel: Cancel) -> None:
        """Nothing stays paused."""
        if self._asking is not None:
            self._asking.close()
        if (timer := self._timer) is not None:
            timer.close()
        self._settle(self._open, cancel)


def _wanted(deployed: DeployedWorkload) -> dict[str, str]:
    return dict.fromkeys(deployed.containers, deployed.image.pinned)


def _asks_for(pod: Json, entry: RecoveryEntry) -> bool:
    return entry.after.items() <= pod_images(pod).items()
