from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.objects import DeployPlan, containers_of, pick_container, plan_objects
from devloop.errors import DevloopError, Location
from devloop.manifests.files import read_manifests
from devloop.model import ImageRef, ManifestObject
from tests.support.cluster_objects import service_config

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.config.schema import Service

NEW = ImageRef(repository="localhost:5001/shop/web", tag="t", digest="sha256:1")
API = ImageRef(repository="localhost:5001/shop/api", tag="t", digest="sha256:2")

PLURALS = {"Deployment": "deployments", "ConfigMap": "configmaps", "Service": "services"}


def resource(api_version: str, kind: str, _: Location) -> Resource:
    cluster = {"Namespace": "namespaces", "ClusterRole": "clusterroles"}
    if kind in cluster:
        return Resource(api_version, kind, cluster[kind], namespaced=False)
    return Resource(api_version, kind, PLURALS.get(kind, kind.lower() + "s"))


def manifests(tmp_path: Path, text: str) -> tuple[ManifestObject, ...]:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    return read_manifests([file], show=lambda p: p.name)


def deployment(name: str, *images: str) -> str:
    containers = "".join(
        f"      - name: c{i}\n        image: {image}\n" for i, image in enumerate(images)
    )
    return (
        f"---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n"
        f"spec:\n  template:\n    spec:\n      containers:\n{containers}"
    )


def plan(
    tmp_path: Path,
    text: str,
    service: Service,
    *others: Service,
    image: ImageRef = NEW,
    pinned: dict[str, ImageRef] | None = None,
    live: dict[str, str] | None = None,
) -> DeployPlan:
    return plan_objects(
        manifests(tmp_path, text),
        service,
        image,
        namespace="dev",
        services={s.name: s for s in (service, *others)},
        pinned=pinned or {},
        resource_of=resource,
        live_image=lambda _k, _ns, _n, container: (live or {}).get(container),
    )


def images(found: DeployPlan, name: str) -> list[str]:
    thing = next(o.object for o in found.objects if o.name == name)
    return [c["image"] for _, c in containers_of(thing)]


@pytest.mark.parametrize(
    "written", ["web", "web:latest", "localhost:5001/shop/web:dev", "shop/web", "shop/web@sha256:0"]
)
def test_the_image_is_pinned(tmp_path: Path, written: str) -> None:
    found = plan(tmp_path, deployment("web", written, "redis:7"), service_config(tmp_path))
    assert images(found, "web") == [NEW.pinned, "redis:7"]
    assert found.workloads[0].containers == ("c0",)
    assert found.workloads[0].ref.namespace == "dev"
    assert found.workloads[0].own is not None
    assert found.workloads[0].own.path == "/apis/apps/v1/namespaces/dev/deployments/web"


def test_order_and_namespaces(tmp_path: Path) -> None:
    text = (
        deployment("web", "web")
        + "---\n{apiVersion: v1, kind: Service, metadata: {name: web, namespace: other}}\n"
        + "---\n{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}}\n"
        + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n"
        + "---\n{apiVersion: v1, kind: Namespace, metadata: {name: dev, namespace: odd}}\n"
    )
    found = plan(tmp_path, text, service_config(tmp_path))
    assert [(o.resource.kind, o.namespace) for o in found.objects] == [
        ("Namespace", ""),
        ("ConfigMap", "dev"),
        ("Service", "other"),
        ("Widget", "dev"),
        ("Deployment", "dev"),
    ]
    assert "namespace" not in found.objects[0].object["metadata"]


def test_definitions_among_the_manifests_need_no_discovery(tmp_path: Path) -> None:
    text = (
        deployment("web", "web")
        + "---\n{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}}\n---\n"
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
        "metadata: {name: widgets.example.com}\n"
        "spec: {group: example.com, scope: Cluster, names: {kind: Widget, plural: widgetz},"
        " versions: [{name: v1}]}\n"
    )
    found = plan(tmp_path, text, service_config(tmp_path))
    widget = next(o for o in found.objects if o.resource.kind == "Widget")
    assert widget.path == "/apis/example.com/v1/widgetz/w"


