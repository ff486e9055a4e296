from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api.pod_view import pod_view
from devloop.cluster.api.reflector import Backoff
from devloop.cluster.api.view import ClusterView, owned_by, workload_of
from devloop.errors import DevloopError
from devloop.model import PodView, WorkloadRef
from tests.support.cluster_objects import pod, running, waiting
from tests.support.fake_api import FakeApi, Fault, status
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.api.connection import Connection

PODS = "/api/v1/namespaces/dev/pods"
WEB = WorkloadRef("deployment", "web", "dev")


@pytest.fixture
def view(connection: Connection) -> Iterator[ClusterView]:
    made = ClusterView(connection)
    yield made
    made.close()


def pods_of(view: ClusterView) -> list[PodView]:
    return [pod_view(found) for found in view.view("pods", "dev").items()]


def test_mirrors_what_is_there_and_what_changes(api: FakeApi, view: ClusterView) -> None:
    api.put(f"{PODS}/web-new-x", pod(waiting("ContainerCreating")))
    pods = view.view("pods", "dev")
    pods.wait_synced(Cancel())
    assert view.view("pods", "dev") is pods
    assert [p.ready for p in pods_of(view)] == [False]
    until(lambda: api.watchers)
    api.put(f"{PODS}/web-new-x", pod(running()))
    until(lambda: pods_of(view)[0].ready)
    api.remove(f"{PODS}/web-new-x")
    until(lambda: not pods_of(view))


def test_pod_listeners_hear_each_change_once(api: FakeApi, view: ClusterView) -> None:
    api.put(f"{PODS}/web-new-x", pod(waiting("ContainerCreating")))
    api.put(f"{PODS}/other", pod(running(), name="other", owner_uid="rs-else"))
    pods = view.view("pods", "dev")
    pods.wait_synced(Cancel())
    told: list[tuple[PodView, bool]] = []
    stop = view.subscribe_pods("dev", owned_by(WEB), lambda p, gone: told.append((p, gone)))
    assert [(p.name, p.ready, gone) for p, gone in told] == [("web-new-x", False, False)]
    until(lambda: api.watchers)
    annotated = pod(waiting("ContainerCreating"))
    annotated["metadata"]["annotations"] = {"seen": "yes"}
    api.put(f"{PODS}/web-new-x", annotated)
    api.put(f"{PODS}/web-new-x", pod(running()))
    api.remove(f"{PODS}/web-new-x")
    until(lambda: len(told) == 3)
    assert [(p.ready, gone) for p, gone in told[1:]] == [(True, False), (True, True)]
    stop()
    api.put(f"{PODS}/web-new-x", pod(running()))
    until(lambda: pods.get("web-new-x"))
    assert len(told) == 3


def test_a_lost_delete_is_told_by_the_next_list(api: FakeApi, view: ClusterView) -> None:
    api.put(f"{PODS}/web-new-x", pod(running()))
    expired = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "old"}}
    api.scripts.append([expired])
    pods = view.view("pods", "dev")
    told: list[tuple[str, bool]] = []
    view.subscribe_pods("dev", owned_by(WEB), lambda p, gone: told.append((p.name, gone)))
    pods.wait_synced(Cancel())
    del api.objects[f"{PODS}/web-new-x"]  # nobody is told
    until(lambda: not pods.items())
    assert told == [("web-new-x", False), ("web-new-x", True)]


