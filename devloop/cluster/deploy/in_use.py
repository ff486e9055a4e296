"""Which images the cluster may still need: those of pods, and of all that it could go back to.

Reads only, for housekeeping: what is in here must not be deleted from a registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.pod_view import dig, items, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

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
        for thing in _listed(connection, root, plural):
            found.update(_digests(dig(thing, *where)))
            for status in items(dig(thing, "status", "containerStatuses")):
                found.update(_digest(text(status.get("imageID"))))
    return frozenset(found)


def _listed(connection: Connection, root: str, plural: str) -> list[dict[str, Any]]:
    try:
        listing = connection.request("GET", f"{root}/{plural}")
    except ApiError as error:
        if error.status != 403:
            raise
        listing = connection.request("GET", f"{root}/namespaces/{connection.namespace}/{plural}")
    return items(listing.get("items"))


def _digests(spec: object) -> Iterator[str]:
    if not isinstance(spec, dict):
        return
    pod: Mapping[str, Any] = spec
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in items(pod.get(key)):
            yield from _digest(text(container.get("image")))


def _digest(image: str) -> Iterator[str]:
    _, found, digest = image.rpartition("@sha256:")
    if found:
        yield f"sha256:{digest}"
