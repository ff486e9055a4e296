"""Whether what a pod waits for is on its way: asked for once a grace is over. Must not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, items, metadata, uid_of
from devloop.cluster.rollout.patience import SCALING
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection


# That it is there is all there is to know; what is in a Secret is nobody's business.
_METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


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
