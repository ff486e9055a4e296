"""Jobs and bare Pods of a service: made again when they have to, and followed to their end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devloop.cluster.deploy.ownership import created_by
from devloop.errors import DevloopError
from tests.support.cluster_objects import owner, pod, running, terminated
from tests.support.deploy_stage import ONE, TWO, Stage, manifest
from tests.support.fake_api import Fault
from tests.support.waiting import until

MIGRATE = "/apis/batch/v1/namespaces/dev/jobs/migrate"
POD = "/api/v1/namespaces/dev/pods/web"
WEB = {"apiVersion": "apps/v1", "kind": "Deployment"}


def idle() -> dict[str, Any]:
    """A Deployment that asks for no pods, so that it is ready at once."""
    thing = manifest()
    thing["spec"] |= {"replicas": 0}
    return thing


def migrate(image: str = "web") -> dict[str, Any]:
    spec = {"containers": [{"name": "web", "image": image}], "restartPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate"},
        "spec": {"template": {"spec": spec}},
    }


def bare_pod() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    }


def observed(stage: Stage) -> None:
    path = "/apis/apps/v1/namespaces/dev/deployments/web"
    stage.api.put(path, stage.api.objects[path] | {"status": {"observedGeneration": 9}})


def ends(stage: Stage, condition: str, **status: Any) -> None:
    found = [{"type": condition, "status": "True", "message": "as it is"}]
    thing = stage.api.objects[MIGRATE] | {"status": {"conditions": found, **status}}
    stage.api.put(MIGRATE, thing)
    mine = pod(terminated(3), name="migrate-x", status={"phase": "Failed"})
    uid = stage.api.objects[MIGRATE]["metadata"]["uid"]
    mine["metadata"]["ownerReferences"] = owner("Job", "migrate", uid)
    stage.api.put("/api/v1/namespaces/dev/pods/migrate-x", mine)
    observed(stage)


@pytest.mark.parametrize("image", ["web", "flyway:9"])
def test_a_job_is_awaited_whatever_image_it_runs(stage: Stage, image: str) -> None:
    deployer = stage.deployer(idle(), migrate(image))
    deployed = stage.deploy(deployer, ONE)
    assert [str(w.workload) for w in deployed.workloads] == ["deployment/web", "job/migrate"]
    ends(stage, "Complete")
    deployer.follow(deployed, stage.reporter, stage.cancel)
    assert not stage.deploy(deployer, ONE).changed


def test_a_job_that_fails_is_a_failure_with_its_log(stage: Stage) -> None:
    deployer = stage.deployer(idle(), migrate())
    deployed = stage.deploy(deployer, ONE)
    stage.api.logs["migrate-x", "web", False] = [b"2026-01-01T00:00:00Z no such table\n"]
    ends(stage, "Failed")
    with pytest.raises(DevloopError) as caught:
        deployer.follow(deployed, stage.reporter, stage.cancel)
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "pod/run-failed"
    assert diagnosis.message == "job/migrate failed: container web exits with 3"
    assert any("no such table" in line for line in diagnosis.detail)


def test_a_job_that_never_ends_is_one_at_the_deadline(stage: Stage) -> None:
    deployer = stage.deployer(idle(), migrate())
    deployer._service = replace(
        deployer._service, deploy=replace(deployer._service.deploy, timeout=0.01)
    )
    deployed = stage.deploy(deployer, ONE)
    ends(stage, "Suspended")
    mine = pod(running(), name="migrate-y")
    mine["metadata"]["ownerReferences"] = owner("Job", "migrate", deployed.workloads[1].uid)
    stage.api.put("/api/v1/namespaces/dev/pods/migrate-y", mine)
    stage.api.logs["migrate-y", "web", False] = [b"2026-01-01T00:00:00Z still at it\n"]
    with pytest.raises(DevloopError) as caught:
        deployer.follow(deployed, stage.reporter, stage.cancel)
    diagnosis = caught.value.diagnosis
    assert (diagnosis.code, diagnosis.message) == (
        "pod/deadline",
        "job/migrate is not at its end after 0.01 s",
    )
    assert any("still at it" in line for line in diagnosis.detail)


def test_a_job_is_made_again_for_another_image_whoever_made_it(stage: Stage) -> None:
    stage.api.put(MIGRATE, migrate("shop/web:old"), manager="kubectl")
    before = stage.api.objects[MIGRATE]["metadata"]["uid"]
    deployed = stage.deploy(stage.deployer(idle(), migrate()), ONE)
    again = stage.api.objects[MIGRATE]
    assert again["metadata"]["uid"] not in {before, ""}
    assert deployed.workloads[1].uid == again["metadata"]["uid"]
    # It is not devloop's to delete with the rest.
    assert created_by(again) == ""


def test_a_job_is_made_again_for_a_changed_config_that_it_reads(stage: Stage) -> None:
    def config(value: str) -> dict[str, Any]:
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        return {**kind, "metadata": {"name": "seed"}, "data": {"rows": value}}

    job = migrate()
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["envFrom"] = [{"configMapRef": {"name": "seed"}}]
    uids = []
    for value in ("1", "1", "2"):
        stage.deploy(stage.deployer(idle(), job, config(value)), ONE)
        uids.append(stage.api.objects[MIGRATE]["metadata"]["uid"])
    assert uids[0] == uids[1] != uids[2]


def test_a_job_that_failed_is_tried_again(stage: Stage) -> None:
    deployer = stage.deployer(idle(), migrate())
    first = stage.deploy(deployer, ONE)
    ends(stage, "Failed")
    jobs = stage.view.workload(first.workloads[1].workload)
    until(lambda: "status" in (jobs.get("migrate") or {}))
    again = stage.deploy(stage.deployer(idle(), migrate()), ONE)
    assert again.changed
    assert again.workloads[1].uid != first.workloads[1].uid


def test_a_job_is_not_put_back(stage: Stage) -> None:
    deployer = stage.deployer(idle(), migrate())
    stage.deploy(deployer, ONE)
    failed = stage.deploy(deployer, TWO)
    assert [bool(w.previous) for w in failed.workloads] == [True, False]


def test_a_bare_pod_is_replaced(stage: Stage) -> None:
    deployer = stage.deployer(bare_pod())
    deployer._service = replace(
        deployer._service,
        deploy=replace(deployer._service.deploy, workload_default=True),
    )
    first = stage.deploy(deployer, ONE)
    assert str(first.picked.workload) == "pod/web"
    second = stage.deploy(deployer, TWO)
    assert second.picked.uid != first.picked.uid
    assert ("DELETE", POD) in stage.writes()
    thing = stage.api.objects[POD]
    seen = pod(running(TWO.pinned))["status"]
    stage.api.put(POD, thing | {"status": seen})
    assert deployer.follow(second, stage.reporter, stage.cancel).pods == ("web",)


SET = "/apis/apps/v1/namespaces/dev/replicasets/web"


@pytest.mark.parametrize("refusals", [0, 1])
def test_the_pods_of_a_bare_replicaset_are_replaced(stage: Stage, refusals: int) -> None:
    if refusals:
        stage.api.faults.append(Fault(method="DELETE", path="pods", times=refusals, code=409))
    bare = manifest() | {"kind": "ReplicaSet"}
    deployer = stage.deployer(bare)
    deployer._service = replace(
        deployer._service,
        deploy=replace(deployer._service.deploy, workload_default=True, timeout=30.0),
    )
    deployed = stage.deploy(deployer, ONE)
    assert str(deployed.picked.workload) == "replicaset/web"
    thing = stage.api.objects[SET]
    stage.api.put(SET, thing | {"status": {"observedGeneration": 9}})
    old = pod(running(TWO.pinned), name="web-old", image=TWO.pinned, labels={})
    new = pod(running(ONE.pinned), name="web-new", image=ONE.pinned, labels={})
    for each in (old, new):
        each["metadata"]["ownerReferences"] = owner("ReplicaSet", "web", deployed.picked.uid)
        path = f"/api/v1/namespaces/dev/pods/{each['metadata']['name']}"
        stage.api.put(path, each)
    served = deployer.follow(deployed, stage.reporter, stage.cancel)
    assert served.pods == ("web-new",)
    asked = [call.path for call in stage.api.said("DELETE")]
    assert asked == ["/api/v1/namespaces/dev/pods/web-old"] * (1 + refusals)
