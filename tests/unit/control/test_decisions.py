"""The last decision, told from events: why, which way, why not a faster one, what is waited for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devloop.cli.why import explained
from devloop.control.decisions import decisions
from devloop.errors import Code
from devloop.events import (
    ConfigReloaded,
    DiagnosticRaised,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    Record,
    ServiceChanges,
    SessionResumed,
    SessionStarted,
    StepFinished,
    StepStarted,
    Trigger,
    TriggerTaken,
    to_json,
)
from devloop.model import Outcome, Step, StepOutcome

if TYPE_CHECKING:
    from devloop.events import Event

SESSION = SessionStarted(
    version="1",
    mode="dev",
    project="shop",
    root="/project",
    context="kind-dev",
    namespace="dev",
    registry="localhost:5001",
    services=("web", "api"),
    pid=1,
)


def told(*events: Event) -> dict[str, str]:
    """Service -> what `devloop why` prints of it."""
    stream = (Record(at + 1, "2026-11-30T14:00:00.000Z", e) for at, e in enumerate(events))
    found = decisions(json.loads(to_json(record)) for record in stream)
    for each in found.values():
        json.dumps(each.as_json())
    return {name: "\n".join(explained(each)) for name, each in found.items()}


def began(number: int = 1, kind: Any = "files", *paths: str, count: int = 0) -> IterationStarted:
    trigger = Trigger(kind=kind, paths=paths, count=count or len(paths))
    return IterationStarted(iter=number, service="web", trigger=trigger)


def step(
    name: Step, outcome: StepOutcome = StepOutcome.DONE, detail: str = "", *, of: int = 1
) -> StepFinished:
    return StepFinished(iter=of, service="web", step=name, outcome=outcome, ms=900, detail=detail)


def ended(outcome: Outcome = Outcome.READY, why: str = "", *, of: int = 1) -> IterationFinished:
    return IterationFinished(
        iter=of, service="web", outcome=outcome, ms=1900, digest=None, serving=None, why=why
    )


def test_before_anything_is_decided_that_is_said() -> None:
    assert told(SESSION) == {
        "web": "web   nothing has been decided yet",
        "api": "api   nothing has been decided yet",
    }


def test_a_change_that_needed_an_image_says_why_it_was_not_synced() -> None:
    text = told(
        SESSION,
        began(1, "files", "Dockerfile", "app.py"),
        step(Step.SYNC, StepOutcome.SKIPPED, "the Dockerfile changed"),
        step(Step.BUILD, detail="4 steps; full build: the Dockerfile changed"),
        ended(why="serving 4be01d"),
    )["web"]
    assert text.splitlines() == [
        "web   #1 ready in 1.9s: serving 4be01d",
        "  because  Dockerfile, app.py changed",
        "  sync     0.9s skipped   the Dockerfile changed",
        "  build    0.9s   4 steps; full build: the Dockerfile changed",
        "  why not  not into the running containers: the Dockerfile changed",
        "  why not  not by a delta layer: the Dockerfile changed",
    ]


def test_many_changed_files_are_counted() -> None:
    text = told(began(1, "files", *"abcdefg", count=300), ended())["web"]
    assert "a, b, c, d, e and 295 more changed" in text


def test_other_settings_are_named_and_services_come_and_go_with_devloop_yaml() -> None:
    text = told(
        SESSION,
        ConfigReloaded(
            changed=("services.db", "services.api"),
            services=ServiceChanges(added=("db",), removed=("api",)),
        ),
        began(1, "config", *(f"services.web.build.args.{name}" for name in "ABCDEFG")),
        ended(),
    )
    assert set(text) == {"web", "db"}
    assert "devloop.yaml changed: services.web.build.args.A, " in text["web"]
    assert "services.web.build.args.E and 2 more" in text["web"]


def test_a_failure_is_told_once_with_its_cause() -> None:
    problem = DiagnosticRaised(
        code=Code.BUILD_RUN_FAILED, message="RUN exited 1", cause="pip", iter=1, service="web"
    )
    text = told(began(1, "files", "a"), problem, ended(Outcome.FAILED, "RUN exited 1"))["web"]
    assert "#1 failed in 1.9s\n" in text
    assert "  error    RUN exited 1   [build/run-failed]\n           pip" in text


def test_what_is_under_way_and_what_is_waited_for() -> None:
    start = StepStarted(iter=1, service="web", step=Step.BUILD)
    assert "  now      build" in told(began(), start)["web"]
    hold = HoldStarted(service="web", iter=1, reason="the registry is away", code="", until=4.0)
    text = told(began(), start, step(Step.BUILD), hold)["web"]
    assert "#1 goes on" in text
    assert text.endswith("  waits    the registry is away")
    assert "waits" not in told(began(), hold, start)["web"]


def test_a_pause_is_waited_for_until_it_is_over() -> None:
    hold = HoldStarted(service="web", iter=None, reason="paused", code="", until=None)
    assert told(began(), ended(), hold)["web"].endswith("  waits    paused")
    assert "waits" not in told(began(), ended(), hold, SessionResumed())["web"]


def test_a_service_that_is_needed_is_waited_for_until_it_is_as_before() -> None:
    hold = HoldStarted(service="web", iter=None, reason="for it", code="", until=None, on="base")
    base, other = replace(ended(), service="base"), replace(ended(), service="other")
    assert told(began(), ended(), hold, other)["web"].endswith("  waits    for it")
    assert "waits" not in told(began(), ended(), hold, base)["web"]


def test_who_asked_and_how_many_gave_way_before_it() -> None:
    text = told(
        began(1, "files", "a"),
        ended(Outcome.CANCELLED),
        began(2, "files", "a"),
        ended(Outcome.CANCELLED, of=2),
        began(3, "retry"),
        TriggerTaken(service="web", iter=3, ids=(1,)),
        ended(of=3),
    )["web"]
    assert "because  another try was asked for\n" in text
    assert "2 iterations before it ended for a newer change" in text


def test_a_session_of_before_does_not_count() -> None:
    assert told(began(), ended(), SESSION)["web"] == "web   nothing has been decided yet"
