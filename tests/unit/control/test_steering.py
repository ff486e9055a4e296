"""Commands against a session at work: a real socket, a real engine, ports that are scripted."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.early_control import EarlyControl
from devloop.base.cancel import Cancel
from devloop.cli.main import main
from devloop.control.event_file import EventFile
from devloop.control.session_file import SessionFile
from devloop.engine.bus import EventBus
from devloop.engine.loop import Engine
from devloop.engine.tasks import ServicePorts
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.events import (
    DiagnosticRaised,
    Event,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    LogLine,
    PageOpened,
    Record,
    SessionEnded,
    SessionPaused,
    SessionStarted,
)
from devloop.model import Outcome
from tests.support.waiting import until
from tests.unit.engine.test_loop import PROJECT, Running, ScriptedHints, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SAVED = frozenset({PROJECT / "app.py"})


class Stage:
    """A session of `services` in `directory`, without a cluster."""

    def __init__(self, directory: Path, *services: str) -> None:
        state = directory / ".devloop"
        state.mkdir()
        named = "".join(f"  {name}: {{build: .}}\n" for name in services)
        (directory / "devloop.yaml").write_text(f"version: 1\nservices:\n{named}")
        self.bus = EventBus()
        self.events: list[Event] = []
        self.world, self.hints = World(), ScriptedHints()
        ports = ServicePorts(source=self.world, builder=self.world, deployer=self.world)
        self.bus.subscribe("session-file", SessionFile(state))
        self.bus.subscribe("event-file", EventFile(state))
        self.control = EarlyControl(state, self.bus, services)
        self.bus.subscribe("test", lambda record: self.events.append(record.event))
        self.bus.publish(
            SessionStarted(
                version="1",
                mode="dev",
                project="shop",
                root=str(directory),
                context="kind-dev",
                namespace="dev",
                registry="localhost:5001",
                services=services,
                pid=1,
            )
        )
        self.running = Running(
            Engine(
                dict.fromkeys(services, ports),
                mode="dev",
                root=PROJECT,
                publish=self.bus.publish,
                hints=self.hints,
            )
        )
        self.control.opened(Cancel()).steer(self.running.engine)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def ready(self, number: int) -> None:
        """Wait until so many iterations are at their end."""
        until(lambda: len(self.of(IterationFinished)) >= number)

    def save(self, content: str) -> None:
        self.world.content = content
        self.hints.give(SAVED)

    def close(self) -> None:
        self.running.stop()
        self.bus.publish(SessionEnded(exit_code=0))
        self.bus.close()
        self.control.close(1.0)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.chdir(tmp_path)
    made = Stage(tmp_path, "web")
    made.ready(1)
    yield made
    made.close()


def test_a_page_is_open_as_early_as_the_socket_and_a_taken_port_is_said(tmp_path: Path) -> None:
    bus, events = EventBus(), list[Event]()
    bus.subscribe("test", lambda record: events.append(record.event))
    first = EarlyControl(tmp_path, bus, ("web",), page=0)
    url = first.opened(Cancel()).open_page()
    port = int(url.partition("/#")[0].rpartition(":")[2])
    (tmp_path / "other").mkdir()
    second = EarlyControl(tmp_path / "other", bus, ("web",), page=port)
    second.opened(Cancel())
    until(lambda: len(events) == 2)
    assert events[0] == PageOpened(url=url)
    assert isinstance(events[1], DiagnosticRaised)
    assert events[1].code == Code.ENV_PORT_BUSY
    bus.close()
    first.close(1.0)
    second.close(1.0)


def test_while_it_is_paused_nothing_is_built_and_what_was_saved_is_one_change(
    stage: Stage,
) -> None:
    assert main(["pause"]) == 0
    assert main(["pause"]) == 0  # and once more is no more
    until(lambda: stage.of(SessionPaused))
    for content in "bcd":
        stage.save(content)
    until(lambda: stage.of(HoldStarted))
    (hold,) = stage.of(HoldStarted)
    assert (hold.service, hold.iter) == ("web", None)
    assert "devloop resume" in hold.reason
    assert stage.world.scanned == "a"
    assert main(["resume"]) == 0
    stage.ready(2)
    assert stage.world.built == ["a", "d"]
    assert stage.world.deployed == ["a", "d"]
    assert len(stage.of(SessionPaused)) == 1


def test_what_is_under_way_comes_to_the_end_of_its_step_and_is_not_deployed(stage: Stage) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def on_build(_content: str, _cancel: Cancel) -> None:
        begun.set()
        go_on.wait(30)

    stage.world.on_build = on_build
    stage.save("b")
    assert begun.wait(30)
    assert main(["pause"]) == 0
    until(lambda: stage.of(SessionPaused))
    go_on.set()
    until(lambda: stage.of(HoldStarted))
    assert stage.world.built == ["a", "b"]
    assert stage.world.deployed == ["a"]
    assert main(["resume"]) == 0
    stage.ready(2)
    assert stage.world.deployed == ["a", "b"]


def test_a_trigger_while_it_is_paused_is_refused(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pause"]) == 0
    until(lambda: stage.of(SessionPaused))
    until(lambda: main(["trigger", "--wait"]) == ExitStatus.USAGE)
    assert "usage/paused" in capsys.readouterr().err
    assert main(["resume"]) == 0


def test_a_trigger_builds_again_what_is_there(stage: Stage) -> None:
    assert main(["trigger"]) == 0
    stage.ready(2)
    assert stage.world.built == ["a", "a"]
    assert stage.of(IterationStarted)[-1].trigger.kind == "retry"


def test_waiting_for_a_trigger_ends_with_the_status_of_its_iteration(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.world.content = "b"  # saved, and nobody has noticed yet
    assert main(["trigger", "--wait", "web"]) == 0
    assert stage.world.deployed == ["a", "b"]
    assert "web #1 ready" in capsys.readouterr().out

    def broken(_content: str, _cancel: Cancel) -> None:
        raise DevloopError.of(Code.BUILD_RUN_FAILED, "pip is not amused")

    stage.world.on_build = broken
    assert main(["trigger", "--wait"]) == ExitStatus.FAILED
    assert "build/run-failed: pip is not amused" in capsys.readouterr().out
    assert main(["trigger", "--wait", "-o", "json"]) == ExitStatus.FAILED
    said = json.loads(capsys.readouterr().out)
    assert (said["outcome"], said["problems"][0]["code"]) == ("failed", "build/run-failed")


def test_a_session_that_ends_answers_who_waits(stage: Stage) -> None:
    held = threading.Event()

    def on_build(_content: str, cancel: Cancel) -> None:
        held.set()
        while not cancel.wait(1):
            pass

    stage.world.on_build = on_build
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(main(["trigger", "--wait"])))
    thread.start()
    assert held.wait(30)
    stage.running.stop()
    thread.join(30)
    assert status == [ExitStatus.FAILED]
    assert stage.of(IterationFinished)[-1].outcome is Outcome.CANCELLED


def test_a_fresh_one_takes_no_shortcut_and_is_the_only_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "web")
    real, fresh = stage.world.build, list[bool]()

    def build(scan: Any, reporter: Any, cancel: Any) -> Any:
        fresh.append(scan.fresh)
        return real(scan, reporter, cancel)

    stage.world.build = build  # type: ignore[method-assign]
    try:
        stage.ready(1)
        argv = ["-f", str(tmp_path / "devloop.yaml")]
        assert main(["trigger", "--wait", "--fresh", *argv]) == 0
        assert main(["trigger", "--wait", *argv]) == 0
    finally:
        stage.close()
    assert fresh[-2:] == [True, False]


def test_all_are_asked_for_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage(tmp_path, "api", "web")
    try:
        stage.ready(2)
        assert main(["trigger", "--wait", "-o", "json"]) == 0
        said = list(map(json.loads, capsys.readouterr().out.splitlines()))
        assert [each["service"] for each in said] == ["api", "web"]
        assert {each["outcome"] for each in said} <= {"ready", "unchanged"}

        def broken(_content: str, _cancel: Cancel) -> None:
            raise DevloopError.of(Code.BUILD_RUN_FAILED, "pip is not amused")

        stage.world.on_build = broken
        assert main(["trigger", "--wait"]) == ExitStatus.FAILED
        assert capsys.readouterr().out.count("pip is not amused") == 2
        assert main(["trigger", "wep"]) == ExitStatus.USAGE
        assert "did you mean web?" in capsys.readouterr().err
    finally:
        stage.close()


@pytest.mark.parametrize("command", ["pause", "resume", "trigger", "events"])
def test_without_a_session_the_next_step_is_named(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devloop.yaml").write_text("version: [broken\n")
    assert main([command]) == ExitStatus.ENVIRONMENT
    said = capsys.readouterr().err
    assert "env/no-session" in said
    assert "`devloop dev` starts one" in said


def test_the_events_are_the_same_with_a_session_and_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage(tmp_path, "web")
    stage.ready(1)
    for text in ("one", "two"):
        stage.bus.publish(LogLine(service="web", pod="web-1", container="web", text=text))
    until(lambda: len(stage.of(LogLine)) == 2)
    assert main(["events"]) == 0
    during = capfdbinary.readouterr().out.splitlines()
    stage.close()
    assert main(["events"]) == 0
    after = capfdbinary.readouterr().out.splitlines()
    assert after[: len(during)] == during
    assert json.loads(after[-1])["type"] == "session.ended"
    assert main(["events", "--since", "2999-01-01"]) == 0
    assert capfdbinary.readouterr().out == b""
    assert main(["events", "--follow"]) == ExitStatus.ENVIRONMENT


def test_why_says_the_same_during_and_after_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage(tmp_path, "api", "web")
    stage.ready(2)
    until(lambda: main(["why", "web"]) == 0 and "#" in capsys.readouterr().out)
    assert main(["why"]) == 0
    during = capsys.readouterr().out
    assert "because  the session began" in during
    assert during.startswith("api   #")
    assert main(["why", "wep"]) == ExitStatus.USAGE
    stage.close()
    assert main(["why"]) == 0
    assert capsys.readouterr().out.split("\n")[0] == during.split("\n")[0]
    assert main(["why", "web", "-o", "json"]) == 0
    assert [each["service"] for each in json.loads(capsys.readouterr().out)] == ["web"]
    assert main(["why", "wep"]) == ExitStatus.USAGE
    assert "did you mean web?" in capsys.readouterr().err


def test_logs_of_one_or_all_now_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage(tmp_path, "api", "web")

    def log(service: str, text: str, container: str = "main", ts: str = "") -> None:
        pod = f"{service}-5d-x2x7"
        stage.bus.publish(LogLine(service=service, pod=pod, container=container, text=text, ts=ts))

    def printed(*argv: str) -> list[str]:
        assert main(["logs", *argv]) == 0
        return capfdbinary.readouterr().out.decode().splitlines()

    log("web", "old", ts="2001-01-01T00:00:00.123456789Z")
    log("api", "hello")
    log("web", "\x1b[2Jworld \N{SNOWMAN}")
    log("web", "aside", "sidecar")
    until(lambda: len(stage.of(LogLine)) == 4)
    whole = ["[web x2x7] old", "[api x2x7] hello", "[web x2x7] world \N{SNOWMAN}"]
    whole.append("[web x2x7 sidecar] aside")
    until(lambda: printed() == whole)
    assert printed("web") == [whole[0], *whole[2:]]
    assert printed("--since", "1h") == whole[1:]
    stage.running.stop()
    stage.bus.publish(SessionEnded(exit_code=0))
    assert printed("-f", "api") == whole[1:2]
    stage.close()
    assert printed() == whole
    assert printed("web", "--since", "5m") == whole[2:]
    assert [json.loads(each)["text"] for each in printed("api", "-o", "json")] == ["hello"]


@pytest.mark.parametrize("text", ["soon", "5", "5 minutes", "m", "-5m"])
def test_a_time_that_is_none_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["logs", f"--since={text}"]) == ExitStatus.USAGE
    assert "usage/arguments" in capsys.readouterr().err


def test_who_follows_a_session_that_is_killed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage(tmp_path, "web")
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(main(["events", "--follow"])))
    thread.start()
    server = stage.control.opened(Cancel())._server
    assert server is not None
    until(lambda: server._following)
    stage.control.close(0.1)
    thread.join(30)
    assert status == [ExitStatus.ENVIRONMENT]
    assert "its last events did not arrive" in capsys.readouterr().err
    stage.close()


def test_why_of_a_session_that_never_began_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devloop.yaml").touch()
    (tmp_path / ".devloop").mkdir()
    EventFile(tmp_path / ".devloop")(Record(1, "2026-11-30T14:00:00Z", SessionEnded(exit_code=3)))
    assert main(["why"]) == 0
    assert "nothing was decided" in capsys.readouterr().out


def test_a_rollback_serves_the_image_before_until_the_next_save(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback"]) == ExitStatus.USAGE
    assert "usage/no-rollback" in capsys.readouterr().err
    stage.save("b")
    stage.ready(2)
    assert main(["rollback", "--wait", "web"]) == 0
    assert "web #2 ready" in capsys.readouterr().out
    until(lambda: stage.of(HoldStarted))
    assert stage.world.built == ["a", "b"]
    assert stage.world.deployed == ["a", "b", "a"]
    until(lambda: main(["why"]) == 0 and "waits" in capsys.readouterr().out)
    assert main(["why"]) == 0
    said = capsys.readouterr().out
    assert "the image of #0 was asked for again: a rollback" in said
    assert "back on #0: the next change is deployed again" in said
    stage.save("c")
    stage.ready(4)
    assert main(["rollback", "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["service"], answer["back"]["iter"]) == ("web", 0)
    assert main(["rollback", "nobody"]) == ExitStatus.USAGE


def test_a_rollback_while_it_is_paused_is_refused(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pause"]) == 0
    until(lambda: stage.of(SessionPaused))
    until(lambda: main(["rollback"]) == ExitStatus.USAGE)
    until(lambda: main(["rollback"]) and "usage/paused" in capsys.readouterr().err)
    assert main(["resume"]) == 0