def test_nobody_uses_the_image(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        plan(tmp_path, deployment("web", "nginx:1", "redis"), service_config(tmp_path))
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "config/image-not-used"
    assert diagnosis.cause == "images found: nginx:1, redis"
    assert str(diagnosis.location) == "m.yaml:13:16"


def test_the_container_may_be_named(tmp_path: Path) -> None:
    service = service_config(tmp_path, container="c1")
    found = plan(tmp_path, deployment("web", "redis", "placeholder"), service)
    assert images(found, "web") == ["redis", NEW.pinned]
    with pytest.raises(DevloopError) as caught:
        plan(tmp_path, deployment("web", "web"), service)
    assert caught.value.code == "config/container-not-found"


def test_the_same_image_in_other_objects_is_the_same_build(tmp_path: Path) -> None:
    text = deployment("web", "web") + deployment("worker", "shop/web:x")
    found = plan(tmp_path, text, service_config(tmp_path))
    assert images(found, "worker") == [NEW.pinned]
    assert found.workloads[0].containers == ("c0",)


def test_another_services_workload_is_left_to_it(tmp_path: Path) -> None:
    api = service_config(tmp_path, name="api", image="shop/api", manifests=("x",))
    text = deployment("web", "web") + deployment("api", "shop/api")
    found = plan(tmp_path, text, service_config(tmp_path), api)
    assert [o.name for o in found.objects] == ["web"]


def test_another_services_container_keeps_its_image(tmp_path: Path) -> None:
    api = service_config(tmp_path, name="api", image="shop/api")
    text = deployment("web", "web", "shop/api:dev")
    web = service_config(tmp_path)
    assert images(plan(tmp_path, text, web, api, pinned={"api": API}), "web")[1] == API.pinned
    live = plan(tmp_path, text, web, api, live={"c1": "shop/api@sha256:7"})
    assert images(live, "web")[1] == "shop/api@sha256:7"
    assert images(plan(tmp_path, text, web, api), "web")[1] == "shop/api:dev"


def test_an_image_on_the_nodes_only_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    text = deployment("web", "web") + "        imagePullPolicy: Always\n"
    loaded = ImageRef(repository="shop/web", tag="abc")
    found = plan(tmp_path, text, service_config(tmp_path), image=loaded)
    container: dict[str, Any] = next(c for _, c in containers_of(found.objects[0].object))
    assert container["image"] == "shop/web:abc"
    assert container["imagePullPolicy"] == "IfNotPresent"


def test_a_workload_of_another_name_is_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        plan(tmp_path, deployment("website", "shop/web"), service_config(tmp_path))
    assert caught.value.code == "config/value"
    assert "workload: deployment/website" in caught.value.diagnosis.suggestions[0]


def test_manifests_without_the_workload_are_fine(tmp_path: Path) -> None:
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n"
    found = plan(tmp_path, text, service_config(tmp_path))
    assert found.workloads[0].own is None
    assert found.workloads[0].containers == ()


def live(*containers: tuple[str, str]) -> dict[str, Any]:
    spec = {"containers": [{"name": n, "image": i} for n, i in containers]}
    return {"kind": "Deployment", "spec": {"template": {"spec": spec}}}


def test_patch_only_picks_the_container() -> None:
    two = live(("a", "redis"), ("b", "x/shop/web:1"))
    pick = {"image": "shop/web", "where": "deployment/web"}
    assert pick_container(two, container=None, **pick) == ("b",)
    assert pick_container(two, container="a", **pick) == ("a",)
    assert pick_container(live(("x", "nginx")), container=None, **pick) == ("x",)
    with pytest.raises(DevloopError) as caught:
        pick_container(live(("x", "nginx"), ("y", "redis")), container=None, **pick)
    assert caught.value.code == "config/workload-ambiguous"
    assert caught.value.diagnosis.detail == ("x: nginx", "y: redis")
    with pytest.raises(DevloopError) as caught:
        pick_container(two, container="z", **pick)
    assert caught.value.code == "config/container-not-found"
