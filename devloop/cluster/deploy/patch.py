"""Change nothing but images of a workload that exists: patch-only mode, and rollback.

A strategic merge patch names containers, so that it neither resets nor reorders anything else. Must
not decide which containers: see `objects.pick_container`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import Json, dig, items, metadata, name_of, text
from devloop.cluster.api.writes import patch_as_devloop
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.model import WorkloadRef


class Recreated(Exception):  # noqa: N818 - not an error: look again
    """The workload was deleted, and maybe recreated, between the look and the patch."""


def image_patch(
    live: Json, images: Mapping[str, str], *, present_on_node: bool = False
) -> dict[str, Any] | None:
    """The patch that gives the containers `images` (name -> image); None when they have them.

    `present_on_node`: the image is in no registry, so `Always` must not be in effect."""
    spec: dict[str, list[dict[str, str]]] = {}
    for key in ("initContainers", "containers"):
        for container in items(dig(live, "spec", "template", "spec", key)):
            name = text(container.get("name"))
            change: dict[str, str] = {}
            if name in images and container.get("image") != images[name]:
                change["image"] = images[name]
            if name in images and present_on_node and container.get("imagePullPolicy") == "Always":
                change["imagePullPolicy"] = "IfNotPresent"
            if change:
                spec.setdefault(key, []).append({"name": name, **change})
    return {"spec": {"template": {"spec": spec}}} if spec else None


def patch_images(
    connection: Connection, ref: WorkloadRef, patch: Json, *, uid: str
) -> dict[str, Any]:
    """Send the patch and return the workload as it is then. Raises `Recreated` when the workload is
    gone or is another one than the one that was looked at."""
    body = {**patch, "metadata": {**metadata(patch), "uid": uid}}
    result = patch_as_devloop(connection, workload_path(ref), body)
    if result is None:
        raise Recreated
    return result


def missing_workload(connection: Connection, ref: WorkloadRef) -> DevloopError:
    """cluster/not-found that names what there is of that kind in the namespace."""
    names: list[str] = []
    try:
        listing = connection.request("GET", workload_path(ref).rpartition("/")[0])
        names = sorted(name_of(item) for item in items(listing.get("items")))
    except DevloopError:
        names = []  # the answer is a help only
    near = difflib.get_close_matches(ref.name, names, n=1)
    return DevloopError.of(
        Code.CLUSTER_NOT_FOUND,
        f"{ref} does not exist in namespace {ref.namespace!r}",
        cause=f"there: {', '.join(names[:10])}" if names else f"there is no {ref.kind} at all",
        suggestions=(
            *(f"did you mean {ref.kind}/{name}?" for name in near),
            "give the manifests that make it: `deploy.manifests` in devloop.yaml",
        ),
    )