def test_an_answer_that_is_no_list_deletes_nothing(
    api: FakeApi, view: ClusterView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server gives one that comes to its end; for an empty list all would be gone."""
    monkeypatch.setattr(Backoff, "next", lambda _: 0.01)
    api.put(f"{PODS}/a", pod(running(), name="a"))
    pods = view.view("pods", "dev")
    pods.wait_synced(Cancel())
    until(lambda: api.watchers)
    heard: list[str] = []
    with pods.subscribe(lambda event: heard.append(event.type)):
        api.faults += [
            Fault(code=410, path="/pods", body=status(410, "Expired", "too old")),
            Fault(code=200, path="/pods", body=status(504, "Timeout", "request timed out")),
        ]
        view.reconnect()
        until(lambda: not api.faults or not any(fault.times for fault in api.faults))
        api.put(f"{PODS}/b", pod(running(), name="b"))
        until(lambda: pods.get("b"))
    assert "LOST" in heard
    assert "DELETE" not in heard


def test_a_cut_watch_resumes_without_a_list(api: FakeApi, view: ClusterView) -> None:
    pods = view.view("pods", "dev")
    pods.wait_synced(Cancel())
    until(lambda: api.watchers)
    api.put(f"{PODS}/a", pod(running(), name="a"))
    until(lambda: pods.get("a"))
    view.reconnect()
    api.put(f"{PODS}/b", pod(running(), name="b"))
    until(lambda: pods.get("b"))
    lists = [c for c in api.said("GET", PODS) if "watch" not in c.query]
    assert len(lists) == 1


def test_a_forbidden_view_says_so_at_once(api: FakeApi, view: ClusterView) -> None:
    message = 'pods is forbidden: User "me" cannot list resource "pods" in API group ""'
    api.faults.append(Fault(code=403, path="/pods", times=99, body=status(403, "", message)))
    with pytest.raises(DevloopError) as caught:
        view.view("pods", "dev").wait_synced(Cancel())
    assert caught.value.code == "cluster/forbidden"


def test_a_failing_listener_does_not_end_the_watch(api: FakeApi, connection: Connection) -> None:
    bugs: list[BaseException] = []
    view = ClusterView(connection, on_bug=bugs.append)

    def bad(_: Any, __: bool) -> None:
        raise ValueError("bug")

    view.view("pods", "dev").wait_synced(Cancel())
    view.subscribe_pods("dev", lambda _: True, bad)
    until(lambda: api.watchers)
    api.put(f"{PODS}/a", pod(running(), name="a"))
    until(lambda: bugs)
    api.put(f"{PODS}/b", pod(running(), name="b"))
    until(lambda: view.view("pods", "dev").get("b"))
    view.close()


def test_close_leaves_no_thread(api: FakeApi, connection: Connection) -> None:
    view = ClusterView(connection)
    for kind in ("pods", "deployments", "replicasets", "events"):
        view.view(kind, "dev")
    until(lambda: len(api.watchers) == 4)
    view.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("devloop-watch")]


def test_close_while_the_server_is_silent(api: FakeApi, connection: Connection) -> None:
    api.scripts.append(["hang"])
    view = ClusterView(connection)
    view.view("pods", "dev").wait_synced(Cancel())
    view.close()


def test_workload_of() -> None:
    assert workload_of(pod(running())) == ("deployment", "web")
    assert workload_of(pod(owner_kind="StatefulSet", owner_uid="rs-db")) == (
        "statefulset",
        "web-db",
    )
    assert workload_of({}) is None


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ({}, set()),
        ({"ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}, {80}),
        (
            {
                "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                "livenessProbe": {"tcpSocket": {"port": 81}},
                "startupProbe": {"grpc": {"port": 82}},
            },
            {80, 81, 82},
        ),
        ({"readinessProbe": {"httpGet": {"port": "8080"}}}, {8080}),
        ({"readinessProbe": {"httpGet": {"port": "nowhere"}}}, set()),
        ({"readinessProbe": {"tcpSocket": {"port": 80, "host": "elsewhere"}}}, set()),
        ({"readinessProbe": {"exec": {"command": ["true"]}}}, set()),
    ],
)
def test_the_ports_of_a_container_are_those_that_its_spec_names(
    spec: dict[str, Any], ports: set[int]
) -> None:
    found = pod_view({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", **spec}]}})
    assert [container.ports for container in found.containers] == [ports]
