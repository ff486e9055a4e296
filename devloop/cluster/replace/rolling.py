"""What the controllers do: `replace: rolling`, by the workload's own strategy, and `replace: fast`,
all new pods at once, and old ones that are asked to stop get a second.

Only the Deployment's strategy changes for `fast`, never its pod template, so that putting it back
at the end of a session starts no rollout. The grace is cut short pod by pod instead.
"""

# ruff: noqa: ARG002 - the interface
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import Json, dig, metadata, number, pod_images, uid_of
from devloop.cluster.api.view import owned_by
from devloop.cluster.api.writes import delete_pod, patch_as_devloop
from devloop.cluster.replace.pause import paused_by_devloop, resume
from devloop.cluster.replace.strategy import Change, Replaced, Replacement
from devloop.cluster.rollout.replica_sets import pods_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.replace.recovery_log import RecoveryEntry, RecoveryLog
    from devloop.cluster.replace.strategy import Written
    from devloop.cluster.replace.workload_lock import WorkloadLock
    from devloop.cluster.rollout.rollout_status import Accepted
    from devloop.model import DeployedWorkload


_SURGE = {"maxSurge": "100%", "maxUnavailable": 0}
_GRACE_SECONDS = 1


def is_fast(thing: Json) -> bool:
    return bool(dig(thing, "spec", "strategy", "rollingUpdate") == _SURGE)


def with_fast_strategy(deployment: Json) -> dict[str, Any]:
    """The Deployment (a manifest, or one from the cluster) with the strategy of `fast`. Recreate
    stays: it says that old and new pods must not run side by side."""
    spec = dict(deployment.get("spec") or {})
    if dig(spec, "strategy", "type") != "Recreate":
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": dict(_SURGE)}
    return {**deployment, "spec": spec}


def strategy_patch(strategy: Json) -> dict[str, Any]:
    """For a strategic merge patch: puts back the surge and unavailability of `strategy`, or the
    server's defaults for what it leaves open."""
    rolling = dig(strategy, "rollingUpdate") or {}
    return {"rollingUpdate": {key: rolling.get(key) for key in _SURGE}}


def restore_strategy(connection: Connection, log: RecoveryLog, entry: RecoveryEntry) -> None:
    """Give a Deployment back the update strategy that `fast` took away."""
    strategy = strategy_patch(entry.update_strategy)
    body = {"metadata": {"uid": entry.uid}, "spec": {"strategy": strategy}}
    patch_as_devloop(connection, workload_path(entry.ref), body)
    log.remove(entry)


class RollingUpdate(Replacement):
    """Always possible: the last in every order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def blocker(self, change: Change, cancel: Cancel) -> str | None:
        return None

    def replace(self, change: Change, cancel: Cancel) -> Replaced:
        return Replaced(how="rolling", written=self._resumed(change, change.write.plain()))

    def _resumed(self, change: Change, written: Written) -> Written:
        """What is to be rolled is not left paused by an in-place replacement before."""
        if not paused_by_devloop(written.object):
            return written
        resumed = resume(self._connection, change.ref, uid_of(written.object))
        return replace(written, object=resumed or written.object)


class NewPods(RollingUpdate):
    """Of a ReplicaSet without a Deployment, which makes pods from its template and replaces none:
    those that have another image are deleted."""

    def __init__(self, connection: Connection, view: ClusterView) -> None:
        super().__init__(connection)
        self._view = view
        self._deleted: set[str] = set()

    def advance(self, deployed: DeployedWorkload, accepted: Accepted, cancel: Cancel) -> str:
        wanted = dict.fromkeys(deployed.containers, deployed.image.pinned)
        pods = self._view.view("pods", deployed.workload.namespace).items()
        self._deleted &= {uid_of(pod) for pod in pods}
        for pod in pods_of(pods, deployed.uid):
            if wanted.items() <= pod_images(pod).items() or uid_of(pod) in self._deleted:
                continue
            # One that was not answered, as by a busy server, is asked for again at the next look.
            if delete_pod(self._connection, pod):
                self._deleted.add(uid_of(pod))
        return ""


class FastUpdate(RollingUpdate):
    """One service's."""

    def __init__(self, connection: Connection, view: ClusterView, lock: WorkloadLock) -> None:
        super().__init__(connection)
        self._view = view
        self._lock = lock
        self._hurried: set[str] = set()
        self._restore: Callable[[], None] | None = None

    def replace(self, change: Change, cancel: Cancel) -> Replaced:
        self._restore = change.write.restore_strategy() or self._restore
        return Replaced(how="fast", written=self._resumed(change, change.write.fast()))

    def advance(self, deployed: DeployedWorkload, accepted: Accepted, cancel: Cancel) -> str:
        """Cut the grace of the workload's pods that are asked to stop, once for each."""
        ref = deployed.workload
        pods = self._view.view("pods", ref.namespace).items()
        self._hurried &= {uid_of(pod) for pod in pods}
        for pod in filter(owned_by(ref), pods):
            left = number(metadata(pod).get("deletionGracePeriodSeconds"))
            if left > _GRACE_SECONDS and uid_of(pod) not in self._hurried:
                self._hurried.add(uid_of(pod))
                delete_pod(self._connection, pod, grace=_GRACE_SECONDS)
        return ""

    def close(self, cancel: Cancel) -> None:
        """The strategy is what it was. Where the cluster is not reached, the recovery log keeps it,
        or it differs from the manifest, and the next start recovers it."""
        restore, self._restore = self._restore, None
        if restore is not None:
            with self._lock.acquired(cancel):
                restore()
