"""Turn manifests into the objects to apply for one service: namespaces filled in, images pinned, in
an order that works. Pure: the cluster is asked through the callables handed in.
"""

from __future__ import annotations

import copy
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.supervisor import is_debugged, under
from devloop.cluster.api.kinds import WORKLOAD_KINDS, Resource, name_of
from devloop.cluster.api.pod_view import Json, dig, items
from devloop.cluster.deploy.image_owners import containers_of, owner, score, theirs
from devloop.cluster.deploy.list_keys import without_doubles
from devloop.cluster.deploy.probes import patient
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from devloop.cluster.deploy.own_workloads import OwnWorkloads
    from devloop.config.schema import Service
    from devloop.model import Hook, ImageRef, ManifestObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedObject:
    """One object as it shall be in the cluster. `path` is its URL path; `recreate`: where it cannot
    be changed it may be deleted, if devloop created it."""

    object: dict[str, Any]
    resource: Resource
    namespace: str
    location: Location
    recreate: bool = False

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def path(self) -> str:
        return self.resource.path(self.namespace, self.name)

    def __str__(self) -> str:
        return name_of(self.object)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWorkload:
    """A workload of the service. `own` is it as it shall be, and its `containers` get the service's
    image; None and empty when the manifests do not hold it (it is patched then, and `configs` are
    the hashes of those among the manifests that it may read, see `config_reads`)."""

    ref: WorkloadRef
    containers: tuple[str, ...] = ()
    own: PlannedObject | None = None
    configs: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHook:
    """What runs before or after the rest is applied, see `chart_hooks`."""

    planned: PlannedObject
    hook: Hook


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployPlan:
    """What to apply, in order; the service's `workloads` are among it, or patched. The picked one
    is the first of them. `hooks` run beside it, in the order of the manifests. `notes` are for the
    user, where something else is applied than is written among them. `released` is what a release
    has in place of `objects`. `uses` are the images of other services that it runs, by service;
    those of `missing` are not known yet."""

    objects: tuple[PlannedObject, ...]
    workloads: tuple[PlannedWorkload, ...]
    notes: tuple[Diagnosis, ...] = ()
    uses: Mapping[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    hooks: tuple[PlannedHook, ...] = ()
    released: tuple[PlannedObject, ...] = ()


# What others need comes first; what is not listed (custom resources) comes before workloads, which
# may need it. Kinds that only watch over workloads come last.
_ORDER = (
    ("Namespace", "CustomResourceDefinition", "PriorityClass", "StorageClass", "IngressClass"),
    ("ResourceQuota", "LimitRange", "ServiceAccount", "Role", "ClusterRole"),
    ("RoleBinding", "ClusterRoleBinding", "Secret", "ConfigMap"),
    ("PersistentVolume", "PersistentVolumeClaim", "Service", "NetworkPolicy"),
    (),
    ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"),
    ("HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress"),
    ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService"),
)
_RANK = {kind: rank for rank, kinds in enumerate(_ORDER) for kind in kinds}


# What goes with these is more than an object.
KEPT_KINDS = frozenset(
    {"Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim"}
)


def apply_order(kind: str) -> int:
    return _RANK.get(kind, 4)


def workloads_of(objects: Iterable[PlannedObject]) -> frozenset[WorkloadRef]:
    """Those whose pods will run: not the ones that are asked to have none."""
    kinds = {kind: lower for lower, kind in WORKLOAD_KINDS.items()}
    return frozenset(
        WorkloadRef(kinds[planned.resource.kind], planned.name, planned.namespace)
        for planned in objects
        if planned.resource.kind in kinds and dig(planned.object, "spec", "replicas") != 0
    )


def plan_objects(
    manifests: Iterable[ManifestObject],
    service: Service,
    image: ImageRef,
    *,
    own: OwnWorkloads,
    namespace: str,
    services: Mapping[str, Service],
    pinned: Mapping[str, ImageRef],
    resource_of: Callable[[str, str, Location], Resource],
    live_image: Callable[[str, str, str, str], str | None],
    awaited: Collection[str] = (),
) -> DeployPlan:
    """Work out what to apply for `service`.

    `own` are its workloads, as of `own_workloads`; `services` are all of the project, `pinned` the
    images known of them; `resource_of(apiVersion, kind, location)` asks the cluster's discovery;
    `live_image(kind, namespace, name, container)` is the image a container has now. What `own`
    leaves to another service is left out; containers that use another service's image get its
    pinned image, else keep the live one, unless the other is `awaited`. Raises
    config/image-not-used, config/container-not-found, cluster/rejected."""
    manifests = tuple(manifests)
    defined = defined_kinds(manifests)
    mine = {workload.manifest.key: workload for workload in own.workloads if workload.manifest}
    planned: list[PlannedObject] = []
    notes = list(own.notes)
    found: dict[WorkloadRef, PlannedWorkload] = {}
    others: set[str] = set()
    hooks: list[PlannedHook] = []
    for manifest in manifests:
        if manifest.key in own.left:
            continue
        version, kind, _, name = manifest.key
        resource = defined.get((version, kind)) or resource_of(version, kind, manifest.at("kind"))
        thing = copy.deepcopy(dict(manifest.object))
        where = _place(thing, resource, namespace)
        live = partial(live_image, kind, where, name)
        notes += without_doubles(thing, manifest)
        workload = mine.get(manifest.key)
        picked = workload is not None and workload.picked
        ours = _set_images(
            thing,
            service,
            image,
            own=picked,
            services=services,
            pinned=pinned,
            awaited=awaited,
            live=live,
        )
        others |= {whose for whose in ours.values() if whose != service.name}
        notes += _never_pulled(manifest, ours)
        done = tuple(name for name, whose in ours.items() if whose == service.name)
        place = manifest.location
        one = PlannedObject(
            object=thing,
            resource=resource,
            namespace=where,
            location=place,
            recreate=service.deploy.recreate and resource.kind not in KEPT_KINDS,
        )
        if manifest.hook is not None:
            hooks.append(PlannedHook(planned=one, hook=manifest.hook))
            continue
        planned.append(one)
        if workload is not None:
            found[workload.ref] = PlannedWorkload(ref=workload.ref, containers=done, own=one)
            if picked and (not done or service.deploy.container not in {None, *done}):
                raise _not_used(manifest, service)
    planned.sort(key=lambda p: apply_order(p.resource.kind))  # stable: the files' order within
    workloads = (found.get(ref) or PlannedWorkload(ref=ref) for ref in own.refs)
    return DeployPlan(
        objects=tuple(planned),
        workloads=tuple(workloads),
        notes=tuple(notes),
        uses={name: pinned[name].pinned for name in sorted(others) if name in pinned},
        missing=frozenset(others - set(pinned)),
        hooks=tuple(hooks),
    )


def defined_kinds(manifests: Iterable[ManifestObject]) -> dict[tuple[str, str], Resource]:
    """The kinds that CustomResourceDefinitions among the manifests bring themselves."""
    found: dict[tuple[str, str], Resource] = {}
    for manifest in manifests:
        if manifest.key[1] != "CustomResourceDefinition":
            continue
        spec = manifest.object.get("spec")
        group, scoped = dig(spec, "group"), dig(spec, "scope") != "Cluster"
        kind, plural = dig(spec, "names", "kind"), dig(spec, "names", "plural")
        for version in items(dig(spec, "versions")):
            if group and kind and plural and version.get("name"):
                key = (f"{group}/{version['name']}", str(kind))
                found[key] = Resource(*key, str(plural), scoped)
    return found


def _place(thing: dict[str, Any], resource: Resource, namespace: str) -> str:
    metadata = thing["metadata"] = dict(thing["metadata"])
    if not resource.namespaced:
        metadata.pop("namespace", None)
        return ""
    metadata["namespace"] = str(metadata.get("namespace") or namespace)
    return str(metadata["namespace"])


def owners_of(
    thing: Json, service: Service, services: Mapping[str, Service], *, own: bool, registry: str
) -> dict[str, str | None]:
    """Whose image each container is to run: a service's name, None for nobody's. `own` says that
    it is the workload which devloop.yaml names for `service`. `registry` is the project's, with a
    slash."""
    wanted = {s.name: s.image for s in services.values()} | {service.name: service.image}
    found = {
        str(c.get("name")): str(c.get("image") or "").removeprefix(registry)
        for _, c in containers_of(thing)
    }
    owners = {name: owner(used, wanted, prefer=service.name) for name, used in found.items()}
    if own and service.deploy.container:
        owners[service.deploy.container] = service.name
    elif own and service.name not in owners.values():
        # The service's own workload: what is called like its image there is meant to be it.
        owners |= {n: service.name for n, used in found.items() if score(used, service.image)}
    return owners


def _set_images(
    thing: dict[str, Any],
    service: Service,
    image: ImageRef,
    *,
    own: bool,
    services: Mapping[str, Service],
    pinned: Mapping[str, ImageRef],
    awaited: Collection[str],
    live: Callable[[str], str | None],
) -> dict[str, str]:
    """Write the images; returns the containers that got one of a service's, with that service."""
    ours: dict[str, str] = {}
    registry = image.repository.removesuffix(service.image)
    owners = owners_of(thing, service, services, own=own, registry=registry)
    for _, container in containers_of(thing):
        name = str(container.get("name"))
        whose = owners[name]
        # With `container` given, the image elsewhere in the pod (a migration in an init container)
        # still has to be the same build.
        if whose == service.name:
            ours[name] = whose
            pin(container, image)
        elif whose is not None and whose in pinned:
            ours[name] = whose
            pin(container, pinned[whose])
        elif whose in awaited:
            ours[name] = str(whose)
        elif whose is not None:
            container["image"] = live(name) or container.get("image")
    return ours


def _never_pulled(manifest: ManifestObject, ours: Collection[str]) -> Iterator[Diagnosis]:
    """What to say of containers of `ours` that are written to have their image on the node."""
    for path, container in containers_of(manifest.object):
        if container.get("imagePullPolicy") == "Never" and container.get("name") in ours:
            yield Diagnosis(
                code=Code.CONFIG_MANIFEST,
                severity="info",
                message=f"imagePullPolicy of container {container.get('name')} is applied as "
                "IfNotPresent: with Never no node would fetch the image that devloop built",
                location=manifest.at(*path, "imagePullPolicy"),
            )


def pin(container: dict[str, Any], image: ImageRef) -> None:
    """Write the image, and its supervisor before the container's own command; for one that is
    debugged, probes that wait. One without a digest
    lies on the nodes only, where `Always` would look for it in a registry that has never seen it;
    with `Never` no node would get it from there."""
    container["image"] = image.pinned
    if container.get("command"):
        container["command"] = under(container["command"], image.supervisor)
    if is_debugged(image.supervisor):
        container |= {name: container[name] | more for name, more in patient(container).items()}
    if not image.digest or container.get("imagePullPolicy") == "Never":
        container["imagePullPolicy"] = "IfNotPresent"


def _listed(found: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, found))) or "none"


