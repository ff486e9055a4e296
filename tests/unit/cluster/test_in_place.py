"""What an in-place replacement leaves when it is interrupted; on the fake API server."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.view import ClusterView
from devloop.cluster.replace.pod_restarts import PodRestarts
from devloop.cluster.replace.workload_lock import WorkloadLock
from devloop.cluster.rollout import rollout
from devloop.errors import DevloopError
from tests.support.cluster_objects import running, waiting
from tests.support.fake_api import FakeApi, Fault
from tests.support.in_place_stage import PODS, REF, WEB, InPlaceStage, image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.model import DeployedWorkload


@pytest.fixture
def replicas() -> int:
    return 3


@pytest.fixture
def stage(
    api: FakeApi, connection: Connection, tmp_path: Path, replicas: int
) -> Iterator[InPlaceStage]:
    view = ClusterView(connection)
    root = tmp_path / "project"
    root.mkdir()
    made = InPlaceStage(api, connection, view, root, replicas=replicas)
    yield made
    made.deployments.close()
    view.close()


one = pytest.mark.parametrize("replicas", [1])


@one
@pytest.mark.parametrize("caught", ["", "SIGINT"])
def test_a_process_that_ignores_its_signal_is_rolled_from_the_first_save_on(
    stage: InPlaceStage, caught: str
) -> None:
    stage.caught = caught
    assert stage.deploy("b").how == "rolling"
    assert stage.reporter.details[-1].endswith(
        ", rolling: web ignores SIGTERM: it is process 1 and has no handler for it"
    )


@one
def test_one_pod_is_restarted_at_once_and_all_agrees_again(stage: InPlaceStage) -> None:
    pod = stage.api.objects[f"{PODS}/web-new-x"]["metadata"]["uid"]
    deployed = stage.deploy("b")
    assert (deployed.how, deployed.alone) == ("in-place", True)
    assert deployed.previous == {"web": image("a").pinned}
    assert stage.reporter.details[-1].endswith(", in place")
    assert stage.images() == {image("b").pinned}
    assert stage.api.objects[f"{PODS}/web-new-x"]["metadata"]["uid"] == pod
    assert not stage.paused()
    assert stage.log.entries() == ()


@one
def test_what_the_cluster_refuses_is_rolled_and_the_reason_is_given_once(
    stage: InPlaceStage,
) -> None:
    stage.api.faults.append(Fault(method="PATCH", path="/pods/", times=9, code=403))
    deployed = stage.deploy("b")
    assert (deployed.how, deployed.alone) == ("rolling", False)
    assert ", rolling: the cluster refuses it: " in stage.reporter.details[-1]
    assert not stage.paused()
    assert stage.log.entries() == ()
    assert stage.deploy("c").how == "rolling"
    assert stage.reporter.details[-1].endswith(", rolling")


@one
def test_an_adopted_image_leaves_the_pod_as_it_runs(stage: InPlaceStage) -> None:
    assert stage.deployer.adopt(image("b"), stage.cancel) is None
    assert stage.images() == {image("a").pinned, image("b").pinned}
    (asked,) = (c["image"] for c in stage.api.objects[f"{PODS}/web-new-x"]["spec"]["containers"])
    assert asked == image("a").pinned
    assert not stage.paused()
    assert stage.log.entries() == ()
    # The pod is restarted when that image is deployed.
    assert stage.deploy("b").how == "in-place"
    assert stage.images() == {image("b").pinned}


class Timers:
    """What would be called after a while, to be called by hand."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, name: str, call: Callable[[Any], None]) -> Timers:
        assert name == "settle"
        self.calls.append(lambda: call(self))
        return self

    def wait(self, seconds: float) -> bool:
        """The time goes by, and nobody stopped it meanwhile."""
        assert seconds > 0
        return False

    def stop(self) -> None:
        """Too late: it has fired already, and waits for the lock."""

    close = stop


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    made = Timers()
    monkeypatch.setattr("devloop.cluster.replace.in_place.Background", made)
    return made


def _superseded(stage: InPlaceStage, deployed: DeployedWorkload) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        stage.follow(deployed, cancel)


