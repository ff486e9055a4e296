"""What a release of Helm gets of a plan."""

from __future__ import annotations

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.objects import DeployPlan, PlannedHook, PlannedObject, PlannedWorkload
from devloop.cluster.deploy.released import as_released, pins_of
from devloop.errors import Code, Location
from devloop.model import Hook, WorkloadRef

IMAGE = "r/shop/web@sha256:1"


def planned(kind: str, name: str, spec: object) -> PlannedObject:
    return PlannedObject(
        object={"kind": kind, "metadata": {"name": name}, "spec": spec},
        resource=Resource("apps/v1", kind, f"{kind.lower()}s"),
        namespace="shop",
        location=Location("a.yaml", 1, 1),
    )


CONTAINER = {"name": "web", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "env": []}
TEMPLATE = {"metadata": {"annotations": {"reads": "1"}}, "spec": {"containers": [CONTAINER]}}
WEB = planned("Deployment", "web", {"template": TEMPLATE})
PLAN = DeployPlan(
    objects=(WEB, planned("ConfigMap", "web", {})),
    workloads=(PlannedWorkload(ref=WorkloadRef("deployment", "web", "shop"), own=WEB),),
)


def test_its_workloads_are_followed_as_those_that_exist_already() -> None:
    plan = as_released(PLAN)
    assert plan.objects == ()
    assert plan.released == PLAN.objects
    assert [each.own for each in plan.workloads] == [None]


def test_images_and_what_goes_with_them_are_pinned() -> None:
    pins = [(pin.kind, pin.path[-1], pin.values) for pin in pins_of(as_released(PLAN))]
    assert pins == [
        ("Deployment", 0, {"image": IMAGE, "imagePullPolicy": "IfNotPresent"}),
        ("Deployment", "annotations", {"reads": "1"}),
    ]


def test_a_hook_that_would_run_another_image_is_said() -> None:
    job = planned("Job", "migrate", {"template": TEMPLATE})
    hook = PlannedHook(planned=job, hook=Hook(events=frozenset({"pre-install"})))
    (note,) = as_released(DeployPlan(objects=(), workloads=(), hooks=(hook,))).notes
    assert (note.code, note.severity) == (Code.MANIFESTS_NOTE, "warning")
