"""`devloop render`: a project's objects pinned by the digests of its images. No cluster is asked,
and no kubeconfig read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.app.session import chosen
from devloop.app.workloads import with_used_services
from devloop.base.cancel import Cancel
from devloop.cluster.deploy.pinned import pinned_objects
from devloop.config.files import check_files
from devloop.config.problems import ConfigErrors
from devloop.errors import Code, DevloopError, Location
from devloop.manifests import renderings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.cluster.deploy.objects import PlannedObject
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef, PushTarget


# What only a build needs.
_FOR_BUILDS = frozenset(
    {Code.CONFIG_CONTEXT_MISSING, Code.CONFIG_DOCKERFILE_MISSING, Code.CONFIG_FILE_MISSING}
)


def check_manifest_files(loaded: LoadedProject) -> None:
    """Errors: config/* for what rendering needs and is not there."""
    if problems := tuple(p for p in check_files(loaded) if p.code not in _FOR_BUILDS):
        raise ConfigErrors(problems)


def services_to_render(loaded: LoadedProject, only: tuple[str, ...]) -> dict[str, Service]:
    """The services named, all when none is, and those whose images they run. Errors:
    config/unknown-service, config/value."""
    return _with_used(loaded, chosen(loaded.project, only), loaded.project.registry or "")


def used_as_well(
    loaded: LoadedProject, services: Mapping[str, Service], target: PushTarget
) -> dict[str, Service]:
    """`services`, and those whose images they run. Errors: config/value."""
    return _with_used(loaded, services, target.push)


def _with_used(
    loaded: LoadedProject, services: Mapping[str, Service], registry: str
) -> dict[str, Service]:
    prefix = f"{registry}/" if registry else ""
    return with_used_services(loaded.project, services, _renderings(loaded), prefix)


def _renderings(loaded: LoadedProject) -> dict[str, Rendering]:
    project = loaded.project
    # A chart that asks for its namespace gets the one that is known.
    namespace = project.namespace or "default"
    return renderings_of(project.services.values(), show=loaded.show, namespace=namespace)


def rendered(
    loaded: LoadedProject, images: Mapping[str, ImageRef], notify: Callable[[Diagnosis], None]
) -> tuple[PlannedObject, ...]:
    """The objects of the services of `images`. Errors: as `pinned_objects`, config/value for an
    image that has no digest."""
    project = loaded.project
    for name, image in images.items():
        if not image.digest:
            raise DevloopError.of(
                Code.CONFIG_VALUE,
                f"the image of {name} is in no registry: {image.pinned}",
                location=Location(str(loaded.show(project.file))),
                cause="what is rendered is pinned by digest, which the registry gives",
                suggestions=("push it: devloop build --push --file-output FILE",),
            )
    return pinned_objects(
        tuple(images),
        project.services,
        _renderings(loaded),
        images,
        namespace=project.namespace or "",
        notify=notify,
        cancel=Cancel(),
    )


def need_registry(loaded: LoadedProject, images: Path | None) -> None:
    """Errors: registry/unreachable where images would have to be built and nobody says where they
    go: a cluster is not asked."""
    if images is None and not loaded.project.registry:
        raise DevloopError.of(
            Code.REGISTRY_UNREACHABLE,
            "there is no registry to push to",
            cause="devloop.yaml names none, and `render` asks no cluster",
            suggestions=(
                "name one: `registry: HOST` in devloop.yaml, or --registry HOST",
                "or give it images: --images FILE, of devloop build --push --file-output FILE",
            ),
        )
