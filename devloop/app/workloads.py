"""What runs each service: read from its manifests at the start, before anything is built. Each
deploy finds it anew.

Imports what renders manifests only when it is asked: a session's first requests go out before.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.kinds import Resource
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Rendering
    from devloop.manifests.release import HelmRelease
    from devloop.model import ManifestObject, WorkloadRef


def renderings_for(
    services: Iterable[Service],
    *,
    show: Callable[[Path], str] = str,
    namespace: str = "default",
    cancel: Cancel | None = None,
) -> dict[str, Rendering]:
    """As `devloop.manifests.renderings_of`, and read once, which is remembered. What is wrong with
    them is left to those who need them."""
    from devloop.manifests import renderings_of  # noqa: PLC0415 - see above

    renderings = renderings_of(services, show=show, namespace=namespace)
    for rendering in renderings.values():
        _objects(rendering, cancel)
    return renderings


def workloads_of(
    project: Project,
    services: Iterable[str],
    renderings: Mapping[str, Rendering],
    connection: Connection,
    *,
    registry: str = "",
) -> dict[str, tuple[WorkloadRef, ...]]:
    """The workloads of each of `services`, the picked one first. `renderings` are the project's,
    `registry` is where images go, with a slash. Manifests that name no namespace have the
    connection's; the cluster is asked about custom resources only. What is wrong with manifests is
    left to the deploy to say: until then their service has the workload that devloop.yaml names."""
    from devloop.cluster.api.kinds import Discovery  # noqa: PLC0415
    from devloop.cluster.deploy.own_workloads import own_workloads, patched  # noqa: PLC0415

    objects = functools.cache(lambda name: _objects(renderings.get(name)))
    discovery = Discovery(connection)

    def resource_of(manifest: ManifestObject) -> Resource:
        return discovery.resource(manifest.key[0], manifest.key[1], manifest.at("kind"))

    def holds(service: str, manifest: ManifestObject) -> bool:
        return any(manifest.key == other.key for other in objects(service))

    found: dict[str, tuple[WorkloadRef, ...]] = {}
    for name in services:
        service = project.services[name]
        try:
            own = own_workloads(
                objects(name),
                service,
                project.services,
                namespace=connection.namespace,
                holds=holds,
                registry=registry,
                resource_of=resource_of,
            )
        except DevloopError:
            own = patched(service, connection.namespace)
        found[name] = own.refs
    return found


def namespaces_of(renderings: Iterable[Rendering], namespace: str) -> frozenset[str]:
    """The namespaces that these manifests have their objects in: those that they name or make, and
    `namespace` for what names none."""
    keys = [each.key for rendering in renderings for each in _objects(rendering)]
    made = {name for _, kind, _, name in keys if kind == "Namespace"}
    return frozenset({namespace, *made, *(where for _, _, where, _ in keys if where)})


def releases_in(
    project: Project, services: Iterable[str], connection: Connection
) -> tuple[HelmRelease, ...]:
    """The releases of Helm that deploy `services`."""
    from devloop.manifests import releases_of  # noqa: PLC0415 - see above

    return tuple(
        release
        for name in services
        for release in releases_of(
            project.services[name],
            context=connection.context,
            namespace=connection.namespace,
            state_dir=project.state_dir,
        )
    )


def installed_releases(project: Project, connection: Connection) -> tuple[HelmRelease, ...]:
    """Those that devloop installed, and that are there. Errors: env/tool-missing,
    cluster/rejected."""
    found = releases_in(project, project.services, connection)
    return tuple(release for release in found if release.installed())


def with_used_services(
    project: Project,
    services: Mapping[str, Service],
    renderings: Mapping[str, Rendering],
    registry: str,
) -> dict[str, Service]:
    """`services`, and those of the project that they need or whose images their manifests run.
    `registry` is where images go, with a slash. Errors: config/value for services that wait for
    each other."""
    if len(project.services) == 1:
        return dict(services)
    from devloop.cluster.deploy.image_uses import refuse_cycle, with_used  # noqa: PLC0415

    uses = uses_of(project, renderings, registry=registry)
    needs = {name: service.needs for name, service in project.services.items()}
    related = {n: uses.get(n, frozenset()).union(needs[n]) for n in project.services}
    names = with_used(services, related)
    refuse_cycle(
        {name: uses.get(name, frozenset()) for name in names}, {n: needs[n] for n in names}
    )
    return {name: services.get(name, project.services[name]) for name in names}


def uses_of(
    project: Project, renderings: Mapping[str, Rendering], *, registry: str = ""
) -> dict[str, frozenset[str]]:
    """For each service the others whose images its manifests run; see `image_uses`. Manifests with
    faults run nobody's."""
    from devloop.cluster.deploy.image_uses import image_uses  # noqa: PLC0415 - see above
    from devloop.cluster.deploy.own_workloads import own_workloads  # noqa: PLC0415 - see above

    objects = functools.cache(lambda name: _objects(renderings.get(name)))

    def holds(service: str, manifest: ManifestObject) -> bool:
        return any(manifest.key == other.key for other in objects(service))

    found: dict[str, frozenset[str]] = {}
    for name, service in project.services.items():
        try:
            own = own_workloads(
                objects(name),
                service,
                project.services,
                namespace="",
                holds=holds,
                registry=registry,
            )
        except DevloopError:
            continue
        found[name] = image_uses(
            objects(name), service, project.services, own=own, registry=registry
        )
    return found


def _objects(
    rendering: Rendering | None, cancel: Cancel | None = None
) -> tuple[ManifestObject, ...]:
    try:
        return rendering.objects(cancel or Cancel()) if rendering is not None else ()
    except DevloopError:
        return ()
