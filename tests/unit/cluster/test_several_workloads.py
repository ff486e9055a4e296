"""One service with several workloads: written, followed and put back together."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from devloop.cluster.deploy.deployments import Deployments
from devloop.errors import DevloopError
from devloop.model import WorkloadRef
from tests.support.cluster_objects import deployment, pod, running, waiting
from tests.support.deploy_stage import ONE, TWO, WEB, Stage, manifest

QUEUE = "/apis/apps/v1/namespaces/jobs/statefulsets/queue"
PODS = "/api/v1/namespaces/{}/pods/{}"


def queue(image: str = "web") -> dict[str, Any]:
    spec = deployment(image, name="queue")["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "queue", "namespace": "jobs"},
        "spec": spec,
    }


def served(stage: Stage, *, broken: bool = False) -> None:
    """The controllers' part: both workloads run ONE; the queue's pod crashes if `broken`."""
    for path in (WEB, QUEUE):
        thing = json.loads(json.dumps(stage.api.objects[path]))
        generation = thing["metadata"]["generation"]
        thing["status"] = {"observedGeneration": generation + 1, "updateRevision": "r1"}
        if path == WEB:
            thing["spec"]["replicas"] = 0  # it is ready at once: what counts here is the other
        stage.api.put(path, thing)
    uid = stage.api.objects[QUEUE]["metadata"]["uid"]
    crash = {"exitCode": 1, "reason": "Error"}
    status = waiting("CrashLoopBackOff", restarts=3, last=crash) if broken else running(ONE.pinned)
    mine = pod(
        status,
        name="queue-0",
        image=ONE.pinned,
        owner_kind="StatefulSet",
        labels={"controller-revision-hash": "r1"},
    )
    mine["metadata"]["ownerReferences"][0] |= {"name": "queue", "uid": uid}
    stage.api.put(PODS.format("jobs", "queue-0"), mine)


def images(stage: Stage) -> dict[str, str]:
    return {
        path.rpartition("/")[2]: thing["spec"]["template"]["spec"]["containers"][0]["image"]
        for path, thing in stage.api.objects.items()
        if path in (WEB, QUEUE)
    }


def test_each_gets_the_image_where_its_manifest_puts_it(stage: Stage) -> None:
    deployer = stage.deployer(manifest(), queue())
    deployed = stage.deploy(deployer, ONE)
    assert [w.workload for w in deployed.workloads] == [
        WorkloadRef("deployment", "web", "dev"),
        WorkloadRef("statefulset", "queue", "jobs"),
    ]
    assert images(stage) == {"web": ONE.pinned, "queue": ONE.pinned}
    stage.api.calls.clear()
    assert not stage.deploy(deployer, ONE).changed
    assert stage.writes() == []


def test_they_are_ready_together(stage: Stage) -> None:
    deployer = stage.deployer(manifest(), queue())
    deployed = stage.deploy(deployer, ONE)
    served(stage)
    found = deployer.follow(deployed, stage.reporter, stage.cancel)
    assert found.pods == ("queue-0",)


def test_the_failure_of_one_is_that_of_the_service(stage: Stage) -> None:
    deployer = stage.deployer(manifest(), queue())
    deployed = stage.deploy(deployer, ONE)
    served(stage, broken=True)
    stage.api.logs["queue-0", "web", True] = [b"2026-01-01T00:00:00Z no such queue\n"]
    with pytest.raises(DevloopError) as caught:
        deployer.follow(deployed, stage.reporter, stage.cancel)
    assert caught.value.code == "pod/crash-loop"
    assert "queue-0" in caught.value.diagnosis.message


def test_they_are_put_back_together(stage: Stage) -> None:
    deployer = stage.deployer(manifest(), queue())
    stage.deploy(deployer, ONE)
    failed = stage.deploy(deployer, TWO)
    before = {"web": ONE.pinned}
    failed = replace(failed, workloads=tuple(replace(w, previous=before) for w in failed.workloads))
    deployer.rollback(failed, stage.reporter, stage.cancel)
    assert images(stage) == {"web": ONE.pinned, "queue": ONE.pinned}


def test_what_runs_a_service_is_told_before_it_is_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    made = Deployments.__init__

    def init(self: Deployments, *args: Any, **how: Any) -> None:
        made(self, *args, **how, runs=lambda *found: told.append((found, stage.writes())))

    monkeypatch.setattr(Deployments, "__init__", init)
    stage.deploy(stage.deployer(manifest(), queue()), ONE)
    (service, refs), writes = told[0]
    assert (service, [str(ref) for ref in refs]) == ("web", ["deployment/web", "statefulset/queue"])
    assert writes == []


def test_several_that_exist_already_are_patched(stage: Stage) -> None:
    stage.api.put(WEB, manifest("shop/web:old"))
    stage.api.put("/apis/apps/v1/namespaces/dev/statefulsets/queue", queue("shop/web:old"))
    deployer = stage.deployer()
    deploy = replace(deployer._service.deploy, workloads=("deployment/web", "statefulset/queue"))
    deployer._service = replace(deployer._service, deploy=deploy)
    deployed = stage.deploy(deployer, ONE)
    assert [str(w.workload) for w in deployed.workloads] == ["deployment/web", "statefulset/queue"]
    assert [w.previous for w in deployed.workloads] == [{"web": "shop/web:old"}] * 2
    assert [call.path for call in stage.api.said("PATCH")] == [
        WEB,
        "/apis/apps/v1/namespaces/dev/statefulsets/queue",
    ]
