"""Deploying to the real cluster: what is written, what is proven, what is left alone."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.connection import APPLY
from devloop.cluster.api.pod_view import images_of
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.down import delete, find_created
from devloop.cluster.deploy.original import original_file
from devloop.errors import DevloopError
from tests.integration.cluster.conftest import Bench, workload
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.model import ImageRef

pytestmark = [pytest.mark.kind, pytest.mark.docker]


def service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def test_manifests_are_applied_and_the_image_is_proven(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    project = bench.project(workload(), service())
    deployer = bench.deployer(project)
    one, two = push("one"), push("two")

    deployed, served = bench.serve(deployer, one)
    assert deployed.changed
    assert deployed.picked.previous == {}
    assert served.image_ids == (one.pinned,)
    assert images_of(bench.live()) == {"web": one.pinned}

    deployed, served = bench.serve(deployer, two)
    assert deployed.picked.previous == {"web": one.pinned}
    assert served.image_ids == (two.pinned,)
    assert deployed.picked.generation == 2

    deployer.rollback(deployed, bench.reporter, bench.cancel)
    assert images_of(bench.live()) == {"web": one.pinned}


def _written(metadata: dict[str, Any]) -> list[str]:
    return [e["time"] for e in metadata["managedFields"] if e["manager"] == "devloop"]


def test_a_warm_start_writes_nothing(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    project = bench.project(workload(), service())
    bench.serve(bench.deployer(project), push("one"))
    before = bench.live()["metadata"]
    with contextlib.closing(ClusterView(bench.connection)) as fresh:
        deployer = bench.deployer(project, fresh)
        deployed = deployer.deploy(push("one"), bench.reporter, bench.cancel)
        served = deployer.follow(deployed, bench.reporter, bench.cancel)
    after = bench.live()["metadata"]
    assert not deployed.changed
    assert served.pods
    assert after["generation"] == before["generation"]
    assert _written(after) == _written(before)


def test_down_deletes_what_was_created_and_nothing_else(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    bench.create(service(), "services")
    project = bench.project(workload(), service())
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    bench.serve(deployer, push("two"))
    found = find_created(bench.connection, project.name)
    assert [str(c) for c in found] == [f"Deployment web in {bench.namespace}"]
    assert all(delete(bench.connection, c) for c in found)
    assert bench.get(f"/api/v1/namespaces/{bench.namespace}/services/web")
    with pytest.raises(DevloopError):
        bench.live()
    assert find_created(bench.connection, project.name) == ()


def test_patch_only_changes_the_image_and_records_the_original(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    one, two = push("one"), push("two")
    original = workload()
    original["spec"]["template"]["spec"]["containers"][0]["image"] = one.pinned
    bench.create(original, "deployments")
    project = bench.project()
    deployer = bench.deployer(project)
    deployed, served = bench.serve(deployer, two)
    assert deployed.picked.previous == {"web": one.pinned}
    assert served.image_ids == (two.pinned,)
    original = original_file(project.state_dir, bench.connection.context, bench.live())
    recorded = original.read()
    assert recorded is not None
    assert images_of(recorded) == {"web": one.pinned}
    bench.serve(deployer, push("three"))
    assert original.read() == recorded
    assert find_created(bench.connection, project.name) == ()

    deployed = deployer.deploy(push("three"), bench.reporter, bench.cancel)
    assert not deployed.changed


def test_patch_only_without_the_workload_names_what_there_is(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    other = workload(spec={"replicas": 0})
    other["metadata"]["name"] = "webb"
    bench.create(other, "deployments")
    with pytest.raises(DevloopError) as caught:
        bench.deployer(bench.project()).deploy(push("one"), bench.reporter, bench.cancel)
    assert caught.value.code == "cluster/not-found"
    assert "did you mean deployment/webb?" in caught.value.diagnosis.suggestions


def test_kubectl_apply_is_taken_over_and_named(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    one = push("one")
    manifest = workload(spec={"replicas": 0})
    bench.create(manifest, "deployments", manager="kubectl-client-side-apply")
    deployed = bench.deployer(bench.project(manifest)).deploy(one, bench.reporter, bench.cancel)
    assert deployed.changed
    assert [d.severity for d in bench.reporter.diagnoses] == ["info"]
    assert "kubectl-client-side-apply" in bench.reporter.diagnoses[0].message
    assert images_of(bench.live()) == {"web": one.pinned}


@pytest.mark.parametrize("manager", ["argocd-controller", "kustomize-controller"])
def test_a_gitops_controller_is_not_fought(
    bench: Bench, push: Callable[[str], ImageRef], manager: str
) -> None:
    manifest = workload(spec={"replicas": 0})
    theirs = workload(spec={"replicas": 0})
    theirs["spec"]["template"]["spec"]["containers"][0]["image"] = "elsewhere/web:1"
    bench.connection.request(
        "PATCH",
        f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/web",
        theirs,
        query={"fieldManager": manager},
        content_type=APPLY,
    )
    with pytest.raises(DevloopError) as caught:
        bench.deployer(bench.project(manifest)).deploy(push("one"), bench.reporter, bench.cancel)
    assert caught.value.code == "cluster/conflict"
    assert manager in caught.value.diagnosis.message
    assert any("image" in line for line in caught.value.diagnosis.detail)
    assert images_of(bench.live()) == {"web": "elsewhere/web:1"}


def test_a_hand_scaled_deployment_stays_scaled(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    manifest = workload(spec={"replicas": 1})
    deployer = bench.deployer(bench.project(manifest))
    bench.serve(deployer, push("one"))
    path = f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/web"
    bench.connection.request(
        "PATCH",
        f"{path}/scale",
        {"spec": {"replicas": 2}},
        query={"fieldManager": "kubectl"},
        content_type="application/merge-patch+json",
    )
    _, served = bench.serve(deployer, push("two"))
    assert len(served.pods) == 2
    assert any("left the replicas" in d.message for d in bench.reporter.diagnoses)


def test_the_replicas_of_an_autoscaler_stay_its_own_and_that_is_said_once(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    manifest = workload(spec={"replicas": 0})
    deployer = bench.deployer(bench.project(manifest))
    deployer.deploy(push("one"), bench.reporter, bench.cancel)
    bench.connection.request(
        "PATCH",
        f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/web/scale",
        {"spec": {"replicas": 1}},
        query={"fieldManager": "kube-controller-manager"},
        content_type="application/merge-patch+json",
    )
    for label in ("two", "three"):
        deployer.deploy(push(label), bench.reporter, bench.cancel)
        assert bench.live()["spec"]["replicas"] == 1
    told = [d.message for d in bench.reporter.diagnoses if "left the replicas" in d.message]
    assert told == ["left the replicas of Deployment web as an autoscaler set them"]


def test_statefulset(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    deployer = bench.deployer(
        bench.project(workload("StatefulSet", spec={"replicas": 2}), kind="statefulset")
    )
    _, served = bench.serve(deployer, push("one"))
    assert served.pods == ("web-0", "web-1")
    _, served = bench.serve(deployer, push("two"))
    assert served.image_ids == (push("two").pinned,)


def test_a_fix_gets_past_a_broken_statefulset_pod(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    """An ordered StatefulSet waits for its broken pod for ever: kubernetes/kubernetes#67250."""
    broken = workload("StatefulSet")
    broken["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", "exit 3"]
    deployer = bench.deployer(bench.project(broken, kind="statefulset"))
    with pytest.raises(DevloopError) as caught:
        bench.serve(deployer, push("one"))
    assert caught.value.code == "pod/crash-loop"
    deployer = bench.deployer(bench.project(workload("StatefulSet"), kind="statefulset"))
    _, served = bench.serve(deployer, push("two"))
    assert served.pods == ("web-0",)


