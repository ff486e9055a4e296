"""What somebody else made of a workload, and when that is worth a word."""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.outside import OutsideWatch, outside_change, outside_restart
from devloop.cluster.replace.workload_lock import WorkloadLock
from devloop.errors import Code
from devloop.model import WorkloadRef
from tests.support.cluster_objects import deployment
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.cluster.api.connection import Connection
    from devloop.errors import Diagnosis
    from tests.support.fake_api import FakeApi

WEB = WorkloadRef("deployment", "web", "dev")


def _with(change: Callable[[dict[str, Any]], object], **more: Any) -> dict[str, Any]:
    thing = copy.deepcopy(deployment(generation=3))
    change(thing)
    thing["metadata"].update(more)
    return thing


def _image(thing: dict[str, Any], image: str = "nginx:1") -> None:
    thing["spec"]["template"]["spec"]["containers"][0]["image"] = image


def _kubectl(thing: dict[str, Any]) -> None:
    _image(thing)
    thing["metadata"]["managedFields"] = [
        {"manager": "devloop", "time": "2026-01-01T00:00:09Z"},
        {"manager": "kubectl-set", "time": "2026-01-01T00:00:10Z"},
        {
            "manager": "kube-controller-manager",
            "time": "2026-01-01T00:00:11Z",
            "subresource": "status",
        },
    ]


def test_another_image_is_told_with_who_wrote_it() -> None:
    found = outside_change(WEB, deployment(), _with(_kubectl))
    assert found is not None
    assert found.code is Code.SAFETY_CHANGED_OUTSIDE
    assert found.severity == "warning"
    assert found.message == "deployment/web was changed by kubectl-set: web runs nginx:1"
    assert found.suggestions == ("save a file of the service to take it over again",)


def test_another_template_is_told() -> None:
    def env(thing: dict[str, Any]) -> None:
        thing["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]

    found = outside_change(WEB, deployment(), _with(env))
    assert found is not None
    assert "its pod template is another" in found.message


def test_a_controllers_way_out_is_named() -> None:
    def flux(thing: dict[str, Any]) -> None:
        _image(thing)
        thing["metadata"]["labels"] = {"kustomize.toolkit.fluxcd.io/name": "apps"}

    found = outside_change(WEB, deployment(), _with(flux))
    assert found is not None
    assert "pause Flux for deployment/web" in found.suggestions[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["spec"].update(replicas=5),
        lambda d: d["spec"].update(paused=True),
        lambda d: d["metadata"].update(labels={"a": "b"}),
    ],
)
def test_what_runs_the_same_is_no_change(change: Callable[[dict[str, Any]], object]) -> None:
    assert outside_change(WEB, deployment(), _with(change)) is None
    assert outside_restart(WEB, deployment(), _with(change)) is None


def _restart(thing: dict[str, Any], at: str = "now") -> None:
    annotations = {"kubectl.kubernetes.io/restartedAt": at}
    thing["spec"]["template"]["metadata"]["annotations"] = annotations
    thing["metadata"]["managedFields"] = [
        {"manager": "kubectl-rollout", "operation": "Update", "time": "2026-01-01T00:00:10Z"}
    ]


def test_a_restart_is_said_and_is_no_change() -> None:
    assert outside_change(WEB, deployment(), _with(_restart)) is None
    found = outside_restart(WEB, deployment(), _with(_restart))
    assert found is not None
    assert (found.code, found.severity) == (Code.SAFETY_CHANGED_OUTSIDE, "info")
    assert found.message.startswith("deployment/web was restarted by kubectl-rollout: new pods")


def test_what_else_makes_new_pods_of_the_same_content_is_no_restart() -> None:
    found = outside_restart(WEB, _with(_restart), deployment(generation=4))
    assert found is not None
    assert "was rolled back to before it was restarted: new pods" in found.message

    def label(thing: dict[str, Any]) -> None:
        thing["spec"]["template"]["metadata"]["labels"]["tier"] = "front"

    found = outside_restart(WEB, deployment(), _with(label))
    assert found is not None
    assert "got other labels or annotations for its pods from somebody: new" in found.message


def test_a_restart_of_before_our_own_write_is_not_said() -> None:
    assert outside_restart(WEB, deployment(), _with(_restart, generation=1)) is None


