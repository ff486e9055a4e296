"""What devloop wrote of objects that a GitOps tool has again is nobody's afterwards.

Server-side apply keeps a field for as long as anybody owns it: what a team later takes out of its
manifests would stay in the cluster where a session of devloop had applied it once.

Sources: https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership
(who leaves `managedFields` owns nothing, and no value changes), the ids of
https://fluxcd.io/flux/components/kustomize/kustomizations/#inventory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.kinds import Resource, assumed_resource
from devloop.cluster.api.pod_view import Json, annotation, dig, items, metadata, text
from devloop.cluster.api.writes import MANAGER
from devloop.cluster.deploy.ownership import APPLIED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.api.connection import Connection

_MERGE = "application/merge-patch+json"
_TRIES = 5


def let_go(connection: Connection, owner: Json) -> None:
    """Take devloop off the objects that this owner lists as its own, and its mark of what it
    applied; nothing else of them changes. One that may not be read or written stays as it is.
    Errors: cluster/* where the cluster is not reached."""
    for resource, namespace, name in _listed(owner):
        path = resource.path(namespace, name)
        for _ in range(_TRIES):
            live = connection.find(path, absent=(403, 404))
            if live is None or (body := _without_devloop(live)) is None:
                break
            try:
                connection.request("PATCH", path, body, content_type=_MERGE)
            except ApiError as error:
                if error.status == 409:
                    continue  # the owner writes it right now
            break


def _listed(owner: Json) -> Iterator[tuple[Resource, str, str]]:
    """Kind, namespace and name of what a Kustomization has applied, or an Application."""
    for entry in items(dig(owner, "status", "inventory", "entries")):
        # NAMESPACE_NAME_GROUP_KIND; a name has no underscore, and `__` for a colon.
        namespace, _, rest = text(entry.get("id")).partition("_")
        rest, _, kind = rest.rpartition("_")
        name, _, group = rest.rpartition("_")
        yield _resource(group, text(entry.get("v")), kind), namespace, name.replace("__", ":")
    for entry in items(dig(owner, "status", "resources")):
        group, version, kind = (text(entry.get(key)) for key in ("group", "version", "kind"))
        yield _resource(group, version, kind), text(entry.get("namespace")), text(entry.get("name"))


def _resource(group: str, version: str, kind: str) -> Resource:
    return assumed_resource(f"{group}/{version}" if group else version, kind)


def _without_devloop(live: Json) -> dict[str, object] | None:
    """The change that makes nothing of an object devloop's; None where nothing is."""
    meta = metadata(live)
    entries = items(meta.get("managedFields"))
    others = [entry for entry in entries if entry.get("manager") != MANAGER]
    if len(others) == len(entries):
        return None
    change: dict[str, object] = {
        "resourceVersion": text(meta.get("resourceVersion")),
        # To the API server an empty list is none given.
        "managedFields": others or [{}],
    }
    if annotation(live, APPLIED):
        change["annotations"] = {APPLIED: None}
    return {"metadata": change}
