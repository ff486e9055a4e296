"""What the cluster has right now, read once: what runs of a service, for `devloop status`, and
which images may still be needed, for housekeeping: those must not be deleted from a registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import Json, dig, images_of, items, number, pod_view, text
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
        wanted, ready = _counts(ref, thing)
        found.append(
            WorkloadStatus(
                workload=ref,
                found=True,
                images=images_of(thing),
                wanted=wanted,
                ready=ready,
                pods=tuple(map(pod_view, filter(owned_by(ref), pods[ref.namespace]))),
            )
        )
    return tuple(found)


def _counts(ref: WorkloadRef, thing: Json) -> tuple[int, int]:
    """How many pods are wanted, and how many are ready; of a Job, how many are to complete and
    have."""
    if ref.kind == "daemonset":
        wanted, ready = dig(thing, "status", "desiredNumberScheduled"), "numberReady"
    elif ref.kind == "job":
        wanted, ready = dig(thing, "spec", "completions") or 1, "succeeded"
    elif ref.kind == "pod":
        return 1, int(pod_view(thing).ready)
    else:
        wanted, ready = dig(thing, "spec", "replicas"), "readyReplicas"
    return number(wanted), number(dig(thing, "status", ready))


# ReplicaSets and ControllerRevisions are what `kubectl rollout undo` goes back to.
_KINDS = (
    ("/api/v1", "pods", ("spec",)),
    ("/apis/apps/v1", "deployments", ("spec", "template", "spec")),
    ("/apis/apps/v1", "replicasets", ("spec", "template", "spec")),
    ("/apis/apps/v1", "statefulsets", ("spec", "template", "spec")),
    ("/apis/apps/v1", "daemonsets", ("spec", "template", "spec")),
    ("/apis/apps/v1", "controllerrevisions", ("data", "spec", "template", "spec")),
    ("/apis/batch/v1", "jobs", ("spec", "template", "spec")),
    ("/apis/batch/v1", "cronjobs", ("spec", "jobTemplate", "spec", "template", "spec")),
)


def digests_in_use(connection: Connection) -> frozenset[str]:
    """Every `sha256:...` that the cluster names, of all namespaces where it allows the question,
    else of the connection's own. Errors: cluster/*."""
    found: set[str] = set()
    for root, plural, where in _KINDS:
        listing = connection.find(f"{root}/{plural}", absent={403})
        if listing is None:
            own = f"{root}/namespaces/{connection.namespace}/{plural}"
            listing = connection.request("GET", own)
        for thing in items(listing.get("items")):
            spec = dig(thing, *where)
            names = [
                text(container.get("image"))
                for key in ("initContainers", "containers", "ephemeralContainers")
                for container in items(dig(spec, key))
            ]
            statuses = items(dig(thing, "status", "containerStatuses"))
            names += [text(status.get("imageID")) for status in statuses]
            found.update(f"sha256:{n.rpartition('@sha256:')[2]}" for n in names if "@sha256:" in n)
    return frozenset(found)
