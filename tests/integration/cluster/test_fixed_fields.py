"""Objects of kinds that only their cluster knows, and fields that are for good, on the real one."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.pod_view import uid_of
from devloop.errors import DevloopError
from tests.integration.cluster.conftest import Bench, pod_spec, workload
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.config.schema import Project
    from devloop.model import ImageRef

pytestmark = [pytest.mark.kind, pytest.mark.docker]


@pytest.fixture
def rollouts(bench: Bench) -> Iterator[str]:
    """A kind of one test, with a status of its own; the group that it is in."""
    group = f"t{secrets.token_hex(4)}.example.test"
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"rollouts.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Rollout", "plural": "rollouts", "singular": "rollout"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    bench.connection.request("POST", path, body)

    def served() -> bool:
        found = bench.get(f"{path}/rollouts.{group}")
        conditions = found.get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    until(served, 20.0)
    yield group
    bench.connection.request("DELETE", f"{path}/rollouts.{group}")


def test_a_custom_resource_gets_the_image_and_is_ready_when_its_conditions_say_so(
    bench: Bench, push: Callable[[str], ImageRef], rollouts: str
) -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}
    rollout = {
        "apiVersion": f"{rollouts}/v1",
        "kind": "Rollout",
        "metadata": {"name": "web"},
        "spec": {"template": template},
    }
    path = f"/apis/{rollouts}/v1/namespaces/{bench.namespace}/rollouts/web"

    def say(status: str) -> None:
        ready = {"type": "Ready", "status": status, "message": "one pod is missing"}
        seen = bench.get(path)["metadata"]["generation"]
        body = {"status": {"observedGeneration": seen, "conditions": [ready]}}
        bench.connection.request(
            "PATCH", f"{path}/status", body, content_type="application/merge-patch+json"
        )

    deployer = bench.deployer(_deploying(bench.project(rollout), workload_default=True))
    image = push("one")
    deployed = deployer.deploy(image, bench.reporter, bench.cancel)
    containers = bench.get(path)["spec"]["template"]["spec"]["containers"]
    assert [container["image"] for container in containers] == [image.pinned]
    assert any("Rollout web" in d.message for d in bench.reporter.diagnoses)
    say("False")

    def get_well() -> None:
        until(lambda: any("one pod is missing" in p for p in bench.reporter.progressed), 30.0)
        say("True")

    thread = threading.Thread(target=get_well)
    thread.start()
    deployer.follow(deployed, bench.reporter, bench.cancel)
    thread.join()
    assert any("one pod is missing" in line for line in bench.reporter.progressed)


def _deploying(project: Project, **deploy: Any) -> Project:
    service = project.services["web"]
    return replace(
        project,
        services={"web": replace(service, deploy=replace(service.deploy, **deploy))},
    )


def _job(**template: Any) -> dict[str, Any]:
    container = {"name": "m", "image": "busybox-base:dev", "command": ["true"]}
    spec = {"restartPolicy": "Never", "containers": [container | template]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "seed"},
        "spec": {"template": {"spec": spec}},
    }


def _claim(size: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "resources": {"requests": {"storage": size}},
        },
    }


def _selecting(label: str) -> dict[str, Any]:
    labels = {"app": "web", "tier": label}
    made: dict[str, Any] = workload()
    made["spec"]["selector"] = {"matchLabels": labels}
    made["spec"]["template"]["metadata"]["labels"] = labels
    return made


def test_a_selector_that_changes_is_refused_with_the_way_out_and_done_on_request(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    image = push("one")
    bench.serve(bench.deployer(bench.project(_selecting("a"))), image)
    before = bench.live()
    project = bench.project(_selecting("b"))
    with pytest.raises(DevloopError) as caught:
        bench.deployer(project).deploy(image, bench.reporter, bench.cancel)
    said = caught.value.diagnosis
    assert said.code == "cluster/rejected"
    assert "spec.selector" in said.message
    assert f"kubectl -n {bench.namespace} delete deployments.apps web" in said.suggestions[0]
    assert "recreate: true" in said.suggestions[1]
    assert uid_of(bench.live()) == uid_of(before)

    _, served = bench.serve(bench.deployer(_deploying(project, recreate=True)), image)
    assert served.pods
    assert uid_of(bench.live()) != uid_of(before)
    assert bench.live()["spec"]["selector"]["matchLabels"]["tier"] == "b"


def test_a_job_that_runs_another_image_is_made_again_without_a_request(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    image = push("one")
    quiet = workload(spec={"replicas": 0})
    bench.deployer(bench.project(quiet, _job())).deploy(image, bench.reporter, bench.cancel)
    path = f"/apis/batch/v1/namespaces/{bench.namespace}/jobs/seed"
    before = bench.get(path)
    changed = bench.project(quiet, _job(command=["sh", "-c", "true"]))
    bench.deployer(changed).deploy(image, bench.reporter, bench.cancel)
    after = bench.get(path)
    assert uid_of(after) != uid_of(before)
    assert after["spec"]["template"]["spec"]["containers"][0]["command"] == ["sh", "-c", "true"]


def test_a_job_is_made_again_for_a_changed_config_that_it_reads(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    def config(value: str) -> dict[str, Any]:
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        return {**kind, "metadata": {"name": "seed"}, "data": {"rows": value}}

    quiet = workload(spec={"replicas": 0})
    job = _job(envFrom=[{"configMapRef": {"name": "seed"}}])
    path = f"/apis/batch/v1/namespaces/{bench.namespace}/jobs/seed"
    uids = []
    for value in ("1", "1", "2"):
        project = bench.project(quiet, job, config(value))
        bench.deployer(project).deploy(push("one"), bench.reporter, bench.cancel)
        uids.append(uid_of(bench.get(path)))
    assert uids[0] == uids[1] != uids[2]


def test_a_claim_is_never_made_anew(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    image = push("one")
    quiet = workload(spec={"replicas": 0})
    bench.deployer(bench.project(quiet, _claim("2Mi"))).deploy(image, bench.reporter, bench.cancel)
    path = f"/api/v1/namespaces/{bench.namespace}/persistentvolumeclaims/data"
    before = bench.get(path)
    project = _deploying(bench.project(quiet, _claim("1Mi")), recreate=True)
    with pytest.raises(DevloopError) as caught:
        bench.deployer(project).deploy(image, bench.reporter, bench.cancel)
    said = caught.value.diagnosis
    assert said.code == "cluster/rejected"
    assert "PersistentVolumeClaim data" in said.message
    assert [line for line in said.suggestions if "recreate" in line] == []
    assert uid_of(bench.get(path)) == uid_of(before)
