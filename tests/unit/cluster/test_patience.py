"""What a rollout waits for, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api.pod_view import labels, metadata
from devloop.cluster.rollout.diagnose import examine
from devloop.cluster.rollout.patience import Patience, cured_by_waiting
from devloop.cluster.rollout.rollout import Rollout, RolloutHooks
from devloop.cluster.rollout.run import Run
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import DeployedWorkload, ImageRef, WorkloadRef
from tests.support.cluster_objects import event, pod, running, waiting

if TYPE_CHECKING:
    from devloop.cluster.api.pod_view import Json
    from devloop.model import Step

DB = WorkloadRef("deployment", "db", "dev")
IMAGE = ImageRef(repository="localhost:5001/shop/web", tag="1", digest="sha256:" + "1" * 64)


def at(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"


def crashed(started: int, **more: Any) -> dict[str, Any]:
    last = {"exitCode": 1, "startedAt": at(started), "finishedAt": at(started + 1)}
    return pod(waiting("CrashLoopBackOff", restarts=2, last=last), **more)


def db(started: int, *, ready_since: int | None = None, probed: bool = False) -> dict[str, Any]:
    """A pod of the database; `ready_since` None: it is not ready."""
    status = running(ready=ready_since is not None, name="db")
    status["state"] = {"running": {"startedAt": at(started)}}
    made = pod(status, name="db-1-x", owner_uid="rs-db")
    made["metadata"]["ownerReferences"][0]["name"] = "db-1"
    labels(made)["pod-template-hash"] = "1"
    made["status"]["conditions"][0]["lastTransitionTime"] = at(ready_since or started)
    if probed:
        made["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 5432}}
    return made


def cure(thing: Json, *others: Json, events: tuple[Json, ...] = ()) -> str:
    found = examine(thing, events)
    assert found is not None
    return cured_by_waiting(found, thing, [thing, *others], [DB])


@pytest.mark.parametrize(
    ("others", "waits"),
    [
        ([], True),  # its pods are to come yet
        ([db(1)], True),
        ([db(1, ready_since=9, probed=True)], False),
        ([db(1, ready_since=41, probed=True)], True),  # it became ready after the crash's start
        ([db(25, ready_since=26)], True),  # runs, without a probe: not for long
        ([db(5, ready_since=6)], False),
        ([db(5, ready_since=6), db(39, ready_since=40)], False),  # one of two is enough
    ],
)
def test_a_crash_may_be_for_want_of_what_was_not_ready_when_it_started(
    others: list[Json], *, waits: bool
) -> None:
    assert cure(crashed(started=40), *others) == ("deployment/db" if waits else "")


def other(name: str, made: dict[str, Any]) -> dict[str, Any]:
    """The pod as one of the Deployment `name`."""
    made["metadata"]["name"] = f"{name}-1-x"
    made["metadata"]["ownerReferences"][0]["name"] = f"{name}-1"
    labels(made)["pod-template-hash"] = "1"
    return made


def test_two_that_exit_for_the_same_fault_do_not_wait_for_each_other() -> None:
    worker = WorkloadRef("deployment", "worker", "dev")
    web, sibling = crashed(started=40), other("worker", crashed(started=41))
    found = examine(web)
    assert found is not None
    assert cured_by_waiting(found, web, [web, sibling], [worker]) == ""
    # But for a third that both may need, which is ready since their last tries.
    late = db(1, ready_since=60, probed=True)
    assert cured_by_waiting(found, web, [web, sibling, late], [worker, DB]) == "deployment/db"
    early = db(1, ready_since=9, probed=True)
    assert cured_by_waiting(found, web, [web, sibling, early], [worker, DB]) == ""


def test_one_waits_for_another_that_is_owed_a_run_by_a_third() -> None:
    api = WorkloadRef("deployment", "api", "dev")
    web, sibling = crashed(started=70), other("api", crashed(started=50))
    found = examine(web)
    assert found is not None
    since = db(1, ready_since=60, probed=True)
    assert cured_by_waiting(found, web, [web, sibling, since], [api, DB]) == "deployment/api"


def test_a_program_that_is_out_of_memory_needs_nobody_else() -> None:
    last = {"exitCode": 137, "reason": "OOMKilled", "startedAt": at(1)}
    assert cure(pod(waiting("CrashLoopBackOff", restarts=2, last=last))) == ""


def unschedulable(message: str) -> dict[str, Any]:
    scheduled = {"type": "PodScheduled", "status": "False", "message": message}
    return pod(status={"phase": "Pending", "conditions": [scheduled]})


def test_a_pod_without_a_node_waits_for_pods_that_stop_and_for_nodes_that_are_made() -> None:
    full = unschedulable("0/1 nodes are available: 1 Insufficient cpu.")
    assert cure(full, pod(running(), name="web-old-x")) == ""
    assert cure(full, pod(running(), name="web-old-x", deleting=True)) == "pod web-old-x to stop"
    young = "0/1 nodes are available: 1 node(s) had untolerated taint {%s: }."
    assert cure(unschedulable(young % "node.kubernetes.io/not-ready")) == "a node to get ready"
    assert cure(unschedulable(young % "dedicated")) == ""


def test_patience_counts_what_lasts_without_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    found = Patience()
    found.begin()
    assert not found.lasted(("a",), 5.0)
    assert found.next(now) == 105.0
    now = 104.0
    found.begin()
    assert not found.lasted(("a",), 5.0)
    now = 105.0
    found.begin()
    assert found.lasted(("a",), 5.0)
    found.begin()
    found.begin()  # nobody asked in between
    assert not found.lasted(("a",), 5.0)


# --- a rollout, look by look ----------------------------------------------------------------------


class Shelf:
    """A view that holds what it is given."""

    error: DevloopError | None = None

    def __init__(self, *things: Json) -> None:
        self.things = list(things)

    def items(self) -> list[Json]:
        return self.things

    def get(self, name: str) -> Json | None:
        return next((t for t in self.things if metadata(t).get("name") == name), None)


class Answers:
    """A connection on which only `there` exists."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.events: list[Json] = []

    def send(self, method: str, url: str, **_: Any) -> Answers:
        if url not in self.there:
            raise DevloopError.of(Code.CLUSTER_NOT_FOUND, f"{method} {url}")
        return self

    def request(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        return {"items": self.events}

    def close(self) -> None: ...


class Told(SilentReporter):
    def __init__(self) -> None:
        self.diagnoses: list[Diagnosis] = []
        self.lines: list[str] = []

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        self.diagnoses.append(diagnosis)

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        self.lines.append(message)


class Stage:
    """A StatefulSet's rollout with a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(
            "devloop.cluster.rollout.rollout.tail_log", lambda *_, **__: ["no database"]
        )
        self.pods, self.events, self.answers, self.told = Shelf(), Shelf(), Answers(), Told()
        web = {
            "metadata": {"name": "web", "uid": "uid-web", "generation": 1},
            "spec": {"replicas": 1, "template": {"spec": {"containers": []}}},
            "status": {"observedGeneration": 1, "updateRevision": "new"},
        }
        views = {"statefulsets": Shelf(web), "pods": self.pods, "events": self.events}
        view = type("Views", (), {})()
        view.view = lambda kind, _namespace: views[kind]
        view.workload = lambda ref: views[f"{ref.kind}s"]
        self.rollout = Rollout(
            self.answers,  # type: ignore[arg-type]
            view,
            DeployedWorkload(
                workload=WorkloadRef("statefulset", "web", "dev"),
                uid="uid-web",
                generation=1,
                image=IMAGE,
                containers=("web",),
            ),
            timeout=120,
            hooks=RolloutHooks(),
            others=lambda: [DB],
        )

    def web(self, made: dict[str, Any]) -> None:
        """The pod of the StatefulSet, beside those that there are."""
        made["metadata"]["labels"] = {"controller-revision-hash": "new"}
        made["metadata"]["ownerReferences"] = [
            {"kind": "StatefulSet", "name": "web", "uid": "uid-web", "controller": True}
        ]
        rest = [p for p in self.pods.things if metadata(p)["name"] != made["metadata"]["name"]]
        self.pods.things = [*rest, made]

    def look(self, seconds: float = 0.0) -> bool:
        """Whether it is ready, `seconds` later."""
        self.now += seconds
        return self.rollout.look(self.told, Cancel()) is not None


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_a_crash_while_the_database_comes_up_is_told_and_waited_out(stage: Stage) -> None:
    stage.pods.things = [db(2)]
    stage.web(crashed(started=3))
    for seconds in (0.0, 1.0, 5.0, 30.0):
        assert not stage.look(seconds)
    assert stage.told.lines[-1].startswith("waiting for deployment/db: 0/1 ready")
    (warning,) = stage.told.diagnoses
    assert (warning.severity, warning.code) == ("warning", "pod/crash-loop")
    assert warning.message.endswith("; waits for deployment/db")
    assert warning.cause is not None
    assert warning.cause.startswith("no database")
    stage.web(pod(running(IMAGE.pinned)))
    assert stage.look(1.0)


def test_a_crash_after_the_database_was_ready_fails_at_once(stage: Stage) -> None:
    stage.pods.things = [db(2, ready_since=9, probed=True)]
    stage.web(crashed(started=3))
    assert not stage.look()
    stage.web(crashed(started=13))
    with pytest.raises(DevloopError, match="keeps exiting"):
        stage.look(1.0)


def test_a_crash_for_want_of_others_fails_at_the_deadline(stage: Stage) -> None:
    stage.pods.things = [db(2)]
    stage.web(crashed(started=3))
    assert not stage.look()
    with pytest.raises(DevloopError, match="keeps exiting"):
        stage.look(120.0)


SECRET = waiting("CreateContainerConfigError", 'secret "login" not found')


def test_a_secret_that_does_not_come_fails_after_a_while(stage: Stage) -> None:
    stage.web(pod(SECRET))
    for seconds in (0.0, 1.0, 28.0):
        assert not stage.look(seconds)
    (warning,) = stage.told.diagnoses
    assert warning.message.endswith("; waits 30 s for it")
    with pytest.raises(DevloopError, match="cannot be started"):
        stage.look(1.0)


def test_a_secret_that_came_is_waited_for_until_the_node_sees_it(stage: Stage) -> None:
    stage.web(pod(SECRET))
    assert not stage.look()
    stage.answers.there.add("/api/v1/namespaces/dev/secrets/login")
    for seconds in (30.0, 30.0):
        assert not stage.look(seconds)
    assert stage.told.lines[-1].startswith("waiting for the node to see secret 'login'")
    stage.web(pod(running(IMAGE.pinned)))
    assert stage.look(1.0)


def test_a_pod_waits_for_the_node_that_an_autoscaler_makes(stage: Stage) -> None:
    stage.web(unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
    stage.answers.events = [event("TriggeredScaleUp", "pod triggered scale-up")]
    for seconds in (0.0, 15.0, 60.0):
        assert not stage.look(seconds)
    assert stage.told.lines[-1].startswith("waiting for a new node")


def test_a_trouble_that_is_over_at_once_is_not_worth_a_warning(stage: Stage) -> None:
    stage.web(pod(SECRET))
    assert not stage.look()
    stage.web(pod(running(IMAGE.pinned)))
    assert stage.look(0.9)
    assert stage.told.diagnoses == []


def test_a_probe_that_keeps_failing_is_told_long_before_the_deadline(stage: Stage) -> None:
    """A program that listens on 127.0.0.1 alone, or elsewhere than its probe asks, is seldom in
    need of two minutes."""
    stage.pods.things = [db(1, ready_since=2, probed=True)]
    stage.web(pod(running(IMAGE.pinned, ready=False)))
    refused = "Readiness probe failed: dial tcp 10.0.0.9:8000: connect: connection refused"
    stage.events.things = [event("Unhealthy", refused)]
    for seconds in (0.0, 14.0):
        assert not stage.look(seconds)
    assert stage.told.diagnoses == []
    for seconds in (1.0, 60.0):
        assert not stage.look(seconds)
    (warning,) = stage.told.diagnoses
    assert (warning.severity, warning.code) == ("warning", "pod/probe-failing")
    assert warning.message.endswith("keeps failing; waits until the deadline")
    assert "0.0.0.0" in warning.suggestions[0]


def test_a_failed_rollout_is_ready_after_all_once_its_pods_are(stage: Stage) -> None:
    stage.web(crashed(started=3))
    stage.now += 10_000
    assert stage.rollout.look_for_recovery() is None
    stage.web(pod(running(IMAGE.pinned)))
    found = stage.rollout.look_for_recovery()
    assert found is not None
    assert found[0].pods == ("web-new-x",)
    assert stage.told.lines == []


# --- a Job, look by look --------------------------------------------------------------------------


class JobStage(Stage):
    """A Job with one pod, which has the same patience."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        monkeypatch.setattr("devloop.cluster.rollout.run.tail_log", lambda *_, **__: [])
        job = {"metadata": {"name": "web", "uid": "uid-web"}, "spec": {}}
        views = {"jobs": Shelf(job), "pods": self.pods, "events": self.events}
        view = type("Views", (), {})()
        view.view = lambda kind, _namespace: views[kind]
        view.workload = lambda ref: views[f"{ref.kind}s"]
        self.run = Run(
            self.answers,  # type: ignore[arg-type]
            view,
            DeployedWorkload(
                workload=WorkloadRef("job", "web", "dev"),
                uid="uid-web",
                generation=1,
                image=IMAGE,
                containers=("web",),
            ),
            timeout=120,
        )

    def look(self, seconds: float = 0.0) -> bool:
        self.now += seconds
        return self.run.look(self.told, Cancel()) is not None


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> JobStage:
    return JobStage(monkeypatch)


def test_a_job_has_the_grace_for_a_secret_that_is_to_come(job: JobStage) -> None:
    job.web(pod(SECRET))
    for seconds in (0.0, 1.0, 28.0):
        assert not job.look(seconds)
    assert job.told.lines[-1].endswith("; waits 30 s for it")
    with pytest.raises(DevloopError, match="cannot be started"):
        job.look(1.0)


def test_a_job_waits_until_the_node_sees_a_secret_that_came(job: JobStage) -> None:
    job.web(pod(SECRET))
    assert not job.look()
    job.answers.there.add("/api/v1/namespaces/dev/secrets/login")
    for seconds in (30.0, 30.0):
        assert not job.look(seconds)
    assert job.told.lines[-1].endswith("; waits for the node to see secret 'login'")


def test_a_job_waits_for_the_room_of_a_pod_that_stops(job: JobStage) -> None:
    job.web(unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
    job.pods.things.append(pod(running(), name="web-old-x", deleting=True))
    for seconds in (0.0, 15.0, 60.0):
        assert not job.look(seconds)
    assert job.told.lines[-1].endswith("; waits for pod web-old-x to stop")


def test_a_crash_of_a_jobs_pod_is_the_jobs_to_try_again(job: JobStage) -> None:
    job.web(crashed(started=3))
    for seconds in (0.0, 60.0):
        assert not job.look(seconds)
    assert job.told.lines == ["0/1 completed"]
