"""What the schema says of the lines, with lines of every type that the bus can give."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from devloop.errors import Code, Diagnosis, Location
from devloop.event_schema import event_schema
from devloop.events import (
    DiagnosticRaised,
    Event,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    LogLine,
    Record,
    Serving,
    StepProgress,
    Trigger,
    to_json,
)
from devloop.model import Outcome, Step
from tests.support.event_lines import check_line

if TYPE_CHECKING:
    from collections.abc import Mapping

EVENTS: tuple[Event, ...] = (
    IterationStarted(
        iter=3, service="web", trigger=Trigger(kind="files", paths=("a.py",), count=1)
    ),
    StepProgress(
        iter=3, service="web", step=Step.BUILD, message="[1/2] COPY . .", current=1, total=2
    ),
    StepProgress(iter=3, service="web", step=Step.PUSH, message="pushing"),
    IterationFinished(
        iter=3,
        service="web",
        outcome=Outcome.READY,
        ms=1.23456,
        digest="sha256:1",
        serving=Serving(iter=3, image="r/web@sha256:1", digest="sha256:1"),
        why="",
    ),
    IterationFinished(
        iter=3,
        service="web",
        outcome=Outcome.FAILED,
        ms=2,
        digest=None,
        serving=None,
        why="no",
        failed_step=Step.BUILD,
    ),
    DiagnosticRaised.of(
        Diagnosis(code=Code.CONFIG_VALUE, message="no", location=Location("devloop.yaml", 1, 2)),
        service="web",
    ),
    DiagnosticRaised.of(Diagnosis(code=Code.CONFIG_VALUE, message="no", severity="warning")),
    HoldStarted(service="web", iter=None, reason="the registry is away", code="", until=None),
    LogLine(
        service="web", pod="p", container="c", text="\udcff", ts="2026-01-01T00:00:00.1234567Z"
    ),
)


def _line(event: Event) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(
        to_json(Record(seq=1, ts="2026-01-01T00:00:00.000Z", event=event))
    )
    return read


def _accepted(line: Mapping[str, object]) -> bool:
    return jsonschema.Draft202012Validator(event_schema()).is_valid(line)


def test_the_schema_is_valid_and_names_every_type() -> None:
    schema = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    types = {kind.type for kind in Event.__subclasses__()}
    assert types <= schema["$defs"].keys()
    assert [each["if"]["properties"]["type"]["const"] for each in schema["allOf"]] == [
        name for name in schema["$defs"] if name in types
    ]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_lines_are_as_it_says(event: Event) -> None:
    line = _line(event)
    assert _accepted(line)
    check_line(line)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_a_line_without_one_of_its_keys_is_refused(event: Event) -> None:
    line = _line(event)
    for field in dataclasses.fields(event):
        assert not _accepted({name: value for name, value in line.items() if name != field.name})


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        (EVENTS[0], {"iter": "3"}),
        (EVENTS[0], {"trigger": {"kind": "whim", "paths": [], "count": 0}}),
        (EVENTS[1], {"step": "dance"}),
        (EVENTS[3], {"serving": {"iter": 3}}),
        (EVENTS[5], {"code": "words"}),
        (EVENTS[5], {"location": "devloop.yaml:1"}),
        (EVENTS[8], {"seq": 0}),
        (EVENTS[8], {"v": 2}),
    ],
)
def test_another_meaning_is_refused(event: Event, wrong: dict[str, object]) -> None:
    assert not _accepted(_line(event) | wrong)


def test_more_types_and_keys_may_come() -> None:
    line = _line(EVENTS[0])
    assert _accepted(line | {"more": 1})
    assert _accepted({"v": 1, "seq": 1, "ts": line["ts"], "type": "new.type", "other": 1})
    with pytest.raises(AssertionError):
        check_line(line | {"more": 1})
