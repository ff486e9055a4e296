"""How far a Job, a bare Pod, a CronJob and a custom resource are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devloop.cluster.rollout.run_status import (
    RunDone,
    RunEnded,
    RunGoing,
    judge_run,
    running_container,
)
from devloop.model import DeployedWorkload, ImageRef, WorkloadRef
from tests.support.cluster_objects import DIGEST, owner, pod, running, terminated

IMAGE = ImageRef(repository="localhost:5001/shop/web", tag="x", digest=DIGEST)
JOB = DeployedWorkload(
    workload=WorkloadRef("job", "migrate", "dev"),
    uid="uid-migrate",
    generation=1,
    image=IMAGE,
    containers=("web",),
)


def job(*conditions: tuple[str, str], message: str = "", **status: Any) -> dict[str, Any]:
    found = [{"type": kind, "status": value, "message": message} for kind, value in conditions]
    return {"spec": {"completions": 1}, "status": {"conditions": found, **status}}


def job_pod(*containers: dict[str, Any], name: str = "migrate-x", phase: str = "Running") -> Any:
    made = pod(*containers, name=name, status={"phase": phase})
    made["metadata"]["ownerReferences"] = owner("Job", "migrate", "uid-migrate")
    return made


def test_a_job_is_done_when_it_is_complete() -> None:
    complete = job(("Suspended", "False"), ("Complete", "True"), succeeded=1)
    assert judge_run(JOB, complete, []) == RunDone(detail="completed")


def test_one_that_failed_names_the_container_whose_log_tells_why() -> None:
    failed = job(("Failed", "True"), message="Job has reached the specified backoff limit")
    mine = job_pod(terminated(3), phase="Failed")
    others = pod(terminated(9), name="migrate-other")
    found = judge_run(JOB, failed, [others, mine])
    assert found == RunEnded(
        message="job/migrate failed: container web exits with 3",
        cause="Job has reached the specified backoff limit",
        pod="migrate-x",
        container="web",
    )


def test_pods_that_failed_are_the_jobs_own_matter_while_it_tries_again() -> None:
    first, second = job_pod(terminated(1), phase="Failed"), job_pod(running(), name="migrate-y")
    found = judge_run(JOB, job(failed=1), [first, second])
    assert found == RunGoing(message="0/1 completed, 1 failed", pods=(second,))
    assert running_container([first, second]) == ("migrate-y", "web")


def test_a_suspended_job_is_not_waited_for() -> None:
    suspended = {"spec": {"suspend": True}, "status": {}}
    assert judge_run(JOB, suspended, []) == RunDone(detail="suspended: nothing runs")


POD = replace(JOB, workload=WorkloadRef("pod", "web", "dev"))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (pod(running()), RunDone),
        (pod(running(ready=False)), RunGoing),
        (pod(running("localhost:5001/shop/web@sha256:" + "b" * 64)), RunGoing),
        (pod(status={"phase": "Succeeded"}), RunDone),
        (pod(terminated(1), status={"phase": "Failed"}), RunEnded),
    ],
)
def test_a_pod(seen: Any, expected: type) -> None:
    assert isinstance(judge_run(POD, seen, []), expected)


def test_a_cronjob_runs_when_it_is_time() -> None:
    deployed = replace(JOB, workload=WorkloadRef("cronjob", "tick", "dev"))
    found = judge_run(deployed, {"spec": {"schedule": "* * * * *"}}, [])
    assert found == RunDone(detail="updated (schedule * * * * *)")


CUSTOM = replace(JOB, workload=WorkloadRef("rollout", "web", "dev", api="x.io/v1/rollouts"))


def custom(*conditions: tuple[str, str], observed: object = None) -> dict[str, Any]:
    found = [{"type": kind, "status": value, "message": "m"} for kind, value in conditions]
    thing: dict[str, Any] = {"metadata": {"generation": 2}, "status": {"conditions": found}}
    if observed is not None:
        thing["status"]["observedGeneration"] = observed
    return thing


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (custom(("Ready", "True"), observed=2), RunDone(detail="Ready")),
        (custom(("Progressing", "False"), ("Available", "True")), RunDone(detail="Available")),
        (
            custom(("Ready", "True"), observed="1"),
            RunGoing(message="waiting for rollout/web: its controller has not seen it"),
        ),
        (
            custom(("Ready", "Unknown")),
            RunGoing(message="waiting for rollout/web: Ready is Unknown (m)"),
        ),
    ],
)
def test_a_custom_resource_by_its_conditions(thing: Any, expected: object) -> None:
    assert judge_run(CUSTOM, thing, []) == expected


def test_a_custom_resource_without_conditions_is_done_after_a_moment() -> None:
    found = judge_run(CUSTOM, {"metadata": {"generation": 1}}, [])
    assert isinstance(found, RunDone)
    assert found.grace > 0
