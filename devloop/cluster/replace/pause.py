"""The pause of a Deployment in the middle of an in-place replacement, and devloop's mark on it.

What is paused without the mark is its owner's affair and stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import Json, dig, items, labels, metadata
from devloop.cluster.api.writes import MANAGER, patch_as_devloop

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection
    from devloop.model import WorkloadRef


# A label, since the controller copies a Deployment's annotations to its ReplicaSets, where this one
# would stay and come back with a `rollout undo`.
PAUSE_LABEL = "devloop.dev/in-place"


def paused_by_devloop(live: Json | None) -> bool:
    """Whether the Deployment is in the middle of an in-place replacement."""
    return live is not None and PAUSE_LABEL in labels(live) and dig(live, "spec", "paused") is True


def paused_by_other(live: Json) -> bool:
    """Whether somebody else than devloop says that the Deployment is paused."""
    return any(
        entry.get("manager") != MANAGER and dig(entry, "fieldsV1", "f:spec", "f:paused") is not None
        for entry in items(metadata(live).get("managedFields"))
    )


def with_pause(body: Json) -> dict[str, Any]:
    """The Deployment (or a patch of one) that is paused and marked as paused by devloop."""
    meta = metadata(body)
    return {
        **body,
        "metadata": {**meta, "labels": {**(meta.get("labels") or {}), PAUSE_LABEL: "paused"}},
        "spec": {**(dig(body, "spec") or {}), "paused": True},
    }


def resume(
    connection: Connection, ref: WorkloadRef, uid: str, *, stay_paused: bool = False
) -> dict[str, Any] | None:
    """End devloop's pause, or with `stay_paused` only take its mark away; None when the Deployment
    is gone. Only takes fields away, so that it leaves no ownership behind."""
    body: dict[str, Any] = {"metadata": {"uid": uid, "labels": {PAUSE_LABEL: None}}}
    if not stay_paused:
        body["spec"] = {"paused": None}
    return patch_as_devloop(connection, workload_path(ref), body)
