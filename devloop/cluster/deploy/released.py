"""What a release gets of a plan: the images, and what goes with them. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import dig
from devloop.cluster.deploy.image_owners import containers_of
from devloop.engine.ports import Pin
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.deploy.objects import DeployPlan, PlannedHook


_FIELDS = ("image", "imagePullPolicy", "command")
_TEMPLATE = ("spec", "template")


def as_released(plan: DeployPlan) -> DeployPlan:
    """The plan of a service whose objects a release has: its workloads are followed as those that
    exist already."""
    return replace(
        plan,
        objects=(),
        hooks=(),
        released=plan.objects,
        workloads=tuple(replace(each, own=None) for each in plan.workloads),
        notes=(*plan.notes, *(note for each in plan.hooks for note in _unpinned(each))),
    )


def pins_of(plan: DeployPlan) -> tuple[Pin, ...]:
    """What of the plan's objects is not as the chart has it."""
    return tuple(_pins(plan))


def _pins(plan: DeployPlan) -> Iterator[Pin]:
    for planned in plan.released:
        kind, name = planned.resource.kind, planned.name
        found = list(containers_of(planned.object))
        for path, container in found:
            values = {field: container[field] for field in _FIELDS if field in container}
            yield Pin(kind=kind, name=name, path=path, values=values)
        notes = dig(planned.object, *_TEMPLATE, "metadata", "annotations")
        if found and isinstance(notes, dict):
            path = (*_TEMPLATE, "metadata", "annotations")
            yield Pin(kind=kind, name=name, path=path, values=notes)


def _unpinned(each: PlannedHook) -> Iterator[Diagnosis]:
    for _, container in containers_of(each.planned.object):
        if "@sha256:" in str(container.get("image")):
            yield Diagnosis(
                code=Code.MANIFESTS_NOTE,
                severity="warning",
                message=f"the hook {each.planned} runs the image that the chart names, not the one "
                "that is built: Helm hands no hooks to its post-renderer",
                cause=f"see {each.planned.location}",
                suggestions=("use `mode: template`, which runs hooks with the image",),
            )
