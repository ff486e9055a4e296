"""Which images the cluster may still need: those of pods, and of all that it could go back to.

Reads only, for housekeeping: what is in here must not be deleted from a registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import dig, items, text

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection


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
