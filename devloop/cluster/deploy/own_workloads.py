"""Which workloads a service's manifests hold: everything there that runs its image. Pure.

The service's namespace is theirs: the one place that says where a service runs is `ref`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.kinds import WORKLOADS, name_of
from devloop.cluster.deploy.image_owners import containers_of, is_custom
from devloop.cluster.deploy.objects import owners_of
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devloop.cluster.api.kinds import Resource
    from devloop.config.schema import Service
    from devloop.model import ManifestObject


_KINDS = {(found.api_version, found.kind): lower for lower, found in WORKLOADS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnWorkload:
    """A workload of a service, and its manifest; None for one that exists already and is patched.
    `picked`: ports and the short status speak of it. `along`: a Job that runs other images, and has
    to come to its end as well."""

    ref: WorkloadRef
    manifest: ManifestObject | None = None
    picked: bool = False
    along: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnWorkloads:
    """The service's `workloads`, the picked one first. `left` are workloads of the same manifests
    that another service deploys. `notes` are for the user."""

    workloads: tuple[OwnWorkload, ...]
    left: frozenset[tuple[str, str, str, str]] = frozenset()
    notes: tuple[Diagnosis, ...] = ()

    @property
    def refs(self) -> tuple[WorkloadRef, ...]:
        return tuple(workload.ref for workload in self.workloads)


def patched(service: Service, namespace: str) -> OwnWorkloads:
    """Of a service without manifests: those that devloop.yaml names."""
    first = _configured(service, namespace)
    named = (text.partition("/") for text in service.deploy.workloads[1:])
    refs = dict.fromkeys((first, *(WorkloadRef(kind, name, namespace) for kind, _, name in named)))
    return OwnWorkloads(workloads=tuple(OwnWorkload(ref=ref, picked=ref == first) for ref in refs))


def own_workloads(
    manifests: Iterable[ManifestObject],
    service: Service,
    services: Mapping[str, Service],
    *,
    namespace: str,
    holds: Callable[[str, ManifestObject], bool],
    registry: str = "",
    resource_of: Callable[[ManifestObject], Resource] | None = None,
) -> OwnWorkloads:
    """Of a service with `manifests`. `namespace` is for those that name none; `services` are all of
    the project; `holds(service, manifest)` says whether another service's manifests have the same
    object; `registry` is the project's, with a slash. Custom resources that hold containers
    count where `resource_of` tells how the cluster has them. Raises config/value when
    `deploy.workload` names nothing there although others use the image."""
    search = _Search(service, services, holds, registry)
    manifests = tuple(each for each in manifests if each.hook is None)
    found = [m for m in manifests if m.key[:2] in _KINDS]
    found += [m for m in manifests if resource_of is not None and is_custom(m.object)]
    left = frozenset(m.key for m in found if search.is_left(m))
    mine = [m for m in found if m.key not in left]
    running = [m for m in mine if search.runs(m)]
    resources = {m.key: resource_of(m) for m in running if resource_of and m.key[:2] not in _KINDS}

    def ref(manifest: ManifestObject) -> WorkloadRef:
        return _ref(manifest, namespace, resources.get(manifest.key))

    picked = next((m for m in mine if _is_configured(m, service)), None)
    if picked not in running and running and service.deploy.workload_default:
        picked = None  # it is only called like the service
    note: Diagnosis | None = None
    if picked is None and running:
        if not service.deploy.workload_default:
            raise _other_name(running[0], service)
        serving = [m for m in running if ref(m).serves] or running
        named = [m for m in serving if m.key[3] == service.name]
        picked = (named or serving)[0]
        if len(serving) > 1 and not named:
            note = _says_which(picked, serving, service)
    # A picked one that does not run the image is reported by who writes it.
    first = () if picked is None else (picked,)
    workloads = [
        OwnWorkload(ref=ref(m), manifest=m, picked=m is picked)
        for m in (*first, *(m for m in running if m is not picked))
    ] or [*patched(service, namespace).workloads]
    workloads += [
        OwnWorkload(ref=ref(m), manifest=m, along=True)
        for m in mine
        if m.key[:2] == ("batch/v1", "Job") and m not in running and m is not picked
    ]
    notes = [_pinned(m) for m in running if m.key in resources]
    return OwnWorkloads(
        workloads=tuple(workloads),
        left=left,
        notes=(*(note for note in (note,) if note is not None), *notes),
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """For the workloads of `service`; the rest as of `own_workloads`."""

    service: Service
    services: Mapping[str, Service]
    holds: Callable[[str, ManifestObject], bool]
    registry: str

    def runs(self, manifest: ManifestObject) -> bool:
        return self.service.name in self._owners(manifest)

    def _owners(self, manifest: ManifestObject) -> list[str | None]:
        """Whose the containers' images are, main containers before init containers."""
        thing, service = manifest.object, self.service
        own = _is_configured(manifest, service)
        found = owners_of(thing, service, self.services, own=own, registry=self.registry)
        ordered = sorted(containers_of(thing), key=lambda each: "initContainers" in each[0])
        return [found[str(container.get("name"))] for _, container in ordered]

    def is_left(self, manifest: ManifestObject) -> bool:
        """Whether the workload is another service's: the one that it is configured for, or the one
        whose image its first container of the project runs, if that brings the manifest too."""
        service, own = self.service, _is_configured(manifest, self.service)
        if own and not service.deploy.workload_default:
            return False
        others = {
            other.name: other
            for other in self.services.values()
            if other.name != service.name and not other.deploy.patch_only
        }
        if any(
            _is_configured(manifest, other)
            and (not other.deploy.workload_default or self.holds(other.name, manifest))
            for other in others.values()
        ):
            return True
        whose = next(filter(None, self._owners(manifest)), service.name)
        return not own and whose in others and self.holds(whose, manifest)


