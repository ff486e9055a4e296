from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.cluster.api.pod_view import pod_view
from devloop.cluster.rollout.diagnose import NEVER, examine, exit_meaning, with_log
from devloop.errors import Location
from tests.support.cluster_objects import event, pod, running, terminated, waiting

PULL = 'failed to pull and unpack image "localhost:5001/shop/web@sha256:aa": '
CASES: list[tuple[str, dict[str, Any], list[Any], str, float, str]] = [
    (
        "first pull error may pass",
        pod(waiting("ErrImagePull", "rpc error: code = Unavailable desc = dial: refused")),
        [],
        "pod/image-pull",
        NEVER,
        "refused",
    ),
    (
        "second pull error",
        pod(waiting("ImagePullBackOff", "Back-off pulling image")),
        [event("Failed", f"Failed to pull image: {PULL}dial tcp: connection refused", count=2)],
        "pod/image-pull",
        0,
        "connection refused",
    ),
    (
        "image not found is certain",
        pod(waiting("ErrImagePull", f"rpc error: code = NotFound desc = {PULL}not found")),
        [],
        "pod/image-pull",
        0,
        "not found",
    ),
    (
        "unknown host is certain",
        pod(waiting("ErrImagePull", "lookup kind-registry: no such host")),
        [],
        "pod/image-pull",
        0,
        "no such host",
    ),
    (
        "registry wants credentials",
        pod(waiting("ErrImagePull", "pull access denied, authorization failed")),
        [],
        "pod/image-pull",
        0,
        "denied",
    ),
    (
        "plain HTTP registry",
        pod(waiting("ErrImagePull", "http: server gave HTTP response to HTTPS client")),
        [],
        "pod/image-pull",
        0,
        "HTTP response",
    ),
    ("bad name", pod(waiting("InvalidImageName", "x")), [], "pod/image-pull", 0, "x"),
    (
        "no image for this platform",
        pod(waiting("ErrImagePull", "no match for platform in manifest: not found")),
        [],
        "pod/wrong-arch",
        0,
        "no match for platform",
    ),
    (
        "exec format error",
        pod(waiting("RunContainerError", 'exec: "/app": exec format error')),
        [],
        "pod/wrong-arch",
        0,
        "exec format error",
    ),
    (
        "missing secret",
        pod(waiting("CreateContainerConfigError", 'secret "db" not found')),
        [],
        "pod/config-error",
        30,
        'secret "db" not found',
    ),
    (
        "missing key of a secret",
        pod(waiting("CreateContainerConfigError", "couldn't find key url in Secret dev/db")),
        [],
        "pod/config-error",
        30,
        "find key url",
    ),
    (
        "no such command",
        pod(terminated(128, "StartError", message="exec: no such file or directory")),
        [],
        "pod/config-error",
        0,
        "no such file",
    ),
    ("first exit may pass", pod(terminated(1)), [], "pod/crash-loop", NEVER, "ended with an error"),
    ("second exit", pod(terminated(1, restarts=1)), [], "pod/crash-loop", 0, "ended"),
    (
        "crash loop",
        pod(waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 3, "reason": "Error"})),
        [],
        "pod/crash-loop",
        0,
        "ended with an error",
    ),
    (
        "ends by itself",
        pod(waiting("CrashLoopBackOff", restarts=2, last={"exitCode": 0})),
        [],
        "pod/crash-loop",
        0,
        "must keep running",
    ),
    (
        "runs again and may do better",
        pod(running(ready=False, restarts=2, lastState={"terminated": {"exitCode": 139}})),
        [],
        "pod/crash-loop",
        NEVER,
        "segmentation",
    ),
    (
        "out of memory",
        pod(terminated(137, "OOMKilled")),
        [],
        "pod/oom-killed",
        0,
        "memory limit",
    ),
    (
        "out of memory before",
        pod(waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 137, "reason": "OOMKilled"})),
        [],
        "pod/oom-killed",
        0,
        "memory limit",
    ),
    (
        "liveness kills it",
        pod(running(ready=False, restarts=2, lastState={"terminated": {"exitCode": 137}})),
        [event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500")],
        "pod/probe-failing",
        NEVER,
        "statuscode: 500",
    ),
    (
        "liveness killed it again",
        pod(waiting("CrashLoopBackOff", restarts=2, last={"exitCode": 137})),
        [event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500")],
        "pod/probe-failing",
        0,
        "statuscode: 500",
    ),
    (
        "not ready",
        pod(running(ready=False)),
        [event("Unhealthy", "Readiness probe failed: connect: connection refused")],
        "pod/probe-failing",
        NEVER,
        "Readiness probe failed",
    ),
    (
        "unschedulable",
        pod(
            status={
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes are available: 1 Insufficient cpu.",
                    }
                ],
            }
        ),
        [],
        "pod/unschedulable",
        15,
        "Insufficient cpu",
    ),
    (
        "missing volume",
        pod(waiting("ContainerCreating")),
        [event("FailedMount", 'MountVolume.SetUp failed for volume "c" : configmap "c" not found')],
        "pod/config-error",
        30,
        'configmap "c" not found',
    ),
    (
        "sandbox",
        pod(waiting("ContainerCreating")),
        [event("FailedCreatePodSandBox", "plugin type bridge failed")],
        "pod/config-error",
        NEVER,
        "bridge",
    ),
    (
        "init fails",
        pod(
            waiting("PodInitializing"),
            init=[terminated(2, restarts=1) | {"name": "migrate"}],
        ),
        [],
        "pod/init-failing",
        0,
        "wrong arguments",
    ),
    (
        "evicted",
        pod(status={"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
        [],
        "pod/evicted",
        NEVER,
        "low on memory",
    ),
    (
        "its node is gone",
        pod(running(ready=False)),
        [event("NodeNotReady", "Node is not ready")],
        "pod/node-not-ready",
        NEVER,
        "Node is not ready",
    ),
    (
        "its node came back",
        pod(running(ready=False)),
        [event("NodeNotReady", "Node is not ready"), event("Unhealthy", "refused")],
        "pod/probe-failing",
        NEVER,
        "refused",
    ),
]


@pytest.mark.parametrize(
    ("thing", "events", "code", "grace", "cause"),
    [c[1:] for c in CASES],
    ids=[c[0] for c in CASES],
)
def test_cases(
    thing: dict[str, Any], events: list[Any], code: str, grace: float, cause: str
) -> None:
    found = examine(thing, events)
    assert found is not None
    assert found.diagnosis.code == code
    assert found.grace == grace
    assert cause in str(found.diagnosis.cause)
    assert "\n" not in found.diagnosis.message
    assert code == "pod/crash-loop" or found.diagnosis.suggestions


@pytest.mark.parametrize(
    "thing",
    [
        pod(running()),
        pod(waiting("ContainerCreating")),
        pod(running(restarts=3)),
        pod(running(), init=[terminated(0, "Completed") | {"name": "migrate"}]),
        {},
    ],
)
def test_nothing_wrong(thing: dict[str, Any]) -> None:
    assert examine(thing, [event("Unhealthy", "x", uid="other")]) is None


def test_the_log_of_the_run_that_ended_is_asked_for() -> None:
    now = examine(pod(terminated(1, restarts=1)))
    before = examine(pod(waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 1})))
    assert now is not None
    assert before is not None
    assert (now.log, now.previous) == (True, False)
    assert (before.log, before.previous) == (True, True)


