"""Small writes that several parts of a deploy make: a patch as devloop, a pod that is deleted.

Whatever is written, it is only to the very object that was looked at: its uid goes along.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.connection import STRATEGIC
from devloop.cluster.api.pod_view import Json, items, metadata, name_of, text, uid_of
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection


# The field manager of all that devloop writes.
MANAGER = "devloop"

_DELETE_SECONDS = 10.0


def last_writer(live: Json) -> str:
    """The manager that last wrote the object itself (not its status), for messages."""
    others = _others(live)
    return text(others[-1].get("manager")) if others else "somebody"


def is_undone(live: Json) -> bool:
    """Whether `kubectl rollout undo` wrote last: of what kubectl updates it alone names no manager
    of its own, as `kubectl-set` and `kubectl-edit` are (seen with kubectl 1.32)."""
    others = _others(live)
    last = others[-1] if others else {}
    return last.get("manager") == "kubectl" and last.get("operation") == "Update"


def _others(live: Json) -> list[Json]:
    """What others than devloop wrote of the object itself, by time."""
    entries = [
        e
        for e in items(metadata(live).get("managedFields"))
        if not e.get("subresource") and e.get("manager") != MANAGER
    ]
    return sorted(entries, key=lambda e: text(e.get("time")))


def patch_as_devloop(connection: Connection, path: str, body: Json) -> dict[str, Any] | None:
    """A strategic merge patch; None when the object is gone or is another one than the uid in
    `body` says. Errors: cluster/*."""
    query = {"fieldManager": MANAGER}
    try:
        return connection.request("PATCH", path, body, query=query, content_type=STRATEGIC)
    except ApiError as error:
        if error.status == 404 or is_another(error):
            return None
        raise


def is_another(error: ApiError) -> bool:
    """Whether a patch was refused since the object has another uid: 409, or 422 where the server
    takes it for an attempt to change the uid."""
    conflict = error.status == 409 and "UID" in error.text
    return conflict or any(c.get("field") == "metadata.uid" for c in error.causes)


def delete_pod(connection: Connection, pod: Json, *, grace: int | None = None) -> dict[str, Any]:
    """Delete this very pod, so that its controller makes another; returns the server's answer, {}
    where it refuses or the pod is gone. `grace` is in seconds, None for the pod's own."""
    path = f"/api/v1/namespaces/{text(metadata(pod).get('namespace'))}/pods/{name_of(pod)}"
    body: dict[str, Any] = {"preconditions": {"uid": uid_of(pod)}}
    if grace is not None:
        body["gracePeriodSeconds"] = grace
    with contextlib.suppress(DevloopError):
        return connection.request("DELETE", path, body, timeout=_DELETE_SECONDS)
    return {}