def test_a_rollback_is_called_that() -> None:
    def undo(thing: dict[str, Any]) -> None:
        _kubectl(thing)
        thing["metadata"]["managedFields"][1].update(manager="kubectl", operation="Update")

    found = outside_change(WEB, deployment(), _with(undo))
    assert found is not None
    assert found.severity == "warning"
    assert found.message == (
        "deployment/web was rolled back by kubectl (`kubectl rollout undo`): web runs nginx:1"
    )


def test_a_rollback_that_only_takes_something_away_has_no_manager() -> None:
    def env(thing: dict[str, Any]) -> None:
        thing["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]

    earlier = [deployment()["spec"]["template"]["spec"]]
    now = deployment(generation=4)
    found = outside_change(WEB, _with(env), now, earlier)
    assert found is not None
    assert "put back to an earlier state by somebody, as `kubectl rollout undo`" in found.message
    other = outside_change(WEB, _with(env), now)
    assert other is not None
    assert "was changed by somebody" in other.message


def test_what_is_older_than_our_own_write_is_no_change() -> None:
    assert outside_change(WEB, deployment(), _with(_image, generation=1)) is None


def test_a_workload_that_is_gone() -> None:
    found = outside_change(WEB, deployment(), None)
    assert found is not None
    assert found.message == "deployment/web was deleted"


class Watch:
    def __init__(self, connection: Connection) -> None:
        self.view = ClusterView(connection)
        self.lock = WorkloadLock()
        self.told: list[tuple[str, Diagnosis | None]] = []
        self.watch = OutsideWatch(self.view, lambda _ref: self.lock)
        self.said: list[tuple[str, Diagnosis]] = []
        self.watch.start(
            lambda service, change: self.told.append((service, change)),
            lambda service, restart: self.said.append((service, restart)),
        )

    def close(self) -> None:
        self.watch.close()
        self.view.close()


@pytest.fixture
def watch(connection: Connection) -> Iterator[Watch]:
    made = Watch(connection)
    yield made
    made.close()


def test_a_change_is_told_once_to_each_service_and_so_is_its_end(
    api: FakeApi, watch: Watch
) -> None:
    left = api.put(workload_path(WEB), deployment())
    watch.watch.wrote(WEB, "web", left)
    watch.watch.wrote(WEB, "worker", left)
    api.put(workload_path(WEB), _with(_image))
    until(lambda: len(watch.told) == 2)
    assert [service for service, change in watch.told if change is not None] == ["web", "worker"]
    scaled = _with(_image)
    scaled["spec"]["replicas"] = 2
    api.put(workload_path(WEB), scaled)
    api.put(workload_path(WEB), deployment())
    until(lambda: len(watch.told) == 4)
    assert [change for _, change in watch.told[2:]] == [None, None]


def test_each_restart_is_said_once_and_takes_nothing_away(api: FakeApi, watch: Watch) -> None:
    watch.watch.wrote(WEB, "web", api.put(workload_path(WEB), deployment()))
    api.put(workload_path(WEB), _with(_restart, generation=3))
    until(lambda: len(watch.said) == 1)
    again = _with(partial(_restart, at="later"), generation=4)
    api.put(workload_path(WEB), again)
    until(lambda: len(watch.said) == 2)
    api.put(workload_path(WEB), again)  # as when a new pod is ready
    api.put(workload_path(WEB), _with(_image, generation=5))
    until(lambda: bool(watch.told))
    assert [service for service, _ in watch.said] == ["web", "web"]
    assert len(watch.told) == 1


def test_what_devloop_writes_itself_is_no_change(api: FakeApi, watch: Watch) -> None:
    left = api.put(workload_path(WEB), deployment())
    watch.watch.wrote(WEB, "web", left)
    with watch.lock.acquired(Cancel()):
        ours = api.put(workload_path(WEB), _with(_image))
        until(lambda: (watch.view.workload(WEB).get("web") or {}).get("spec") == ours["spec"])
        until(lambda: bool(api.watchers))
        watch.watch.wrote(WEB, "web", ours)
    api.remove(workload_path(WEB))
    until(lambda: bool(watch.told))
    (_, change), *_ = watch.told
    assert change is not None
    assert change.message == "deployment/web was deleted"


def test_it_ends_while_a_write_is_under_way(api: FakeApi, watch: Watch) -> None:
    watch.watch.wrote(WEB, "web", api.put(workload_path(WEB), deployment()))
    with watch.lock.acquired(Cancel()):
        api.put(workload_path(WEB), _with(_image))
        until(lambda: any(t.name == "devloop-outside" for t in threading.enumerate()))
        watch.watch.close()
    assert watch.told == []
