"""A project's objects with the images of its services, as `devloop render` gives them on and as
`devloop run` applies them: without what marks them as devloop's. Asks no cluster.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.cluster.api.kinds import assumed_resource
from devloop.cluster.deploy.config_reads import config_hashes, mark_templates, merged, reads_more
from devloop.cluster.deploy.image_owners import containers_of
from devloop.cluster.deploy.objects import apply_order, defined_kinds, plan_objects
from devloop.cluster.deploy.own_workloads import own_workloads
from devloop.cluster.deploy.project_configs import ProjectConfigs
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from devloop.cluster.api.kinds import Resource
    from devloop.cluster.deploy.objects import DeployPlan, PlannedObject
    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering
    from devloop.errors import Location
    from devloop.model import ImageRef, ManifestObject


_HOOKS = frozenset({"pre-install", "post-install", "pre-upgrade", "post-upgrade"})


def pinned_objects(
    names: Collection[str],
    services: Mapping[str, Service],
    renderings: Mapping[str, Rendering],
    images: Mapping[str, ImageRef],
    *,
    namespace: str,
    notify: Callable[[Diagnosis], None],
    cancel: Cancel,
) -> tuple[PlannedObject, ...]:
    """The objects of the services `names`, each once, in the order to apply them: the same for the
    same input. `services` and `renderings` are the project's, `images` by service; `namespace` is
    for objects that name none, "" leaves them without. `notify` gets what is done otherwise than
    the manifests say. Errors: as a deploy's plan, config/value for an image that is not there."""
    found: dict[tuple[str, str, str, str], PlannedObject] = {}
    owned: set[tuple[str, str, str, str]] = set()
    configs = ProjectConfigs(renderings, namespace)
    for name in names:
        if name not in renderings:
            continue
        notes: list[Diagnosis] = []
        plan = _plan(
            services[name],
            renderings[name].objects(cancel, notes.append),
            services=services,
            renderings=renderings,
            images=images,
            namespace=namespace,
        )
        for note in (*notes, *plan.notes):
            notify(note)
        # A chart's hooks run where whoever applies them knows Helm's annotations, as Argo CD.
        hooks = tuple(each.planned for each in plan.hooks if each.hook.events & _HOOKS)
        hashes = config_hashes(plan.objects)
        if reads_more(plan.objects, hashes):
            hashes = merged(configs.beside(name), hashes)
        mark_templates(plan.objects, hashes)
        own = {id(each.own) for each in plan.workloads}
        for planned in (*plan.objects, *hooks):
            resource = planned.resource
            key = (resource.api_version, resource.kind, planned.namespace, planned.name)
            mine = id(planned) in own
            if key not in found or (mine and key not in owned):
                found[key] = planned
            if mine:
                owned.add(key)
            if not planned.object["metadata"].get("namespace", "-"):
                del planned.object["metadata"]["namespace"]
    for note in _unused(names, services, images, found.values()):
        notify(note)
    return tuple(sorted(found.values(), key=lambda each: apply_order(each.resource.kind)))


def _plan(
    service: Service,
    manifests: tuple[ManifestObject, ...],
    *,
    services: Mapping[str, Service],
    renderings: Mapping[str, Rendering],
    images: Mapping[str, ImageRef],
    namespace: str,
) -> DeployPlan:
    image = images[service.name]
    defined = defined_kinds(manifests)

    def resource_of(version: str, kind: str, _: Location | None = None) -> Resource:
        return defined.get((version, kind)) or assumed_resource(version, kind)

    own = own_workloads(
        manifests,
        service,
        services,
        namespace=namespace,
        registry=image.repository.removesuffix(service.image),
        holds=partial(_holds, renderings, service.name),
        resource_of=lambda manifest: resource_of(*manifest.key[:2]),
    )
    plan = plan_objects(
        manifests,
        service,
        image,
        own=own,
        namespace=namespace,
        services=services,
        pinned=images,
        resource_of=resource_of,
        live_image=lambda *_: None,
        awaited=frozenset(services) - images.keys(),
    )
    if plan.missing:
        missing = sorted(plan.missing)
        raise DevloopError.of(
            Code.CONFIG_VALUE,
            f"the manifests of {service.name} run the image of {', '.join(missing)}, which is not "
            "among the images",
            suggestions=(f"build it as well: devloop build --push {' '.join(missing)}",),
        )
    return plan


def _unused(
    names: Iterable[str],
    services: Mapping[str, Service],
    images: Mapping[str, ImageRef],
    objects: Iterable[PlannedObject],
) -> Iterator[Diagnosis]:
    """What to say of services that nothing runs."""
    used = {c.get("image") for each in objects for _, c in containers_of(each.object)}
    needed = {name for service in services.values() for name in service.needs}
    for name in names:
        built_only = services[name].deploy.patch_only and name in needed
        if images[name].pinned in used or built_only:
            continue
        patched = services[name].deploy.patch_only
        yield Diagnosis(
            code=Code.CONFIG_IMAGE_NOT_USED,
            severity="warning",
            message=f"no manifest uses the image {services[name].image} of {name}",
            cause="it has none: devloop deploy sets the image of what exists" if patched else None,
        )


def _holds(
    renderings: Mapping[str, Rendering], asking: str, service: str, manifest: ManifestObject
) -> bool:
    """See `Deployments.holds`."""
    rendering = renderings.get(service)
    if rendering is None or rendering == renderings.get(asking):
        return rendering is not None
    try:
        return any(manifest.key == other.key for other in rendering.objects(Cancel()))
    except DevloopError:
        return True
