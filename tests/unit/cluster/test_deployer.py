"""What a deploy asks of the API server and in which order; on the fake one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancelled
from devloop.base.supervisor import supervise
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.deploy.ownership import created_by
from devloop.config.schema import Project
from devloop.errors import DevloopError
from devloop.manifests import renderings_of
from devloop.model import ImageRef
from tests.support.cluster_objects import pod, replicaset, running, service_config
from tests.support.deploy_stage import ONE, TWO, WEB, Stage, manifest
from tests.support.fake_api import FakeApi, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.cluster.api.connection import Connection

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}


def test_one_write_an_object_and_none_when_nothing_changed(stage: Stage) -> None:
    deployer = stage.deployer(manifest(), CONFIG)
    first = stage.deploy(deployer, ONE)
    assert (first.changed, first.picked.previous, first.picked.generation) == (True, {}, 1)
    assert stage.writes() == [
        ("PATCH", "/api/v1/namespaces/dev/configmaps/c"),
        ("PATCH", WEB),
    ]
    stage.api.calls.clear()
    again = stage.deploy(deployer, ONE)
    assert not again.changed
    assert stage.writes() == []
    stage.api.calls.clear()
    changed = stage.deploy(deployer, TWO)
    assert changed.changed
    assert changed.picked.previous == {"web": ONE.pinned}
    assert stage.writes() == [("PATCH", WEB)]
    assert not stage.api.said("GET", "configmaps")


def reading() -> dict[str, Any]:
    found = manifest()
    found["spec"]["template"]["spec"]["containers"][0]["envFrom"] = [
        {"configMapRef": {"name": "c"}}
    ]
    return found


def test_a_changed_configmap_changes_the_template_of_what_reads_it(stage: Stage) -> None:
    stage.deploy(stage.deployer(reading(), CONFIG), ONE)
    before = stage.api.objects[WEB]["spec"]["template"]["metadata"]["annotations"]
    stage.api.calls.clear()
    deployer = stage.deployer(reading(), {**CONFIG, "data": {"a": "other"}})
    assert stage.deploy(deployer, ONE).changed
    assert [path for _, path in stage.writes()] == ["/api/v1/namespaces/dev/configmaps/c", WEB]
    assert stage.api.objects[WEB]["spec"]["template"]["metadata"]["annotations"] != before
    assert stage.reporter.details[-1] == ("deployment/web -> 111111, ConfigMap c changed: new pods")


def test_a_changed_configmap_restarts_nothing_that_does_not_read_it(stage: Stage) -> None:
    stage.deploy(stage.deployer(manifest(), CONFIG), ONE)
    stage.api.calls.clear()
    stage.deploy(stage.deployer(manifest(), {**CONFIG, "data": {"a": "other"}}), ONE)
    assert [path for _, path in stage.writes()] == ["/api/v1/namespaces/dev/configmaps/c"]


def test_a_workload_that_exists_gets_new_pods_for_a_configmap_of_the_manifests(
    stage: Stage,
) -> None:
    stage.api.put(WEB, reading())
    deployer = stage.deployer(CONFIG)
    stage.deploy(deployer, ONE)
    stage.deploy(stage.deployer({**CONFIG, "data": {"a": "other"}}), ONE)
    assert stage.reporter.details[-1] == ("deployment/web -> 111111, ConfigMap c changed: new pods")


def test_without_manifests_there_is_no_annotation(stage: Stage) -> None:
    stage.api.put(WEB, reading())
    stage.deploy(stage.deployer(), ONE)
    assert "annotations" not in stage.api.objects[WEB]["spec"]["template"]["metadata"]


def test_a_session_that_starts_warm_writes_nothing(stage: Stage) -> None:
    stage.deploy(stage.deployer(manifest(), CONFIG), ONE)
    stage.api.calls.clear()
    assert not stage.deploy(stage.deployer(manifest(), CONFIG), ONE).changed
    assert stage.writes() == []


def test_drift_is_put_right(stage: Stage) -> None:
    stage.deploy(stage.deployer(manifest(), CONFIG), ONE)
    path = "/api/v1/namespaces/dev/configmaps/c"
    stage.api.objects[path]["data"]["a"] = "changed"
    assert stage.deploy(stage.deployer(manifest(), CONFIG), ONE).changed
    assert stage.api.objects[path]["data"] == {"a": "b"}


def test_only_what_did_not_exist_is_marked(stage: Stage) -> None:
    stage.api.put("/api/v1/namespaces/dev/configmaps/c", CONFIG, manager="kubectl")
    deployer = stage.deployer(manifest(), CONFIG)
    stage.deploy(deployer, ONE)
    stage.deploy(deployer, TWO)
    assert created_by(stage.api.objects[WEB]) == "shop"
    assert created_by(stage.api.objects["/api/v1/namespaces/dev/configmaps/c"]) == ""
    assert not (stage.root / ".devloop/before").exists()


def test_an_existing_workload_is_recorded_before_it_is_written(stage: Stage) -> None:
    stage.api.put(WEB, manifest("shop/web:old"), manager="kubectl-client-side-apply")
    record = stage.root / ".devloop/before/kind-fake/dev/deployment-web.json"
    seen: list[bool] = []
    stage.api.on_write.append(lambda *_: seen.append(record.exists()))
    deployed = stage.deploy(stage.deployer(manifest()), ONE)
    assert seen == [True]
    assert deployed.picked.previous == {"web": "shop/web:old"}
    kept = json.loads(record.read_text())["spec"]["template"]["spec"]["containers"]
    assert kept[0]["image"] == "shop/web:old"
    assert "kubectl-client-side-apply" in stage.reporter.diagnoses[0].message


def test_what_cannot_be_recorded_is_not_written(stage: Stage) -> None:
    stage.api.put(WEB, manifest("shop/web:old"))
    (stage.root / ".devloop").write_text("in the way")
    with pytest.raises(DevloopError) as caught:
        stage.deploy(stage.deployer(), ONE)
    assert caught.value.code == "env/file-unreadable"
    assert stage.writes() == []


def test_patch_only_is_one_small_patch(stage: Stage) -> None:
    stage.api.put(WEB, manifest("shop/web:old"))
    deployer = stage.deployer()
    assert stage.deploy(deployer, ONE).changed
    (call,) = stage.api.said("PATCH")
    assert call.query == {"fieldManager": "devloop"}
    containers = [{"name": "web", "image": ONE.pinned}]
    assert call.body["spec"] == {"template": {"spec": {"containers": containers}}}
    assert call.body["metadata"]["uid"]
    assert not stage.deploy(deployer, ONE).changed
    assert len(stage.api.said("PATCH")) == 1


def test_rollback_returns_to_the_last_image_that_was_served(stage: Stage) -> None:
    """Two images failed in a row: going back one would only fail again."""
    stage.api.put(WEB, manifest(ONE.pinned))
    deployer = stage.deployer()
    served = stage.deploy(deployer, ONE)
    stage.api.put("/apis/apps/v1/namespaces/dev/replicasets/web-new", _set_for(stage, ONE))
    stage.api.put(
        "/api/v1/namespaces/dev/pods/web-new-x", pod(running(ONE.pinned), image=ONE.pinned)
    )
    _observe(stage)
    deployer.follow(served, stage.reporter, stage.cancel)
    stage.deploy(deployer, TWO)
    three = ImageRef(repository=TWO.repository, tag="3", digest="sha256:" + "3" * 64)
    failed = stage.deploy(deployer, three)
    assert failed.picked.previous == {"web": ONE.pinned}
    deployer.rollback(failed, stage.reporter, stage.cancel)
    spec = stage.api.objects[WEB]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == ONE.pinned


@pytest.mark.parametrize("served", [(), supervise()])
def test_rollback_returns_to_the_command_of_the_image(
    stage: Stage, served: tuple[str, ...]
) -> None:
    wanted = manifest()
    wanted["spec"]["template"]["spec"]["containers"][0]["command"] = ["app"]
    deployer = stage.deployer(wanted)
    stage.deploy(deployer, replace(ONE, supervisor=served))
    failed = stage.deploy(deployer, replace(TWO, supervisor=supervise(3)))
    assert _container(stage)["command"] == [*supervise(3), "app"]
    failed = replace(failed, workloads=(replace(failed.picked, previous={"web": ONE.pinned}),))
    deployer.rollback(failed, stage.reporter, stage.cancel)
    assert (_container(stage)["image"], _container(stage)["command"]) == (
        ONE.pinned,
        [*served, "app"],
    )


def _container(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.api.objects[WEB]["spec"]["template"]["spec"]["containers"][0]
    return found


def _set_for(stage: Stage, image: ImageRef) -> dict[str, Any]:
    found = replicaset(image.pinned)
    found["metadata"]["ownerReferences"][0]["uid"] = stage.api.objects[WEB]["metadata"]["uid"]
    return found


def _observe(stage: Stage) -> None:
    thing = json.loads(json.dumps(stage.api.objects[WEB]))
    thing["status"] = {"observedGeneration": thing["metadata"]["generation"] + 1}
    thing["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    stage.api.put(WEB, thing)


def test_rollback_leaves_a_newer_image_alone(stage: Stage) -> None:
    stage.api.put(WEB, manifest("shop/web:old"))
    deployer = stage.deployer()
    first = stage.deploy(deployer, ONE)
    stage.deploy(deployer, TWO)
    stage.api.calls.clear()
    deployer.rollback(first, stage.reporter, stage.cancel)
    assert stage.writes() == []


def test_a_cancelled_deploy_writes_nothing(stage: Stage) -> None:
    stage.cancel.set()
    with pytest.raises(Cancelled):
        stage.deploy(stage.deployer(manifest(), CONFIG), ONE)
    assert stage.writes() == []


def test_a_conflict_of_two_writes_is_tried_again(stage: Stage) -> None:
    stage.api.faults.append(Fault(method="PATCH", path="deployments", code=409))
    assert stage.deploy(stage.deployer(manifest()), ONE).changed


def test_protected_namespaces_of_manifests_are_refused(stage: Stage) -> None:
    bad = {**CONFIG, "metadata": {"name": "c", "namespace": "kube-system"}}
    with pytest.raises(DevloopError) as caught:
        stage.deploy(stage.deployer(manifest(), bad), ONE)
    assert caught.value.code == "safety/protected-namespace"
    assert stage.writes() == []


def test_a_foreign_context_is_refused_before_anything(
    api: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    connection.server = "https://prod.example.com"
    project = Project(name="p", root=tmp_path, file=tmp_path / "devloop.yaml", services={})
    with pytest.raises(DevloopError) as caught:
        Deployments(project, connection, ClusterView(connection))
    assert caught.value.code == "safety/context"
    assert api.calls == []


def test_gitops_owner_is_pointed_out_once(stage: Stage) -> None:
    owned = manifest("shop/web:old")
    owned["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "x"}
    stage.api.put(WEB, owned)
    deployer = stage.deployer()
    stage.deploy(deployer, ONE)
    stage.deploy(deployer, TWO)
    assert [d.severity for d in stage.reporter.diagnoses] == ["warning"]
    assert "Argo CD" in stage.reporter.diagnoses[0].message


def test_a_workload_recreated_in_between_is_looked_at_again(stage: Stage) -> None:
    stage.api.put(WEB, manifest("shop/web:old"))
    view = stage.view.view("deployments", "dev")
    view.wait_synced(stage.cancel)
    deployer = stage.deployer()
    stage.api.objects[WEB]["metadata"]["uid"] = "another"  # and the watch has not seen it yet
    deployed = stage.deploy(deployer, ONE)
    assert deployed.picked.uid == "another"
    assert len(stage.api.said("PATCH")) == 2


def test_what_the_manifests_have_no_more_goes_once_the_rest_is_served(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {**CONFIG, "metadata": {"name": "old"}}
    path = "/api/v1/namespaces/dev/configmaps/old"
    deployer = stage.deployer(manifest(), old)
    stage.deploy(deployer, ONE)
    (stage.root / "1.json").unlink()
    deployed = stage.deploy(deployer, ONE)
    assert path in stage.api.objects
    monkeypatch.setattr(
        "devloop.cluster.deploy.service.follow_together", lambda *_: (None, "1/1 ready")
    )
    deployer.follow(deployed, stage.reporter, stage.cancel)
    assert path not in stage.api.objects
    assert [d.message for d in stage.reporter.diagnoses] == [
        "ConfigMap old deleted: the manifests have it no more"
    ]
    # What comes back is made again at once, although it was applied a moment ago.
    (stage.root / "1.json").write_text(json.dumps(old))
    stage.deploy(deployer, ONE)
    assert path in stage.api.objects


def test_a_configmap_among_the_manifests_of_another_service_counts(stage: Stage) -> None:
    web = service_config(stage.root, manifests=(str(stage.root / "web.json"),))
    api = service_config(stage.root, name="api", manifests=(str(stage.root / "api.json"),))
    (stage.root / "web.json").write_text(json.dumps(reading()))
    (stage.root / "api.json").write_text(json.dumps(CONFIG))
    project = Project(
        name="shop",
        root=stage.root,
        file=stage.root / "devloop.yaml",
        services={"web": web, "api": api},
    )
    renderings = renderings_of([web, api])
    shared = Deployments(project, stage.connection, stage.view, renderings=renderings)
    deployer = shared.deployer(web)
    stage.deploy(deployer, ONE)
    assert stage.writes() == [("PATCH", WEB)]
    (stage.root / "api.json").write_text(json.dumps({**CONFIG, "data": {"a": "other"}}))
    assert stage.deploy(deployer, ONE).changed
    assert stage.reporter.details[-1] == "deployment/web -> 111111, ConfigMap c changed: new pods"