def no_manifest_uses(
    service: Service, ref: WorkloadRef, objects: Iterable[PlannedObject]
) -> DevloopError:
    """Nothing that is applied runs the image, and what would be patched is not there."""
    found = [c.get("image") for each in objects for _, c in containers_of(each.object)]
    return DevloopError.of(
        Code.CONFIG_IMAGE_NOT_USED,
        f"no manifest of {service.name} uses the image {service.image}, and {ref} does not exist",
        cause="images found: " + _listed(found),
        suggestions=(
            _how_to_use(service, "the manifest of what runs it"),
            f"or name what exists already: services.{service.name}.deploy.workload",
        ),
    )


def _how_to_use(service: Service, where: str) -> str:
    if service.deploy.helm:
        return f"`deploy.helm.set: {{image.repository: {service.image}}}`, or as the chart calls it"
    return f"write image: {service.image} in {where}"


def _not_used(manifest: ManifestObject, service: Service) -> DevloopError:
    found = list(containers_of(manifest.object))
    if service.deploy.container:
        return DevloopError.of(
            Code.CONFIG_CONTAINER_NOT_FOUND,
            f"{name_of(manifest.object)} has no container {service.deploy.container!r}",
            location=manifest.at("spec", "template", "spec", "containers"),
            cause="containers: " + _listed(c.get("name") for _, c in found),
            suggestions=("correct `deploy.container` in devloop.yaml",),
        )
    path = found[-1][0] if found else ("spec",)
    return DevloopError.of(
        Code.CONFIG_IMAGE_NOT_USED,
        f"no container of {name_of(manifest.object)} uses the image {service.image}",
        location=manifest.at(*path, "image"),
        cause="images found: " + _listed(c.get("image") for _, c in found),
        suggestions=(
            _how_to_use(service, "the manifest"),
            f"or name the container: services.{service.name}.deploy.container",
        ),
    )