def test_what_no_newer_image_takes_over_is_resumed(stage: InPlaceStage, timers: Timers) -> None:
    _superseded(stage, stage.deploy("b"))
    assert stage.paused()
    assert len(stage.log.entries()) == 1
    (fire,) = timers.calls
    fire()
    assert not stage.paused()
    assert stage.log.entries() == ()


def test_a_timer_of_the_rollout_before_leaves_the_newer_one_alone(
    stage: InPlaceStage, timers: Timers
) -> None:
    """It may fire while the newer one is being opened, and then waits for the lock."""
    _superseded(stage, stage.deploy("b"))
    assert stage.deploy("c").how == "in-place"
    (fire,) = timers.calls
    fire()
    assert stage.paused()
    (entry,) = stage.log.entries()
    assert entry.after == {"web": image("c").pinned}


@one
@pytest.mark.parametrize(("runs", "before"), [("b", True), ("d", False)])
def test_a_kubelet_that_is_at_a_superseded_image_still_serves_nothing_stale(
    stage: InPlaceStage, monkeypatch: pytest.MonkeyPatch, runs: str, *, before: bool
) -> None:
    monkeypatch.setattr(rollout, "_STALE_SECONDS", 0.0)
    _superseded(stage, stage.deploy("b"))
    deployed = stage.deploy("c")
    live = stage.api.objects[WEB]
    stage.api.put(WEB, {**live, "status": {**live["status"], "observedGeneration": 99}})
    stage.pod("x", running(image(runs).pinned, containerID="containerd://2"))
    cancel, had_before, answers = Cancel(), PodRestarts.had_before, []

    def asked(restarts: PodRestarts, pod: dict[str, Any], image_id: str) -> bool:
        answers.append(had_before(restarts, pod, image_id))
        cancel.set()
        return answers[-1]

    monkeypatch.setattr(PodRestarts, "had_before", asked)
    with pytest.raises(Cancelled if before else DevloopError, match=None if before else "another"):
        stage.follow(deployed, cancel)
    assert answers == [before]


def test_the_rollout_of_another_service_is_none_of_ones_own(
    stage: InPlaceStage, timers: Timers
) -> None:
    """Two services may live in one Deployment."""
    other = replace(stage.deploy("b"), containers=("beside",))
    _superseded(stage, other)
    assert timers.calls == []
    assert stage.paused()


def test_a_failed_rollout_is_not_hidden_by_a_cluster_that_does_not_resume_it(
    stage: InPlaceStage,
) -> None:
    deployed = stage.deploy("b")
    for name in ("x", "y", "z"):
        crashed = waiting("CrashLoopBackOff", restarts=5) | {
            "containerID": "containerd://2",
            "imageID": image("b").pinned,
        }
        stage.pod(name, crashed)
    stage.api.faults.append(Fault(method="PATCH", path="deployments/web", times=9, code=403))
    with pytest.raises(DevloopError) as caught:
        stage.follow(deployed)
    assert caught.value.code == "pod/crash-loop"
    # What is left is in the log, for the next start.
    assert stage.paused()
    assert len(stage.log.entries()) == 1
    stage.api.faults.clear()


def test_the_end_of_a_session_resumes(stage: InPlaceStage) -> None:
    stage.deploy("b")
    assert stage.paused()
    stage.deployments.close()
    assert not stage.paused()
    assert stage.log.entries() == ()


def test_the_end_of_a_session_waits_for_no_silent_cluster_beyond_its_deadline(
    stage: InPlaceStage,
) -> None:
    stage.deploy("b")
    with stage.deployments.lock(REF).acquired(stage.cancel):
        stage.deployments.close(deadline=time.monotonic())
    assert stage.paused()
    assert len(stage.log.entries()) == 1


def test_waiting_for_a_workload_can_be_cancelled() -> None:
    lock, cancel = WorkloadLock(), Cancel()
    ends: list[str] = []

    def wait() -> None:
        try:
            with lock.acquired(cancel):
                ends.append("had it")
        except Cancelled:
            ends.append("cancelled")

    with lock.acquired(Cancel()):
        thread = threading.Thread(target=wait)
        thread.start()
        cancel.set()
        thread.join()
    assert ends == ["cancelled"]
    with lock.acquired(Cancel()):
        pass
