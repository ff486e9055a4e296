from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from devloop.cluster.rollout.rollout_status import (
    Failing,
    Ready,
    RolloutView,
    Waiting,
    digest_of,
    judge,
)
from devloop.model import DeployedWorkload, ImageRef, WorkloadRef
from tests.support.cluster_objects import (
    DIGEST,
    IMAGE,
    deployment,
    pod,
    replicaset,
    running,
    waiting,
)
from tests.unit.cluster.test_diagnose import THING

OTHER = "localhost:5001/shop/web@sha256:" + "b" * 64


def deployed(kind: str = "deployment", **change: Any) -> DeployedWorkload:
    image = ImageRef(repository="localhost:5001/shop/web", tag="x", digest=DIGEST)
    return replace(
        DeployedWorkload(
            workload=WorkloadRef(kind, "web", "dev"),
            uid="uid-web",
            generation=2,
            image=image,
            containers=("web",),
        ),
        **change,
    )


def see(*pods: dict[str, Any], workload: Any = None, sets: Any = None) -> Any:
    sight = RolloutView(
        workload=deployment() if workload is None else workload,
        replicasets=(replicaset(),) if sets is None else sets,
        pods=pods,
    )
    return judge(deployed(), sight)


OLD = replicaset(OTHER, hash_="old", revision="1")


def old_pod(**change: Any) -> dict[str, Any]:
    return pod(
        running(OTHER),
        name="web-old-y",
        owner_uid="rs-old",
        image=OTHER,
        labels={"pod-template-hash": "old"},
        **change,
    )


def test_ready_with_proof() -> None:
    found = see(pod(running()))
    assert found == Ready(pods=("web-new-x",), image_ids=(IMAGE,), detail="1/1 ready")


def test_old_pods_must_be_ending() -> None:
    both = (OLD, replicaset())
    found = see(pod(running()), old_pod(), sets=both)
    assert isinstance(found, Waiting)
    assert found.message == "1/1 ready, 1 old pod to stop"
    assert isinstance(see(pod(running()), old_pod(deleting=True), sets=both), Ready)


def test_old_pods_troubles_do_not_count() -> None:
    broken = pod(
        waiting("CrashLoopBackOff", restarts=5), name="web-old-y", owner_uid="rs-old", image=OTHER
    )
    found = see(broken, pod(waiting("ContainerCreating")), sets=(OLD, replicaset()))
    assert isinstance(found, Waiting)
    assert [p["metadata"]["name"] for p in found.pods] == ["web-new-x"]
    assert found.message == "0/1 ready, pod web-new-x: pulling image, starting"


def test_another_image_is_not_ready() -> None:
    found = see(pod(running(OTHER)))
    assert isinstance(found, Waiting)
    assert found.stale == (("web-new-x", OTHER),)
    accepted = judge(
        deployed(),
        RolloutView(
            workload=deployment(), replicasets=(replicaset(),), pods=(pod(running(OTHER)),)
        ),
        accepted=frozenset({("web-new-x", OTHER)}),
    )
    assert isinstance(accepted, Ready)


def test_an_image_without_digest_is_known_by_its_tag() -> None:
    loaded = deployed(image=ImageRef(repository="shop/web", tag="abc"))
    sight = RolloutView(
        workload=deployment("shop/web:abc"),
        replicasets=(replicaset("shop/web:abc"),),
        pods=(pod(running("sha256:" + "c" * 64), image="shop/web:abc"),),
    )
    assert isinstance(judge(loaded, sight), Ready)


def test_waits_for_the_controller() -> None:
    late = deployment()
    late["status"]["observedGeneration"] = 1
    assert isinstance(see(pod(running()), workload=late), Waiting)
    assert isinstance(judge(deployed(), RolloutView(workload=None)), Waiting)
    assert isinstance(see(pod(running()), sets=(OLD,)), Waiting)


def test_scaled_to_zero() -> None:
    found = see(workload=deployment(replicas=0))
    assert isinstance(found, Ready)
    assert "scaled to 0" in found.detail


def test_min_ready_seconds_are_waited_for() -> None:
    slow = deployment(minReadySeconds=5)
    assert isinstance(see(pod(running()), workload=slow), Waiting)
    counted = replicaset() | {"status": {"availableReplicas": 1}}
    assert isinstance(see(pod(running()), workload=slow, sets=(counted,)), Ready)


def test_finished_pods_do_not_count() -> None:
    evicted = pod(name="web-new-z", status={"phase": "Failed", "reason": "Evicted"})
    assert isinstance(see(evicted, pod(running())), Ready)


