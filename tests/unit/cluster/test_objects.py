from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.check import check_manifests
from devloop.cluster.deploy.image_owners import containers_of
from devloop.cluster.deploy.objects import DeployPlan, pick_container, plan_objects
from devloop.cluster.deploy.own_workloads import own_workloads
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
    found = manifests(tmp_path, text)
    services = {s.name: s for s in (service, *others)}
    own = own_workloads(found, service, services, namespace="dev", holds=lambda _s, _m: True)
    return plan_objects(
        found,
        service,
        image,
        own=own,
        namespace="dev",
        services=services,
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


def test_an_image_of_another_vendor_is_left_alone(tmp_path: Path) -> None:
    service = service_config(tmp_path)
    theirs = ["quay.io/vendor/web:1", "web@sha256:0", "registry.example.com:5000/web"]
    text = deployment("web", "web", *theirs) + deployment("proxy", *theirs)
    found = plan(tmp_path, text, service)
    assert images(found, "web") == [NEW.pinned, *theirs]
    assert images(found, "proxy") == theirs
    assert found.workloads[0].containers == ("c0",)


def test_the_released_name_of_an_image_is_that_image(tmp_path: Path) -> None:
    text = deployment("web", "ghcr.io/shop/web:1") + deployment(
        "worker", "ghcr.io/shop/web@sha256:1"
    )
    found = plan(tmp_path, text, service_config(tmp_path))
    assert images(found, "web") == images(found, "worker") == [NEW.pinned]


def test_an_image_of_the_own_registry_is_ours_with_its_path(tmp_path: Path) -> None:
    image = ImageRef(repository="ghcr.io/acme/dev/shop/web", tag="t", digest="sha256:1")
    text = deployment("web", "ghcr.io/acme/dev/shop/web:1", "ghcr.io/other/web")
    found = plan(tmp_path, text, service_config(tmp_path), image=image)
    assert images(found, "web") == [image.pinned, "ghcr.io/other/web"]


def test_the_own_workload_may_name_the_image_as_it_is_elsewhere(tmp_path: Path) -> None:
    found = plan(tmp_path, deployment("web", "ghcr.io/web:1"), service_config(tmp_path))
    assert images(found, "web") == [NEW.pinned]


def test_patch_only_prefers_what_is_ours() -> None:
    spec = {"containers": [{"name": "a", "image": "quay.io/x/web"}, {"name": "b", "image": "web"}]}
    thing = {"kind": "Deployment", "spec": {"template": {"spec": spec}}}
    assert pick_container(thing, image="shop/web", container=None, where="x") == ("b",)
    spec["containers"].pop()
    assert pick_container(thing, image="shop/web", container=None, where="x") == ("a",)


def test_never_pull_becomes_if_not_present_where_the_image_is_ours(tmp_path: Path) -> None:
    text = (deployment("web", "web", "redis") + "        imagePullPolicy: Never\n").replace(
        "image: web\n", "image: web\n        imagePullPolicy: Never\n"
    )
    found = plan(tmp_path, text, service_config(tmp_path))
    policies = [c.get("imagePullPolicy") for _, c in containers_of(found.objects[0].object)]
    assert policies == ["IfNotPresent", "Never"]
    (note,) = found.notes
    assert note.severity == "info"
    assert str(note.location) == "m.yaml:12:26"


def test_the_last_of_what_stands_twice_counts_with_a_warning(tmp_path: Path) -> None:
    text = deployment("web", "web") + (
        "        env: [{name: A, value: '1'}, {name: B, value: x}, {name: A, value: '2'}]\n"
        "        ports: [{containerPort: 80, name: a}, {containerPort: 80, protocol: UDP},\n"
        "                {containerPort: 80, protocol: TCP, name: b}]\n"
    )
    found = plan(tmp_path, text, service_config(tmp_path))
    (_, container), *_ = containers_of(found.objects[0].object)
    assert [(e["name"], e["value"]) for e in container["env"]] == [("B", "x"), ("A", "2")]
    assert [p.get("name") for p in container["ports"]] == [None, "b"]
    assert [(n.severity, n.message) for n in found.notes] == [
        ("warning", "A stands twice in `env`: the last one counts"),
        ("warning", "80 stands twice in `ports`: the last one counts"),
    ]
    assert [str(n.location) for n in found.notes] == ["m.yaml:12:15", "m.yaml:13:17"]


def test_what_can_be_known_without_a_cluster_is_known_before_a_build(tmp_path: Path) -> None:
    service = service_config(tmp_path)
    found = manifests(tmp_path, deployment("web", "nginx", "redis"))
    with pytest.raises(DevloopError) as caught:
        check_manifests(found, service, {service.name: service})
    assert caught.value.code == "config/image-not-used"
    found = manifests(tmp_path, deployment("web", "web"))
    assert check_manifests(found, service, {service.name: service}) == ()


def test_a_workload_in_the_clusters_own_namespace_is_refused_before_a_build(
    tmp_path: Path,
) -> None:
    service = service_config(tmp_path)
    binding = (
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n"
        "metadata: {name: reader, namespace: kube-system}\n"
    )
    found = manifests(tmp_path, deployment("web", "web") + binding)
    with pytest.raises(DevloopError) as caught:
        check_manifests(found, service, {service.name: service})
    assert caught.value.code == "safety/protected-namespace"
    assert str(caught.value.diagnosis.location) == "m.yaml:13:1"
    check_manifests(found, service, {service.name: service}, allow_namespaces=("kube-system",))