def test_the_log_becomes_evidence() -> None:
    found = examine(pod(terminated(1, restarts=1)))
    assert found is not None
    lines = ["starting", "Traceback:", "ModuleNotFoundError: No module named 'flask'", "bye", ""]
    diagnosis = with_log(found, lines)
    assert str(diagnosis.cause).startswith("ModuleNotFoundError: No module named 'flask' (")
    assert diagnosis.detail == ("starting", "Traceback:", lines[2], "bye")
    assert with_log(found, []) == found.diagnosis


def test_the_place_of_a_crash_is_that_in_the_project() -> None:
    found = examine(pod(terminated(1, restarts=1)))
    assert found is not None
    lines = ["Traceback (most recent call last):", '  File "/app/app.py", line 3, in <module>']
    diagnosis = with_log(found, lines, lambda _: {"/app/app.py": "web/app.py"})
    assert diagnosis.location == Location("web/app.py", 3)
    assert with_log(found, lines, lambda _: {}).location is None
    assert with_log(found, lines).location is None


def test_wrong_processor_is_seen_in_the_log() -> None:
    found = examine(pod(terminated(255, restarts=1)))
    assert found is not None
    diagnosis = with_log(found, ["exec /app/server: exec format error"])
    assert diagnosis.code == "pod/wrong-arch"


@pytest.mark.parametrize(
    ("code", "said"),
    [(137, "SIGKILL"), (139, "SIGSEGV"), (143, "SIGTERM"), (126, "executed"), (127, "not found"),
     (129, "signal 1"), (7, "error"), (None, "unknown")],
)  # fmt: skip
def test_exit_codes_in_words(code: int | None, said: str) -> None:
    assert said in exit_meaning(code)


KEYS = [
    "metadata", "status", "spec", "containers", "containerStatuses", "initContainerStatuses",
    "state", "lastState", "waiting", "terminated", "running", "reason", "message", "exitCode",
    "restartCount", "conditions", "type", "name", "labels", "ownerReferences", "uid", "ready",
    "imageID", "involvedObject", "count", "phase",
]  # fmt: skip
WORDS = st.sampled_from(
    ["ErrImagePull", "CrashLoopBackOff", "OOMKilled", "Evicted", "Failed", "PodScheduled", "False",
     "web", "Unhealthy", "FailedMount", "RunContainerError", ""]
)  # fmt: skip
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)
THING = st.dictionaries(st.sampled_from(KEYS), ODD, max_size=5)


@given(THING, st.lists(THING, max_size=3))
def test_never_raises(thing: dict[str, Any], events: list[Any]) -> None:
    pod_view(thing)
    found = examine(thing, events)
    if found is not None:
        with_log(found, ["x"])


@pytest.mark.parametrize(
    ("restarts", "words"),
    [(0, "ended (exit code 1)"), (1, "keeps exiting (exit code 1, 1 restart)")],
)
def test_who_has_ended_once_does_not_keep_exiting(restarts: int, words: str) -> None:
    found = examine(pod(terminated(1, restarts=restarts)), [])
    assert found is not None
    assert found.diagnosis.message.endswith(words)
