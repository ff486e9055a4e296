"""Which ReplicaSet of a Deployment is which, and whose pods are whose. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.cluster.api.pod_view import (
    Json,
    alive,
    annotation,
    controlled_by,
    dig,
    images_of,
    items,
    labels,
    metadata,
    name_of,
    text,
    uid_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


REVISION = "deployment.kubernetes.io/revision"
_HASH = "pod-template-hash"


def current_set(live: Json, replicasets: Iterable[Json]) -> Json | None:
    """The ReplicaSet of the Deployment's current revision."""
    revision = annotation(live, REVISION)
    mine = (r for r in replicasets if controlled_by(r, uid_of(live)))
    return next((r for r in mine if annotation(r, REVISION) == revision), None)


def other_sets(live: Json, replicasets: Iterable[Json], current: Json | None) -> list[Json]:
    """The Deployment's ReplicaSets but for the current one."""
    return [r for r in replicasets if r is not current and controlled_by(r, uid_of(live))]


def matching_set(live: Json, replicasets: Iterable[Json]) -> Json | None:
    """The ReplicaSet that the controller takes for the Deployment's template: the oldest equal."""
    mine = other_sets(live, replicasets, None)
    equal = [r for r in mine if images_of(r) == images_of(live) and not differs_from(r, live, ())]
    return min(equal, key=lambda r: text(metadata(r).get("creationTimestamp")), default=None)


def differs_from(one: Json, other: Json, containers: Collection[str]) -> bool:
    """Whether two pod templates differ in more than the images of `containers`."""
    return _bare(one, containers) != _bare(other, containers)


def pods_of(pods: Iterable[Json], owner: str) -> list[Json]:
    """The living pods that the object with the uid `owner` controls, by name."""
    return sorted((p for p in alive(pods) if controlled_by(p, owner)), key=name_of)


def _bare(thing: Json, containers: Collection[str]) -> dict[str, Any]:
    """The pod template without what may differ: the hash label and the containers' images."""
    template = dig(thing, "spec", "template") or {}
    meta = {k: v for k, v in metadata(template).items() if v}
    meta["labels"] = {k: v for k, v in labels(template).items() if k != _HASH}
    spec = dict(dig(template, "spec") or {})
    spec["containers"] = [
        {k: v for k, v in c.items() if k != "image" or text(c.get("name")) not in containers}
        for c in items(spec.get("containers"))
    ]
    return {"metadata": meta, "spec": spec}
