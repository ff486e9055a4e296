"""What is wrong with a service's manifests that can be known without cluster and image. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.guard import check_namespace
from devloop.cluster.deploy.objects import plan_objects
from devloop.cluster.deploy.own_workloads import own_workloads
from devloop.errors import DevloopError
from devloop.model import ImageRef

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from devloop.cluster.deploy.objects import PlannedObject
    from devloop.config.schema import Service
    from devloop.errors import Diagnosis, Location
    from devloop.model import ManifestObject

# What is known to lie in a namespace without asking the cluster.
_NAMESPACED = frozenset(
    {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "Job", "CronJob", "Service"}
    | {"ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim"}
)


def check_manifests(
    manifests: Iterable[ManifestObject],
    service: Service,
    services: Mapping[str, Service],
    *,
    holds: Callable[[str, ManifestObject], bool] = lambda _service, _manifest: True,
    allow_namespaces: Collection[str] = (),
) -> tuple[Diagnosis, ...]:
    """Raise what a deploy would that can be known before; returns what it would note. `holds` is
    that of `own_workloads`."""
    manifests = tuple(manifests)
    plan = plan_objects(
        manifests,
        service,
        ImageRef(repository=service.image, tag="", digest="sha256:"),
        own=own_workloads(manifests, service, services, namespace="", holds=holds),
        namespace="",
        services=services,
        pinned={},
        resource_of=_any_resource,
        live_image=lambda *_: None,
    )
    for planned in plan.objects:
        if planned.resource.kind in _NAMESPACED:
            refuse_protected(planned, allow_namespaces)
    return plan.notes


def refuse_protected(planned: PlannedObject, allowed: Collection[str]) -> None:
    """Raise safety/protected-namespace, with its place, for what devloop does not write there."""
    try:
        check_namespace(planned.namespace, planned.resource.kind, allowed)
    except DevloopError as error:
        raise error.at(planned.location) from None


def _any_resource(version: str, kind: str, _: Location) -> Resource:
    return Resource(version, kind, "")