def test_somebody_else_changed_the_image() -> None:
    found = see(workload=deployment(OTHER, generation=3))
    assert isinstance(found, Failing)
    assert found.error.code == "safety/changed-outside"
    scaled = see(pod(running()), workload=deployment(generation=3))
    assert isinstance(scaled, Ready)


def test_a_recreated_workload() -> None:
    other = deployment()
    other["metadata"]["uid"] = "another"
    found = see(workload=other)
    assert isinstance(found, Failing)
    assert found.error.code == "safety/changed-outside"


def test_pods_that_cannot_be_made() -> None:
    refused = deployment()
    refused["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}
    ]
    found = see(workload=refused)
    assert isinstance(found, Failing)
    assert found.error.code == "cluster/rejected"
    assert found.grace == 15


def stateful(**spec: Any) -> dict[str, Any]:
    thing = deployment(**spec)
    thing["kind"] = "StatefulSet"
    thing["status"]["updateRevision"] = "web-2"
    return thing


def ordinal(number: int, revision: str = "web-2", **change: Any) -> dict[str, Any]:
    image = IMAGE if revision == "web-2" else OTHER
    return pod(
        running(image, **change),
        name=f"web-{number}",
        owner_uid="uid-web",
        owner_kind="StatefulSet",
        labels={"controller-revision-hash": revision},
        image=image,
    )


def see_set(*pods: dict[str, Any], **spec: Any) -> Any:
    return judge(deployed("statefulset"), RolloutView(workload=stateful(**spec), pods=pods))


def test_statefulset() -> None:
    assert isinstance(see_set(ordinal(0), ordinal(1), replicas=2), Ready)
    half = see_set(ordinal(0, "web-1"), ordinal(1), replicas=2)
    assert isinstance(half, Waiting)
    assert half.broken == ()
    stuck = see_set(ordinal(0, "web-1", ready=False), replicas=1)
    assert isinstance(stuck, Waiting)
    assert len(stuck.broken) == 1


def test_statefulset_with_partition() -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    found = see_set(ordinal(0, "web-1"), ordinal(1), replicas=2, updateStrategy=rolling)
    assert isinstance(found, Ready)
    assert "1 kept by partition 1" in found.detail
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    kept = see_set(ordinal(0, "web-1"), ordinal(1, "web-1"), replicas=2, updateStrategy=rolling)
    assert isinstance(kept, Failing)
    assert kept.error.code == "pod/stale-image"


def test_statefulset_on_delete() -> None:
    kept = see_set(ordinal(0, "web-1"), replicas=1, updateStrategy={"type": "OnDelete"})
    assert isinstance(kept, Failing)
    assert "kubectl -n dev delete pod web-0" in kept.error.diagnosis.suggestions


def daemon(updated: int = 1) -> dict[str, Any]:
    thing = deployment()
    thing["kind"] = "DaemonSet"
    thing["metadata"]["annotations"] = {"deprecated.daemonset.template.generation": "2"}
    thing["status"] |= {"desiredNumberScheduled": 1, "updatedNumberScheduled": updated}
    return thing


def on_node(generation: str, image: str = IMAGE, **change: Any) -> dict[str, Any]:
    return pod(
        running(image),
        owner_uid="uid-web",
        owner_kind="DaemonSet",
        labels={"pod-template-generation": generation},
        image=image,
        **change,
    )


def test_daemonset() -> None:
    ref = deployed("daemonset")
    assert isinstance(judge(ref, RolloutView(workload=daemon(), pods=(on_node("2"),))), Ready)
    assert isinstance(judge(ref, RolloutView(workload=daemon(0), pods=(on_node("2"),))), Waiting)
    old = on_node("1", OTHER, name="web-old")
    assert isinstance(judge(ref, RolloutView(workload=daemon(), pods=(on_node("2"), old))), Waiting)


@pytest.mark.parametrize(
    ("image_id", "digest"),
    [
        (f"localhost:5001/shop/web@{DIGEST}", DIGEST),
        (f"docker-pullable://shop/web@{DIGEST}", DIGEST),
        (DIGEST, ""),
        (f"docker://{DIGEST}", ""),
        ("", ""),
    ],
)
def test_digest_of(image_id: str, digest: str) -> None:
    assert digest_of(image_id) == digest


@given(THING, THING, THING)
def test_never_raises(workload: dict[str, Any], one: dict[str, Any], two: dict[str, Any]) -> None:
    for kind in ("deployment", "statefulset", "daemonset"):
        known = {"metadata": {"uid": "uid-web", "generation": 2}}
        status = workload.get("status")
        inside = status if isinstance(status, dict) else {}
        seen = workload | known | {"status": inside | {"observedGeneration": 2}}
        sight = RolloutView(workload=seen, replicasets=(one, replicaset()), pods=(two, pod(two)))
        judge(deployed(kind), sight)
