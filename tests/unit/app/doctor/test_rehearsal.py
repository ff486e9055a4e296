"""What the events of the doctor's session say of each hop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devloop.app.doctor.rehearsal import SERVICE, Rehearsal, project_files
from devloop.base.cancel import Cancel, Cancelled
from devloop.config.files import check_files
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError
from devloop.manifests.files import read_manifests


def rehearsal(*events: dict[str, Any]) -> Rehearsal:
    made = Rehearsal()
    for event in events:
        made.line(json.dumps(event))
    return made


def step(name: str, detail: str = "", outcome: str = "done") -> dict[str, Any]:
    return {"type": "step.finished", "step": name, "outcome": outcome, "detail": detail, "iter": 0}


def failure(made: Rehearsal, hop: str) -> Any:
    with pytest.raises(DevloopError) as caught:
        made.wait(hop, 0.0, Cancel())
    return caught.value.diagnosis


WRONG_PULL = {
    "type": "diagnostic",
    "code": "pod/image-pull",
    "severity": "error",
    "message": "the node cannot pull the image",
    "cause": "no route to the registry",
    "suggestions": ["devloop cluster up"],
    "detail": [],
    "location": {"path": "k8s.json", "line": 1, "column": 1},
}
FAILED = {"type": "iteration.finished", "iter": 0, "outcome": "failed", "why": "rollout"}


def test_a_session_that_goes_well_answers_each_hop() -> None:
    made = rehearsal(
        step("build", outcome="skipped"),
        step("build", "2 steps"),
        step("push", "sha256:1"),
        step("deploy", "deployment/x"),
        {"type": "pod.changed", "ready": True, "deleting": False, "pod": "x-1"},
        {"type": "log", "service": "other", "text": "no"},
        {"type": "log", "service": SERVICE, "text": "agent 1 supervised"},
        step("rollout", "1/1 ready"),
        {"type": "iteration.finished", "iter": 0, "outcome": "ready", "digest": "sha256:1"},
        step("sync", "1 path"),
    )
    hops = ("build", "push", "deploy", "pull", "log", "iteration 0", "agent")
    details = [made.wait(hop, 0.0, Cancel()).detail for hop in hops]
    assert details == [
        *("2 steps", "sha256:1", "deployment/x", "1/1 ready", "agent 1 supervised", "ready"),
        "1 path",
    ]
    assert made.pod == "x-1"


def test_a_failure_is_told_in_the_sessions_words() -> None:
    made = rehearsal(step("build"), step("push"), step("deploy"), WRONG_PULL, FAILED)
    assert made.wait("deploy", 0.0, Cancel()).detail == ""
    found = failure(made, "pull")
    assert (found.code, found.cause) == (Code.POD_IMAGE_PULL, "no route to the registry")
    assert found.suggestions == ("devloop cluster up",)
    assert found.location is None


def test_what_is_waited_for_is_named_when_the_time_is_up() -> None:
    held = {"type": "hold", "code": "registry/unreachable", "reason": "it refused", "iter": 0}
    assert failure(rehearsal(step("build"), held), "push").message == "it refused"
    assert "still at the step rollout" in failure(rehearsal(), "pull").cause
    no_supervisor = WRONG_PULL | {"code": "build/no-supervisor", "severity": "info"}
    assert failure(rehearsal(no_supervisor), "agent").code == Code.BUILD_NO_SUPERVISOR


def test_a_session_that_breaks_without_an_event_shows_its_last_words() -> None:
    made = rehearsal()
    made.error_line("Traceback")
    made.error_line("ImportError: x")
    made.line("no json")
    made.over()
    found = failure(made, "build")
    assert (found.code, found.cause) == (Code.INTERNAL_BUG, "ImportError: x")
    assert found.detail == ("Traceback", "ImportError: x")


def test_a_cancel_ends_the_wait() -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        rehearsal().wait("build", 9.0, cancel)


@pytest.mark.parametrize("registry", [None, "localhost:5001/team"])
def test_its_project_is_valid(tmp_path: Any, registry: str | None) -> None:
    files = project_files(
        agent=b"\x7fELF", builder="buildx", registry=registry, allow_contexts=("team",)
    )
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    loaded = load_project(cwd=tmp_path, env={})
    assert check_files(loaded) == ()
    assert (loaded.project.registry, loaded.project.allow_contexts) == (registry, ("team",))
    (deployment,) = read_manifests([tmp_path / "k8s.json"])
    assert deployment.key[1:] == ("Deployment", "", SERVICE)
