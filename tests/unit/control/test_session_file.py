"""What `devloop status` can say about a session, and that it is never half written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.control.session_file import SessionFile, read_session
from devloop.errors import Code
from devloop.events import (
    ConfigReloaded,
    DiagnosticRaised,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    LogLine,
    PodChanged,
    Record,
    ServiceChanges,
    Serving,
    SessionEnded,
    SessionPaused,
    SessionResumed,
    SessionStarted,
    StepStarted,
    Trigger,
)
from devloop.model import Outcome, Step

if TYPE_CHECKING:
    import pytest

    from devloop.errors import Severity
    from devloop.events import Event

TS = "2026-11-23T14:31:07.112Z"


def start(pid: int) -> SessionStarted:
    return SessionStarted(
        version="0.1.0",
        mode="dev",
        project="shop",
        root="/shop",
        context="kind-dev",
        namespace="default",
        registry="localhost:5001",
        services=("web",),
        pid=pid,
    )


def pod(phase: str) -> PodChanged:
    return PodChanged(service="web", pod="web-1", phase=phase, ready=True, deleting=False)


FINISHED = IterationFinished(
    iter=7,
    service="web",
    outcome=Outcome.FAILED,
    ms=3100.4,
    digest="sha256:aa",
    serving=Serving(iter=6, image="r/web@sha256:9f", digest="sha256:9f", fingerprint="f"),
    why="no",
    failed_step=Step.BUILD,
)


def told(folder: Path, *events: Event) -> dict[str, Any]:
    sink = SessionFile(folder)
    for n, event in enumerate(events, 1):
        sink(Record(n, TS, event))
    session = read_session(folder)
    assert session is not None
    return session


def test_a_running_session(tmp_path: Path) -> None:
    session = told(
        tmp_path,
        start(os.getpid()),
        IterationStarted(iter=7, service="web", trigger=Trigger(kind="start")),
        StepStarted(iter=7, service="web", step=Step.BUILD),
        pod("Running"),
    )
    assert session["running"] is True
    assert (session["project"], session["mode"], session["started"]) == ("shop", "dev", TS)
    web = session["services"]["web"]
    assert (web["iter"], web["state"], web["step"]) == (7, "working", "build")
    assert web["pods"]["web-1"]["ready"] is True
    assert sorted(p.name for p in tmp_path.iterdir()) == ["session.json"]


def test_holds_and_results(tmp_path: Path) -> None:
    hold = HoldStarted(
        service="web", iter=7, reason="refused", code="registry/unreachable", until=1.0
    )
    web = told(tmp_path, start(os.getpid()), hold)["services"]["web"]
    assert web["state"] == "holding"
    assert web["hold"]["code"] == "registry/unreachable"
    session = told(tmp_path, start(os.getpid()), hold, pod("Running"), pod("Gone"), FINISHED)
    web = session["services"]["web"]
    assert (web["state"], web["outcome"], web["failed_step"], web["ms"]) == (
        "idle",
        "failed",
        "build",
        3100,
    )
    assert (web["hold"], web["pods"], web["digest"]) == (None, {}, "sha256:aa")
    assert web["serving"] == {
        "iter": 6,
        "image": "r/web@sha256:9f",
        "digest": "sha256:9f",
        "fingerprint": "f",
    }


def test_what_waits_for_a_service_waits_until_that_is_as_before(tmp_path: Path) -> None:
    wait = HoldStarted(service="web", iter=None, reason="waits", code="", until=None, on="base")
    done = replace(FINISHED, service="base", outcome=Outcome.UNCHANGED, failed_step=None)
    began = replace(start(os.getpid()), services=("web", "base"))
    session = told(tmp_path, began, wait, replace(done, outcome=Outcome.FAILED))
    assert session["services"]["web"]["hold"]["reason"] == "waits"
    session = told(tmp_path, began, wait, done)
    assert session["services"]["web"]["hold"] is None


def test_a_session_that_ended_or_died(tmp_path: Path) -> None:
    session = told(tmp_path, start(os.getpid()), SessionEnded(exit_code=130, why="interrupted"))
    assert (session["running"], session["exit_code"], session["ended"]) == (False, 130, TS)
    process = subprocess.Popen(["true"])
    process.wait()
    assert told(tmp_path, start(process.pid))["running"] is False


def test_what_is_not_the_sessions_is_left_out(tmp_path: Path) -> None:
    sink = SessionFile(tmp_path)
    sink(Record(1, TS, FINISHED))
    sink(Record(2, TS, SessionEnded(exit_code=2)))
    assert read_session(tmp_path) is None
    log = LogLine(service="web", pod="web-1", container="web", text="x")
    other = IterationStarted(iter=1, service="other", trigger=Trigger(kind="start"))
    session = told(tmp_path, start(os.getpid()), log, other)
    assert list(session["services"]) == ["web"]


def test_no_nonsense_is_read(tmp_path: Path) -> None:
    for text in ("", "[]", "{", '{"pid": "1"}'):
        (tmp_path / "session.json").write_text(text)
        assert read_session(tmp_path) is None


def test_a_session_of_an_earlier_devloop_is_read(tmp_path: Path) -> None:
    old = {"v": 1, "started": TS, "pid": os.getpid(), "services": {}}
    (tmp_path / "session.json").write_text(json.dumps(old))
    assert read_session(tmp_path) == {**old, "running": True}


def test_a_full_disk_costs_the_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = SessionFile(tmp_path)
    sink(Record(1, TS, start(os.getpid())))
    before = (tmp_path / "session.json").read_text()

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    sink(Record(2, TS, FINISHED))
    assert (tmp_path / "session.json").read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["session.json"]
    monkeypatch.undo()
    sink(Record(3, TS, pod("Running")))
    after = json.loads((tmp_path / "session.json").read_text())
    assert after["services"]["web"]["outcome"] == "failed"


def test_what_of_devloop_yaml_was_taken_over_stands_there(tmp_path: Path) -> None:
    reloaded = ConfigReloaded(
        changed=("services.api", "services.web"),
        services=ServiceChanges(added=("api",), removed=("web",)),
        restart=("registry",),
    )
    session = told(tmp_path, start(os.getpid()), reloaded)
    assert session["reloaded"] == {
        "changed": ["services.api", "services.web"],
        "restart": ["registry"],
        "since": TS,
    }
    assert list(session["services"]) == ["api"]


def test_a_pause_stands_until_it_is_over_with_the_changes_that_wait(tmp_path: Path) -> None:
    paused = SessionPaused(reason="paused: p goes on")
    wait = HoldStarted(service="web", iter=None, reason="paused: p goes on", code="", until=None)
    session = told(tmp_path, start(os.getpid()), paused, wait)
    assert session["paused"] == {"reason": "paused: p goes on", "since": TS}
    assert session["services"]["web"]["hold"]["reason"] == "a change waits"
    session = told(tmp_path, start(os.getpid()), paused, wait, SessionResumed())
    assert session["paused"] is None
    assert session["services"]["web"]["hold"] is None


def test_what_somebody_else_changed_stands_there_until_an_iteration_begins(tmp_path: Path) -> None:
    file = SessionFile(tmp_path)

    def said(event: Event) -> tuple[str, Any]:
        file(Record(1, TS, event))
        session = read_session(tmp_path)
        assert session is not None
        return session["services"]["web"]["outside"], session["services"]["web"]["serving"]

    def changed(message: str, severity: Severity) -> DiagnosticRaised:
        code = Code.SAFETY_CHANGED_OUTSIDE
        return DiagnosticRaised(code=code, severity=severity, message=message, service="web")

    file(Record(1, TS, start(os.getpid())))
    assert said(FINISHED)[1] is not None
    assert said(changed("it was restarted", "info"))[0] == ""
    assert said(changed("it was rolled back", "warning")) == ("it was rolled back", None)
    assert said(changed("it is again as it was", "info"))[0] == ""
    said(changed("it was changed", "warning"))
    begun = IterationStarted(iter=8, service="web", trigger=Trigger(kind="files"))
    assert said(begun)[0] == ""
