"""What a client may say and what it is told: every line is checked in one place."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.control.protocol import (
    EventsRequest,
    PauseRequest,
    Request,
    StatusRequest,
    TriggerRequest,
    done,
    parse_answer,
    parse_request,
    refused,
    request_line,
)
from devloop.errors import Code, DevloopError


@pytest.mark.parametrize(
    "request_",
    [
        StatusRequest(),
        EventsRequest(follow=True, logs=True, service="web"),
        TriggerRequest(service="web", fresh=True),
        PauseRequest(),
    ],
)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    assert parse_request(request_line(request_)) == request_


def test_keys_of_a_newer_client_are_ignored_and_those_that_are_left_out_have_their_default() -> (
    None
):
    assert parse_request(b'{"v":7,"op":"trigger","colour":"red"}') == TriggerRequest()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"status",
        b"[]",
        b"\xff\xfe",
        b"[" * 50_000,
        b"{}",
        b'{"op":["status"]}',
        b'{"op":"shutdown"}',
        b'{"op":"trigger","service":7}',
        b'{"op":"trigger","fresh":1}',
        b'{"op":"events","follow":"yes"}',
        b'{"op":"events","service":null}',
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(line: bytes) -> None:
    with pytest.raises(DevloopError) as caught:
        parse_request(line)
    assert caught.value.code == Code.USAGE_ARGUMENTS
    assert caught.value.diagnosis.cause


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(line: bytes) -> None:
    with contextlib.suppress(DevloopError):
        parse_request(line)


def test_what_the_session_refuses_is_the_clients_own_error() -> None:
    error = DevloopError.of(
        Code.CONFIG_UNKNOWN_SERVICE, "no web", cause="services: api", suggestions=("api?",)
    )
    with pytest.raises(DevloopError) as caught:
        parse_answer(refused(error))
    assert caught.value.diagnosis == error.diagnosis


def test_an_error_of_a_newer_session_is_an_error_still() -> None:
    line = json.dumps({"ok": False, "error": {"code": "moon/full", "message": "no"}}).encode()
    with pytest.raises(DevloopError, match="no"):
        parse_answer(line)


def test_the_facts_of_an_answer_arrive() -> None:
    assert parse_answer(done(id=3))["id"] == 3


def test_a_filter_keeps_what_every_reader_must_have() -> None:
    logs = EventsRequest(logs=True, service="web")
    assert logs.wants({"type": "log", "service": "web"})
    assert not logs.wants({"type": "log", "service": "api"})
    assert not logs.wants({"type": "hold", "service": "web"})
    assert logs.wants({"type": "dropped", "count": 3})
    quiet = EventsRequest(quiet=True)
    assert not quiet.wants({"type": "log", "service": "web"})
    assert quiet.wants({"type": "session.started"})
