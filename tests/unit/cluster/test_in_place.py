"""What an in-place replacement leaves when it is interrupted; on the fake API server."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.deploy.recovery_log import RecoveryLog
from devloop.cluster.replace.pause import paused_by_devloop
from devloop.cluster.replace.workload_lock import WorkloadLock
from devloop.config.schema import Build, Deploy, Project, Service
from devloop.errors import DevloopError
from devloop.model import ImageRef, WorkloadRef
from tests.support.cluster_objects import deployment, owner, pod, running, waiting
from tests.support.fake_api import FakeApi, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.workload import WorkloadDeployer
    from devloop.model import Deployed

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"
SET = "/apis/apps/v1/namespaces/dev/replicasets/web-new"
PODS = "/api/v1/namespaces/dev/pods"
REF = WorkloadRef("deployment", "web", "dev")


def image(letter: str) -> ImageRef:
    return ImageRef(repository="localhost:5001/shop/web", tag="", digest="sha256:" + letter * 64)


class Silent:
    def started(self, step: Any) -> None:
        pass

    def progress(self, step: Any, message: str, *, current: Any = None, total: Any = None) -> None:
        pass

    def finished(self, step: Any, outcome: Any, detail: str = "") -> None:
        pass

    def diagnostic(self, diagnosis: Any) -> None:
        pass


class Stage:
    """A Deployment of three replicas that runs the image `a`, and one service that replaces it."""

    def __init__(self, api: FakeApi, connection: Connection, view: ClusterView, root: Path) -> None:
        self.api, self.cancel = api, Cancel()
        live = deployment(image("a").pinned, replicas=3)
        uid = api.put(WEB, live)["metadata"]["uid"]
        replicas: dict[str, Any] = {
            "metadata": {
                "name": "web-new",
                "uid": "rs-new",
                "annotations": live["metadata"]["annotations"],
                "ownerReferences": owner("Deployment", "web", uid),
            },
            "spec": {"replicas": 3, "template": live["spec"]["template"]},
        }
        api.put(SET, replicas)
        for name in ("x", "y", "z"):
            self.pod(name, running(image("a").pinned))
        build = Build(context=root, dockerfile=root / "Dockerfile")
        deploy = Deploy(workload_name="web", replace="in-place")
        self.service = Service(name="web", image="shop/web", build=build, deploy=deploy)
        project = Project(
            name="shop",
            root=root,
            file=root / "devloop.yaml",
            services={"web": self.service},
        )
        self.deployments = Deployments(project, connection, view)
        self.deployer: WorkloadDeployer = self.deployments.deployer(self.service)
        self.log = RecoveryLog(project.state_dir)
        for kind in ("pods", "replicasets", "deployments"):
            view.view(kind, "dev").wait_synced(self.cancel)

    def pod(self, name: str, status: dict[str, Any]) -> None:
        made = pod(status, name=f"web-new-{name}", image=image("a").pinned)
        before = self.api.objects.get(f"{PODS}/web-new-{name}")
        if before is not None:
            made["spec"] = before["spec"]
        self.api.put(f"{PODS}/web-new-{name}", made)

    def deploy(self, letter: str) -> Deployed:
        return self.deployer.deploy(image(letter), Silent(), self.cancel)

    def follow(self, deployed: Deployed, cancel: Cancel | None = None) -> None:
        self.deployer.follow(deployed, Silent(), cancel or self.cancel)

    def paused(self) -> bool:
        return paused_by_devloop(self.api.objects[WEB])


@pytest.fixture
def stage(api: FakeApi, connection: Connection, tmp_path: Path) -> Iterator[Stage]:
    view = ClusterView(connection)
    root = tmp_path / "project"
    root.mkdir()
    made = Stage(api, connection, view, root)
    yield made
    made.deployments.close()
    view.close()


class Timers:
    """What would be called after a while, to be called by hand."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, function: Any, args: Any = ()) -> Any:
        del seconds
        timers = self

        class Timer(threading.Thread):
            def start(self) -> None:
                timers.calls.append(lambda: function(*args))

            def cancel(self) -> None:
                """It has fired already: too late."""

            def join(self, timeout: float | None = None) -> None:
                pass

        return Timer()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    made = Timers()
    monkeypatch.setattr("devloop.cluster.replace.in_place.threading.Timer", made)
    return made


def _superseded(stage: Stage, deployed: Deployed) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        stage.follow(deployed, cancel)


def test_what_no_newer_image_takes_over_is_resumed(stage: Stage, timers: Timers) -> None:
    _superseded(stage, stage.deploy("b"))
    assert stage.paused()
    assert len(stage.log.entries()) == 1
    (fire,) = timers.calls
    fire()
    assert not stage.paused()
    assert stage.log.entries() == ()


def test_a_timer_of_the_rollout_before_leaves_the_newer_one_alone(
    stage: Stage, timers: Timers
) -> None:
    """It may fire while the newer one is being opened, and then waits for the lock."""
    _superseded(stage, stage.deploy("b"))
    assert stage.deploy("c").how == "in-place"
    (fire,) = timers.calls
    fire()
    assert stage.paused()
    (entry,) = stage.log.entries()
    assert entry.after == {"web": image("c").pinned}


def test_a_failed_rollout_is_not_hidden_by_a_cluster_that_does_not_resume_it(stage: Stage) -> None:
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


def test_the_end_of_a_session_resumes(stage: Stage) -> None:
    stage.deploy("b")
    assert stage.paused()
    stage.deployments.close()
    assert not stage.paused()
    assert stage.log.entries() == ()


def test_the_end_of_a_session_waits_for_no_silent_cluster_beyond_its_deadline(stage: Stage) -> None:
    stage.deploy("b")
    with stage.deployments.lock(REF).held(stage.cancel):
        stage.deployments.close(deadline=time.monotonic())
    assert stage.paused()
    assert len(stage.log.entries()) == 1


def test_waiting_for_a_workload_can_be_cancelled() -> None:
    lock, cancel = WorkloadLock(), Cancel()
    ends: list[str] = []

    def wait() -> None:
        try:
            with lock.held(cancel):
                ends.append("had it")
        except Cancelled:
            ends.append("cancelled")

    with lock.held(Cancel()):
        thread = threading.Thread(target=wait)
        thread.start()
        cancel.set()
        thread.join()
    assert ends == ["cancelled"]
    with lock.held(Cancel()):
        pass
