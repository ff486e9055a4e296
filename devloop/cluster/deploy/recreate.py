"""Pods that have new ones made in their place, because what is in them is not known."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, alive, controller_of, name_of, pod_images, uid_of
from devloop.cluster.api.view import owned_by
from devloop.cluster.api.writes import delete_pod
from devloop.cluster.rollout.replica_sets import matching_set, pods_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.model import ImageRef, WorkloadRef


_GONE_SECONDS = 10.0


def recreate(
    connection: Connection,
    view: ClusterView,
    namespace: str,
    names: Collection[str],
    cancel: Cancel,
) -> None:
    """Delete the pods of these names; their controllers make others. Returns once the watch has
    seen them go, at the latest after some seconds: what is there then, the rollout is judged by."""
    pods = view.view("pods", namespace)
    going = [pod for name in names if (pod := pods.get(name)) is not None]
    uids = set(map(uid_of, going))
    changed = threading.Event()
    deadline = time.monotonic() + _GONE_SECONDS
    with pods.subscribe(lambda _: changed.set()), cancel.closing(changed.set):
        for pod in going:
            delete_pod(connection, pod)
        while uids & set(map(uid_of, alive(pods.items()))) and time.monotonic() < deadline:
            changed.wait(max(0.0, deadline - time.monotonic()))
            cancel.check()
            changed.clear()


def uids_of(view: ClusterView, refs: Iterable[WorkloadRef], cancel: Cancel) -> frozenset[str]:
    """The pods that there are in the namespaces of `refs`. Errors: cluster/* when that is not known
    within a while."""
    found: set[str] = set()
    for ref in refs:
        if ref.kind == "deployment":
            view.view("replicasets", ref.namespace).wait_synced(cancel)
        pods = view.view("pods", ref.namespace)
        pods.wait_synced(cancel)
        found.update(map(uid_of, pods.items()))
    return frozenset(found)


def staying(
    view: ClusterView,
    ref: WorkloadRef,
    live: Json | None,
    image: ImageRef,
    before: Collection[str],
) -> tuple[str, ...]:
    """The pods of `ref` among `before` (uids) that no rollout to `image` replaces, as the workload
    is now: a Deployment keeps those of the ReplicaSet that has its template, whatever image they
    started with."""
    pods = [p for p in alive(view.view("pods", ref.namespace).items()) if uid_of(p) in before]
    if ref.kind == "deployment":
        sets = view.view("replicasets", ref.namespace).items()
        kept = matching_set(live, sets) if live is not None else None
        return tuple(map(name_of, pods_of(pods, uid_of(kept)))) if kept is not None else ()
    mine = [p for p in filter(owned_by(ref), pods) if controller_of(p) is not None]
    return tuple(name_of(p) for p in mine if image.pinned in pod_images(p).values())