def _configured(service: Service, namespace: str) -> WorkloadRef:
    return WorkloadRef(service.deploy.workload_kind, service.deploy.workload_name, namespace)


def _is_configured(manifest: ManifestObject, service: Service) -> bool:
    """Whether it is the one that devloop.yaml names, or that is meant where it names none."""
    version, kind, _, name = manifest.key
    lower = _KINDS.get((version, kind))
    return (lower, name) == (service.deploy.workload_kind, service.deploy.workload_name)


def _ref(manifest: ManifestObject, namespace: str, custom: Resource | None) -> WorkloadRef:
    version, kind, where, name = manifest.key
    if custom is None:
        return WorkloadRef(_KINDS[version, kind], name, where or namespace)
    api = f"{custom.api_version}/{custom.plural}"
    return WorkloadRef(kind.lower(), name, where or namespace, api)


def _other_name(manifest: ManifestObject, service: Service) -> DevloopError:
    ref = f"{service.deploy.workload_kind}/{service.deploy.workload_name}"
    what = name_of(manifest.object)
    return DevloopError.of(
        Code.CONFIG_VALUE,
        f"the manifests have no {ref}, but {what} uses the image {service.image}",
        location=manifest.at("metadata", "name"),
        suggestions=(f"set services.{service.name}.deploy.workload: {_typed(manifest)}",),
    )


def _typed(manifest: ManifestObject) -> str:
    """As devloop.yaml names it."""
    _, kind, _, name = manifest.key
    return f"{kind.lower()}/{name}"


def _pinned(manifest: ManifestObject) -> Diagnosis:
    """A word on what is done to an object that is not Kubernetes' own."""
    return Diagnosis(
        code=Code.CONFIG_MANIFEST,
        severity="info",
        message=f"{name_of(manifest.object)} is deployed with the image that devloop built, and is "
        "ready when its status says so",
        location=manifest.location,
    )


def _says_which(
    picked: ManifestObject, running: Iterable[ManifestObject], service: Service
) -> Diagnosis:
    names = ", ".join(map(_typed, running))
    return Diagnosis(
        code=Code.CONFIG_WORKLOAD_AMBIGUOUS,
        severity="info",
        message=f"ports and status speak of {_typed(picked)}",
        cause=f"these run the image {service.image}: {names}",
        location=picked.at("metadata", "name"),
        suggestions=(f"to pick another, set services.{service.name}.deploy.workload",),
    )
