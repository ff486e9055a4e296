"""Whether what a pod waits for is on its way: asked for once a grace is over. Must not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, items, metadata, uid_of
from devloop.cluster.rollout.patience import SCALING, cured_by_waiting
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.rollout.diagnose import Finding
    from devloop.cluster.rollout.patience import Patience
    from devloop.model import WorkloadRef


# That it is there is all there is to know; what is in a Secret is nobody's business.
_METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


class Cures:
    """For the pods of one workload; remembers what was found to be on its way."""

    def __init__(self, connection: Connection, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
        self._coming: dict[tuple[str, ...], str] = {}

    def of(
        self,
        finding: Finding,
        pod: Json,
        pods: Iterable[Json],
        others: Iterable[WorkloadRef] = (),
    ) -> str | None:
        """What a trouble of `pod` is waited out for, in words that follow "waits for": "" where
        the grace alone is, None when that is over in vain. `pods` and `others` as for
        `cured_by_waiting`."""
        key = finding.key
        cure = cured_by_waiting(finding, pod, pods, others) or self._coming.get(key, "")
        if cure or not self._patience.lasted(key, finding.grace):
            return cure
        namespace = str(metadata(pod).get("namespace"))
        if finding.missing is not None and is_there(self._connection, namespace, *finding.missing):
            cure = f"the node to see {finding.missing[0]} {finding.missing[1]!r}"
        elif finding.diagnosis.code is Code.POD_UNSCHEDULABLE:
            cure = "a new node" if node_is_made(self._connection, pod) else ""
        if not cure:
            return None
        self._coming[key] = cure
        return cure


def is_there(connection: Connection, namespace: str, kind: str, name: str) -> bool:
    """Whether the ConfigMap or Secret exists; False where that must not be known. `kind` in lower
    case."""
    path = f"/api/v1/namespaces/{namespace}/{kind}s/{name}"
    try:
        answer = connection.send(
            "GET", path, headers={"Accept": _METADATA}, silence=5.0, whole=True
        )
    except DevloopError:
        return False
    answer.close()
    return True


def node_is_made(connection: Connection, pod: Json) -> bool:
    """Whether an autoscaler reports that it makes a node for the pod. These are events of type
    Normal, which no view has."""
    path = f"/api/v1/namespaces/{metadata(pod).get('namespace')}/events"
    query = {"fieldSelector": f"involvedObject.uid={uid_of(pod)}"}
    try:
        found = connection.request("GET", path, query=query, timeout=5.0)
    except DevloopError:
        return False
    return any(event.get("reason") in SCALING for event in items(found.get("items")))
