"""What runs of a service right now, read once from the cluster for `devloop status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import dig, images_of, items, number, pod_view
from devloop.cluster.api.view import owned_by

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.cluster.api.connection import Connection
    from devloop.model import PodView, WorkloadRef


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadStatus:
    """One workload. `images` are the template's, by container; `found` is False when it does not
    exist, and everything else is then empty."""

    workload: WorkloadRef
    found: bool
    images: dict[str, str]
    wanted: int = 0
    ready: int = 0
    pods: tuple[PodView, ...] = ()


def read_status(connection: Connection, refs: Iterable[WorkloadRef]) -> tuple[WorkloadStatus, ...]:
    """The status of each workload, in the order given. Errors: cluster/*."""
    pods: dict[str, list[dict[str, object]]] = {}
    found: list[WorkloadStatus] = []
    for ref in refs:
        if ref.namespace not in pods:
            listing = connection.request("GET", f"/api/v1/namespaces/{ref.namespace}/pods")
            pods[ref.namespace] = items(listing.get("items"))
        thing = connection.find(workload_path(ref))
        if thing is None:
            found.append(WorkloadStatus(workload=ref, found=False, images={}))
            continue
        wanted, ready = ("spec", "replicas"), "readyReplicas"
        if ref.kind == "daemonset":
            wanted, ready = ("status", "desiredNumberScheduled"), "numberReady"
        mine = owned_by(ref)
        found.append(
            WorkloadStatus(
                workload=ref,
                found=True,
                images=images_of(thing),
                wanted=number(dig(thing, *wanted)),
                ready=number(dig(thing, "status", ready)),
                pods=tuple(pod_view(pod) for pod in pods[ref.namespace] if mine(pod)),
            )
        )
    return tuple(found)