def pick_container(
    thing: Json, *, image: str, container: str | None, where: str
) -> tuple[str, ...]:
    """Patch-only mode: which containers of the live workload get the image `image` (a service's).

    The configured one; else those whose image matches; else the only one. Raises
    config/container-not-found or config/workload-ambiguous, listing what there is."""
    found = {str(c.get("name")): str(c.get("image")) for _, c in containers_of(thing)}
    main = tuple(str(c.get("name")) for p, c in containers_of(thing) if "containers" in p)
    listing = tuple(f"{name}: {used}" for name, used in found.items())
    if container is not None:
        if container not in found:
            raise DevloopError.of(
                Code.CONFIG_CONTAINER_NOT_FOUND,
                f"{where} has no container {container!r}",
                suggestions=("correct `deploy.container` in devloop.yaml",),
                detail=listing,
            )
        return (container,)
    scores = {n: 0 if theirs(used, image) else score(used, image) for n, used in found.items()}
    if not any(scores.values()):
        scores = {name: score(used, image) for name, used in found.items()}
    if best := max(scores.values(), default=0):
        return tuple(name for name in found if scores[name] == best)
    if len(main) == 1:
        return main
    raise DevloopError.of(
        Code.CONFIG_WORKLOAD_AMBIGUOUS,
        f"no container of {where} uses the image {image}, and there are {len(main)}",
        suggestions=("name one with `deploy.container` in devloop.yaml",),
        detail=listing,
    )
