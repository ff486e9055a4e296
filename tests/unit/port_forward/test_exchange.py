"""Where requests and answers begin and end, for any cut of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.port_forward.exchange import Exchange

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;ext=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
)


def fed(*turns: tuple[str, bytes]) -> Exchange:
    exchange = Exchange()
    for who, data in turns:
        (exchange.asked if who == "up" else exchange.answered)(data)
    return exchange


def state(exchange: Exchange) -> str:
    names = ("idle", "repeatable", "over")
    return " ".join(name for name in names if getattr(exchange, name))


def test_a_whole_safe_request_can_be_sent_again_until_its_first_answer_byte() -> None:
    exchange = fed(("up", GET))
    assert state(exchange) == "repeatable"
    exchange.answered(OK[:1])
    assert state(exchange) == ""
    exchange.answered(OK[1:])
    assert state(exchange) == "idle"
    exchange.asked(GET)
    assert state(exchange) == "repeatable"


@pytest.mark.parametrize("answer", [OK, CHUNKED, b"HTTP/1.0 200 OK\r\n\r\nuntil the end"])
def test_an_answer_that_nobody_saw_can_be_taken_back(answer: bytes) -> None:
    for cut in range(1, len(answer)):
        exchange = fed(("up", GET), ("down", answer[:cut]))
        assert exchange.retractable
        exchange.retract()
        assert state(exchange) == "repeatable"
        exchange.answered(OK)
        assert state(exchange) == "idle"
        assert not exchange.retractable


def test_what_cannot_be_taken_back() -> None:
    events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata"
    for asked, answered in ((GET, events), (GET, OK), (POST, OK[:9]), (GET + GET, OK[:9])):
        assert not fed(("up", asked), ("down", answered)).retractable
    assert not fed(("up", GET), ("down", OK[:9]), ("up", GET)).retractable
    assert not fed(("up", GET), ("down", b"SSH-2.0 hello\r\n\r\n")).retractable


@pytest.mark.parametrize(
    "request_",
    [
        POST,
        GET[:-1],
        GET + GET,
        GET + b"G",
        b"DELETE / HTTP/1.1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"hello\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"a" * 70000 + b"\r\n\r\n",
    ],
)
def test_nothing_else_is_sent_again(request_: bytes) -> None:
    exchange = fed(("up", request_))
    assert not exchange.repeatable
    assert not exchange.idle


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        CHUNKED,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    ],
)
@given(cut=st.integers(1, 80))
def test_answers_end_where_they_end(answer: bytes, cut: int) -> None:
    exchange = fed(("up", GET))
    for start in range(0, len(answer), cut):
        assert not exchange.idle
        exchange.answered(answer[start : start + cut])
    assert exchange.idle
    assert not exchange.over


@given(cut=st.integers(1, 60))
def test_requests_end_where_they_end(cut: int) -> None:
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    exchange = Exchange()
    for request_ in (POST, chunked, GET):
        for start in range(0, len(request_), cut):
            exchange.asked(request_[start : start + cut])
        exchange.answered(OK)
        assert exchange.idle


def test_an_answer_to_head_has_no_body() -> None:
    head = b"HEAD / HTTP/1.1\r\n\r\n"
    assert fed(("up", head), ("down", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")).idle


def test_pipelined_requests_are_answered_in_turn() -> None:
    exchange = fed(("up", GET + POST + GET), ("down", OK))
    assert not exchange.idle
    exchange.answered(OK + OK)
    assert exchange.idle


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", OK),
        (b"GET / HTTP/1.0\r\n\r\n", OK),
        (GET, b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n"),
        (GET, b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_a_connection_that_ends_with_its_answer_is_over_and_not_idle(
    request_: bytes, answer: bytes
) -> None:
    exchange = fed(("up", request_), ("down", answer))
    assert exchange.over
    assert not exchange.idle


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"SSH-2.0-x\r\n\r\n",
        OK + b"more than was asked for",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_has_no_known_end_is_never_idle(answer: bytes) -> None:
    exchange = fed(("up", GET), ("down", answer))
    assert not exchange.idle
    assert not exchange.over
    assert not exchange.repeatable


def test_a_server_that_speaks_first_is_not_http() -> None:
    exchange = fed(("down", b"220 mail\r\n"), ("up", GET))
    assert not exchange.repeatable


@given(st.lists(st.tuples(st.sampled_from(["up", "down"]), st.binary(max_size=200)), max_size=8))
def test_no_bytes_are_too_odd(turns: list[tuple[str, bytes]]) -> None:
    exchange = fed(*turns)
    assert not (exchange.idle and exchange.repeatable)