def test_daemonset(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    deployer = bench.deployer(bench.project(workload("DaemonSet"), kind="daemonset"))
    bench.serve(deployer, push("one"))
    _, served = bench.serve(deployer, push("two"))
    assert len(served.pods) == 1
    assert served.image_ids == (push("two").pinned,)


def test_scaled_to_zero_is_ready_with_a_note(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    deployer = bench.deployer(bench.project(workload(spec={"replicas": 0})))
    _, served = bench.serve(deployer, push("one"))
    assert served.pods == ()


def test_a_paused_deployment_is_left_alone(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    bench.create(workload(spec={"replicas": 0, "paused": True}), "deployments")
    with pytest.raises(DevloopError) as caught:
        bench.deployer(bench.project()).deploy(push("one"), bench.reporter, bench.cancel)
    assert caught.value.code == "cluster/paused"


def test_an_unknown_kind_and_an_unknown_field_are_rejected(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    odd = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    with pytest.raises(DevloopError) as caught:
        bench.deployer(bench.project(workload(), odd)).deploy(
            push("one"), bench.reporter, bench.cancel
        )
    assert caught.value.code == "cluster/rejected"
    assert "CustomResourceDefinition" in str(caught.value.diagnosis.cause)
    assert str(caught.value.diagnosis.location).startswith("1.json:1:")

    (bench.root / "1.json").unlink()
    wrong = workload(spec={"replcas": 1})
    with pytest.raises(DevloopError) as caught:
        bench.deployer(bench.project(wrong)).deploy(push("one"), bench.reporter, bench.cancel)
    assert caught.value.code == "cluster/rejected"
    assert "replcas" in str(caught.value.diagnosis.cause)


def test_a_missing_namespace_says_how_to_make_it(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    manifest = workload()
    manifest["metadata"]["namespace"] = f"{bench.namespace}-not"
    with pytest.raises(DevloopError) as caught:
        bench.deployer(bench.project(manifest)).deploy(push("one"), bench.reporter, bench.cancel)
    assert caught.value.code == "cluster/not-found"
    assert "kubectl create namespace" in caught.value.diagnosis.suggestions[0]


def test_an_image_changed_by_somebody_else_ends_the_wait(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    deployer = bench.deployer(bench.project(workload()))
    bench.serve(deployer, push("one"))
    deployed = deployer.deploy(push("two"), bench.reporter, bench.cancel)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "x/y:1"}]}}}}
    bench.connection.request(
        "PATCH",
        f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/web",
        patch,
        query={"fieldManager": "kubectl-set"},
        content_type="application/strategic-merge-patch+json",
    )
    with pytest.raises(DevloopError) as caught:
        deployer.follow(deployed, bench.reporter, bench.cancel)
    assert caught.value.code == "safety/changed-outside"
    assert "kubectl-set" in caught.value.diagnosis.message


