"""Ports by name and of other objects: whose pods, and which number in them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.app.forward_targets import ForwardTargets
from devloop.errors import DevloopError
from devloop.model import ContainerView, PodView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pod(name: str, **ports: int) -> PodView:
    container = ContainerView(name="c", image="i", named_ports=tuple(ports.items()))
    return PodView(name=name, uid=name, namespace="dev", containers=(container,))


class Pods:
    """The services' own pods, and a watch of all pods by their JSON."""

    def __init__(self) -> None:
        self.followed: list[tuple[Callable[[Any], bool], Callable[[PodView, bool], None]]] = []
        self.found = threading.Event()
        self.namespaces: list[str] = []

    def current(self, service: str) -> tuple[PodView, ...]:
        return (pod(f"own-{service}"),)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        del callback
        return lambda: None

    def subscribe_pods(self, namespace: str, belongs: Any, take: Any) -> Callable[[], None]:
        self.namespaces.append(namespace)
        self.followed.append((belongs, take))
        self.found.set()
        return lambda: None

    def put(self, view: PodView, **labels: str) -> None:
        seen = {"metadata": {"name": view.name, "labels": labels}}
        for belongs, take in self.followed:
            if belongs(seen):
                take(view, False)


class Api:
    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []

    def find(self, path: str, absent: object) -> dict[str, Any] | None:
        del absent
        self.paths.append(path)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


SERVICE = {
    "spec": {
        "selector": {"app": "db"},
        "ports": [{"port": 5432, "targetPort": "sql"}, {"port": 80, "targetPort": 8080}],
    }
}


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
def targets(pods: Pods) -> Iterator[ForwardTargets]:
    made = ForwardTargets(
        pods,
        {"service/db": "dev", "pod/db-0": "dev"},
        view=cast("Any", pods),
        connection=cast("Any", Api(SERVICE)),
    )
    made.start()
    yield made
    made.close()


def test_the_pods_behind_a_service_and_a_pod_by_name_are_followed(
    pods: Pods, targets: ForwardTargets
) -> None:
    changed: list[str] = []
    targets.on_change(lambda: changed.append("x"))
    while len(pods.followed) < 2:
        assert pods.found.wait(10)
        pods.found.clear()
    pods.put(pod("db-1"), app="db", more="x")
    pods.put(pod("db-0"), app="web")
    assert [each.name for each in targets.current("service/db")] == ["db-1"]
    assert [each.name for each in targets.current("pod/db-0")] == ["db-0"]
    assert [each.name for each in targets.current("web")] == ["own-web"]
    assert len(changed) == 2


def test_others_are_followed_when_devloop_yaml_names_others(
    pods: Pods, targets: ForwardTargets
) -> None:
    while len(pods.followed) < 2:
        assert pods.found.wait(10)
        pods.found.clear()
    pods.put(pod("db-0"))
    targets.use({"pod/db-0": "dev", "pod/db-1": "dev"})
    pods.put(pod("db-1"))
    assert [each.name for each in targets.current("pod/db-0")] == ["db-0"]
    assert [each.name for each in targets.current("pod/db-1")] == ["db-1"]
    assert [each.name for each in targets.current("service/db")] == ["own-service/db"]


def test_ports_are_numbers_in_the_pod(pods: Pods, targets: ForwardTargets) -> None:
    while len(pods.followed) < 2:
        assert pods.found.wait(10)
        pods.found.clear()
    view = pod("db-0", sql=6432, http=8000)
    assert targets.port_of(view, 80) == 80
    assert targets.port_of(view, "http") == 8000
    assert targets.port_of(view, "service/db:5432") == 6432
    assert targets.port_of(view, "service/db:80") == 8080
    assert targets.port_of(view, "pod/db-0:http") == 8000
    with pytest.raises(DevloopError, match=r"no port 'grpc'; its ports: sql, http"):
        targets.port_of(view, "grpc")


def test_a_service_that_comes_later_is_found(pods: Pods) -> None:
    api = Api(None, SERVICE)
    made = ForwardTargets(
        pods,
        {"service/db": "dev"},
        view=cast("Any", pods),
        connection=cast("Any", api),
    )
    made.start()
    assert pods.found.wait(10)
    made.close()
    assert api.paths[:2] == ["/api/v1/namespaces/dev/services/db"] * 2


def test_each_object_is_looked_for_in_its_own_namespace(pods: Pods) -> None:
    api = Api(SERVICE)
    made = ForwardTargets(
        pods,
        {"service/db": "data", "pod/web-0": "web"},
        view=cast("Any", pods),
        connection=cast("Any", api),
    )
    made.start()
    while len(pods.followed) < 2:
        assert pods.found.wait(10)
        pods.found.clear()
    made.close()
    assert api.paths[0] == "/api/v1/namespaces/data/services/db"
    assert sorted(pods.namespaces) == ["data", "web"]
