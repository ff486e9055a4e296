"""Which workloads a service has, and which of them ports and status speak of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.own_workloads import OwnWorkloads, own_workloads
from devloop.errors import DevloopError
from devloop.manifests.files import read_manifests
from devloop.model import WorkloadRef
from tests.support.cluster_objects import service_config

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.config.schema import Service


def workload(kind: str, name: str, image: str, *, namespace: str = "", init: str = "") -> str:
    where = f", namespace: {namespace}" if namespace else ""
    before = f", initContainers: [{{name: i, image: {init}}}]" if init else ""
    return (
        f"---\napiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}{where}}}\n"
        f"spec: {{template: {{spec: {{containers: [{{name: c, image: {image}}}]{before}}}}}}}\n"
    )


def find(
    root: Path, text: str, service: Service, *others: Service, holds: bool = True
) -> OwnWorkloads:
    (root / "m.yaml").write_text(text)
    return own_workloads(
        read_manifests([root / "m.yaml"], show=lambda path: path.name),
        service,
        {s.name: s for s in (service, *others)},
        namespace="dev",
        holds=lambda _service, _manifest: holds,
    )


def default(root: Path, **more: Any) -> Service:
    """A service whose workload devloop.yaml does not name."""
    service: Service = service_config(root, **more)
    return replace(service, deploy=replace(service.deploy, workload_default=True))


def names(found: OwnWorkloads) -> list[str]:
    return [str(ref) for ref in found.refs]


def test_all_that_run_the_image_are_the_services_wherever_they_are(tmp_path: Path) -> None:
    text = (
        workload("DaemonSet", "agent", "redis", init="web")
        + workload("Deployment", "web", "shop/web:1", namespace="shop")
        + workload("StatefulSet", "queue", "web")
        + workload("Deployment", "cache", "redis")
    )
    found = find(tmp_path, text, default(tmp_path))
    assert found.refs == (
        WorkloadRef("deployment", "web", "shop"),
        WorkloadRef("daemonset", "agent", "dev"),
        WorkloadRef("statefulset", "queue", "dev"),
    )
    assert [w.picked for w in found.workloads] == [True, False, False]
    assert found.notes == ()


def test_the_only_one_is_picked_whatever_it_is_called(tmp_path: Path) -> None:
    found = find(tmp_path, workload("StatefulSet", "site", "web"), default(tmp_path))
    assert (names(found), found.notes) == (["statefulset/site"], ())


def test_of_several_that_are_called_otherwise_the_first_is_picked_with_a_word(
    tmp_path: Path,
) -> None:
    text = workload("Deployment", "site", "web") + workload("Deployment", "worker", "web")
    found = find(tmp_path, text, default(tmp_path))
    assert names(found) == ["deployment/site", "deployment/worker"]
    (note,) = found.notes
    assert note.message == "ports and status speak of deployment/site"
    assert str(note.location) == "m.yaml:4:18"


def test_one_that_is_only_called_like_the_service_is_not_picked(tmp_path: Path) -> None:
    text = workload("Deployment", "web", "nginx:1") + workload("Deployment", "app", "web")
    assert names(find(tmp_path, text, default(tmp_path))) == ["deployment/app"]


def test_the_configured_one_is_the_first(tmp_path: Path) -> None:
    text = workload("Deployment", "web", "web") + workload("DaemonSet", "edge", "web")
    service = service_config(tmp_path, kind="daemonset", workload="edge")
    assert names(find(tmp_path, text, service)) == ["daemonset/edge", "deployment/web"]


def test_a_configured_one_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    service = service_config(tmp_path, workload="other")
    with pytest.raises(DevloopError) as caught:
        find(tmp_path, workload("StatefulSet", "site", "web"), service)
    assert caught.value.code == "config/value"
    assert "deploy.workload: statefulset/site" in caught.value.diagnosis.suggestions[0]


def test_manifests_that_are_shared_are_divided_by_the_image(tmp_path: Path) -> None:
    web = default(tmp_path, manifests=("k8s/*.yaml",))
    api = default(tmp_path, name="api", image="shop/api", manifests=("k8s/*.yaml",))
    text = (
        workload("Deployment", "site", "web", init="shop/api")
        + workload("Deployment", "server", "shop/api")
        + workload("DaemonSet", "agent", "shop/api", init="web")
    )
    mine, theirs = find(tmp_path, text, web, api), find(tmp_path, text, api, web)
    assert names(mine) == ["deployment/site"]
    assert names(theirs) == ["deployment/server", "daemonset/agent"]
    assert {key[3] for key in mine.left} == {"server", "agent"}
    assert {key[3] for key in theirs.left} == {"site"}


def test_what_runs_anothers_image_is_deployed_where_the_other_does_not_have_it(
    tmp_path: Path,
) -> None:
    web = default(tmp_path, manifests=("web.yaml",))
    api = default(tmp_path, name="api", image="shop/api", manifests=("api.yaml",))
    text = workload("Deployment", "web", "web") + workload("Deployment", "api", "shop/api")
    assert find(tmp_path, text, web, api, holds=False).left == frozenset()


ROLLOUT = (
    "---\napiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: web}\n"
    "spec: {template: {spec: {containers: [{name: c, image: web}]}}}\n"
)
KNATIVE = (
    "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}\n"
    "spec: {template: {spec: {containers: [{image: shop/web}]}}}\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ROLLOUT, WorkloadRef("rollout", "web", "dev", "argoproj.io/v1alpha1/rollouts")),
        (KNATIVE, WorkloadRef("service", "web", "dev", "serving.knative.dev/v1/services")),
    ],
)
def test_a_custom_resource_that_runs_the_image_is_a_workload(
    tmp_path: Path, text: str, expected: WorkloadRef
) -> None:
    (tmp_path / "m.yaml").write_text(text)
    service = default(tmp_path)
    found = own_workloads(
        read_manifests([tmp_path / "m.yaml"], show=lambda path: path.name),
        service,
        {service.name: service},
        namespace="dev",
        holds=lambda _service, _manifest: True,
        resource_of=lambda m: Resource(m.key[0], m.key[1], f"{m.key[1].lower()}s"),
    )
    assert found.refs == (expected,)
    assert len(found.notes) == 1


def job(name: str, image: str) -> str:
    return workload("Job", name, image).replace("apps/v1", "batch/v1")


def test_jobs_come_along_and_what_serves_is_picked(tmp_path: Path) -> None:
    text = job("migrate", "flyway:9") + job("seed", "web") + workload("Deployment", "site", "web")
    found = find(tmp_path, text, default(tmp_path))
    assert names(found) == ["deployment/site", "job/seed", "job/migrate"]
    assert [w.along for w in found.workloads] == [False, False, True]
    assert found.notes == ()
