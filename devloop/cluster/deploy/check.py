"""What is wrong with a service's manifests that can be known without cluster and image. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.objects import plan_objects
from devloop.cluster.deploy.own_workloads import own_workloads
from devloop.model import ImageRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devloop.config.schema import Service
    from devloop.errors import Diagnosis, Location
    from devloop.model import ManifestObject


def check_manifests(
    manifests: Iterable[ManifestObject],
    service: Service,
    services: Mapping[str, Service],
    *,
    holds: Callable[[str, ManifestObject], bool] = lambda _service, _manifest: True,
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
    return plan.notes


def _any_resource(version: str, kind: str, _: Location) -> Resource:
    return Resource(version, kind, "")