def test_a_job_with_the_services_image_is_recreated(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    """A Job's template is immutable; a migration must run with each new image all the same."""
    container = {"name": "m", "image": "devloop-cluster/web", "command": ["true"]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    deployer = bench.deployer(bench.project(workload(spec={"replicas": 0}), job))
    path = f"/apis/batch/v1/namespaces/{bench.namespace}/jobs/migrate"
    uids = set()
    for label in ("one", "two"):
        deployer.deploy(push(label), bench.reporter, bench.cancel)
        live = bench.get(path)
        assert live["spec"]["template"]["spec"]["containers"][0]["image"] == push(label).pinned
        uids.add(live["metadata"]["uid"])
    assert len(uids) == 2


def test_a_namespace_of_the_manifests_goes_last_and_only_when_empty(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    name = f"{bench.namespace}-own"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    manifest = workload()
    manifest["metadata"]["namespace"] = name
    project = bench.project(manifest, namespace)
    _, served = bench.serve(bench.deployer(project), push("one"))
    assert served.pods
    found = find_created(bench.connection, project.name)
    assert [str(c) for c in found] == [f"Deployment web in {name}", f"Namespace {name}"]
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}}
    bench.connection.request("POST", f"/api/v1/namespaces/{name}/configmaps", theirs)
    found = find_created(bench.connection, project.name)
    assert [str(c) for c in found] == [f"Deployment web in {name}"]
    bench.connection.request("DELETE", f"/api/v1/namespaces/{name}")


def test_a_workload_deleted_while_rolled_out_ends_the_wait(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    deployer = bench.deployer(bench.project(workload(nodeSelector={"no": "where"})))
    deployed = deployer.deploy(push("one"), bench.reporter, bench.cancel)
    path = f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/web"

    def delete_it() -> None:
        until(lambda: any("ready" in line for line in bench.reporter.progressed), 30.0)
        bench.connection.request("DELETE", path)

    thread = threading.Thread(target=delete_it)
    thread.start()
    with pytest.raises(DevloopError) as caught:
        deployer.follow(deployed, bench.reporter, bench.cancel)
    thread.join()
    assert caught.value.code == "cluster/not-found"
