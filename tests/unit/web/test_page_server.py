"""The page's server, by plain sockets: who gets what, who gets nothing, and what clients can do to
it that browsers would not."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devloop.control.history import History
from devloop.engine.bus import EventBus
from devloop.errors import Code, Location
from devloop.events import (
    DiagnosticRaised,
    Dropped,
    Event,
    LogLine,
    PodChanged,
    Record,
    SessionEnded,
    SessionStarted,
    to_json,
)
from devloop.web import server as servers
from devloop.web.http import LONGEST_BODY, LONGEST_HEAD
from devloop.web.server import PageServer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def pod(name: str) -> PodChanged:
    return PodChanged(service="web", pod=name, phase="Running", ready=True, deleting=False)


def line(text: str) -> LogLine:
    return LogLine(service="web", pod="web-1", container="web", text=text)


class Stage:
    """A server with a bus in front of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        self.bus = EventBus()
        self.history = History(**options)
        self.asked: list[bytes] = []
        self.server = PageServer(
            0, self.history, self.ask, facts=lambda: {"services": ["web"]}, clock=clock
        )
        self.address, _, self.token = self.server.url.partition("/#")
        self.port = int(self.address.rpartition(":")[2])
        self.host = f"localhost:{self.port}"
        self.bus.subscribe("control", lambda record: self.take([record]), batch=self.take)
        self.recorded: list[str] = []
        self.bus.subscribe("recorder", lambda record: self.recorded.append(to_json(record)))

    def ask(self, body: bytes) -> bytes:
        self.asked.append(body)
        return b'{"v":1,"ok":true}\n'

    def take(self, records: Sequence[Record]) -> None:
        self.history.extend(records)
        self.server.notify()

    def published(self, *events: Event) -> None:
        goal = self.history.last + len(events)
        for event in events:
            self.bus.publish(event)
        until(lambda: self.history.last >= goal and len(self.recorded) >= goal)

    def dial(self, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection((host, self.port), 10)

    def raw(self, request: bytes, host: str = "127.0.0.1") -> bytes:
        """The whole answer."""
        with self.dial(host) as sock:
            sock.sendall(request)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def say(self, what: str, *fields: str, body: str = "", host: str | None = None) -> int:
        """The status that a request gets."""
        lines = [f"{what} HTTP/1.1", f"Host: {host or self.host}", *fields, "", body]
        return int(self.raw("\r\n".join(lines).encode()).split()[1])

    @property
    def bearer(self) -> str:
        return f"Authorization: Bearer {self.token}"

    def post(self, *fields: str, body: str = "{}", path: str = "/ask") -> int:
        kind = "Content-Type: application/json"
        length = f"Content-Length: {len(body)}"
        return self.say(f"POST {path}", kind, length, *fields, body=body)

    def close(self) -> None:
        self.bus.close()
        self.server.close(1.0)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


class Reader:
    """A client that follows from number `after` on."""

    def __init__(self, stage: Stage, after: int = 0, last_event_id: str = "") -> None:
        self.sock = stage.dial()
        query = f"?after={after}" if not last_event_id else ""
        lines = [f"GET /events{query} HTTP/1.1", f"Host: {stage.host}", stage.bearer]
        lines += [f"Last-Event-ID: {last_event_id}"] if last_event_id else []
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        self.file = self.sock.makefile("r", encoding="utf-8", newline="\n")
        while self.file.readline().strip():
            pass
        kind, _, self.head = self.piece()
        assert kind == "state"

    def piece(self) -> tuple[str, int | None, list[Any]]:
        """The kind, the number and what it holds of the next piece; "" at the end."""
        kind, number, data = "message", None, []
        for text in self.file:
            name, _, value = text.rstrip("\n").partition(": ")
            match name:
                case "event":
                    kind = value
                case "id":
                    number = int(value)
                case "data":
                    data.append(json.loads(value))
                case "" if not value and data:
                    return kind, number, data
        return "", None, []

    def until(self, number: int) -> list[Any]:
        """All records up to that number."""
        found: list[Any] = []
        while not found or found[-1]["seq"] < number:
            kind, _, data = self.piece()
            assert kind == "message"
            found += data
        return found

    def close(self) -> None:
        self.file.close()
        self.sock.close()


# --- who is let in --------------------------------------------------------------------------------


def test_every_file_of_the_page_is_served_and_forbids_what_it_does_not_need(stage: Stage) -> None:
    listed = {file for file, _ in servers._FILES.values()}
    static = resources.files("devloop.web").joinpath("static")
    assert listed == {file.name for file in static.iterdir()}
    for path, (file, kind) in servers._FILES.items():
        connection = http.client.HTTPConnection("127.0.0.1", stage.port, timeout=10)
        connection.request("GET", path, headers={"Host": stage.host})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read() == static.joinpath(file).read_bytes()
        assert answer.getheader("Content-Type") == kind
        policy = answer.getheader("Content-Security-Policy", "")
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        assert answer.getheader("Referrer-Policy") == "no-referrer"
        assert answer.getheader("Access-Control-Allow-Origin") is None
        connection.close()


def test_the_page_needs_nothing_from_the_net() -> None:
    static = Path(str(resources.files("devloop.web").joinpath("static")))
    for file in static.iterdir():
        text = file.read_text()
        found = [part for part in text.split("http")[1:] if part.startswith(("://", "s://"))]
        assert not [
            p for p in found if not p.startswith(("://localhost:", "://www.w3.org/2000/svg"))
        ]
        assert "innerHTML" not in text
        assert " style=" not in text


def test_both_loopback_addresses_answer_and_no_other_listens(stage: Stage) -> None:
    request = f"GET / HTTP/1.1\r\nHost: [::1]:{stage.port}\r\n\r\n".encode()
    assert stage.raw(request, "::1").startswith(b"HTTP/1.1 200 ")
    hosts = {sock.getsockname()[0] for sock in stage.server._listeners}
    assert hosts == {"127.0.0.1", "::1"}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_our_own_names_are_known(stage: Stage, host: str) -> None:
    assert stage.say("GET /", host=f"{host}:{stage.port}") == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "localhost", "127.0.0.1:1", "0.0.0.0", " "]
)
def test_another_host_gets_nothing_whatever_it_asks_for(stage: Stage, host: str) -> None:
    for what in ("GET /", "GET /events", "GET /nothing", "POST /ask", "HEAD /"):
        assert stage.say(what, stage.bearer, host=host) == 421


def test_under_dns_rebinding_host_and_origin_are_the_same_and_neither_is_ours(stage: Stage) -> None:
    evil = f"evil.example:{stage.port}"
    assert stage.say("POST /ask", f"Origin: http://{evil}", stage.bearer, host=evil) == 421


def test_a_request_without_a_host_or_with_two_is_refused(stage: Stage) -> None:
    assert stage.raw(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 421 ")
    assert stage.say("GET /", "Host: evil.example") == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", ""])
def test_another_origin_may_ask_nothing(stage: Stage, origin: str) -> None:
    for what in ("GET /", "GET /events"):
        assert stage.say(what, f"Origin: {origin}", stage.bearer) == 403
    assert stage.post(f"Origin: {origin}", stage.bearer) == 403
    assert stage.asked == []


def test_another_port_of_this_computer_is_another_origin(stage: Stage) -> None:
    assert stage.post("Origin: http://localhost:1", stage.bearer) == 403
    assert stage.post("Sec-Fetch-Site: same-site", stage.bearer) == 403
    assert stage.asked == []


def test_no_origin_and_our_own_are_both_well(stage: Stage) -> None:
    assert stage.post(stage.bearer) == 200
    assert stage.post(f"Origin: http://{stage.host}", stage.bearer) == 200
    assert stage.post(f"Origin: http://127.0.0.1:{stage.port}", stage.bearer) == 200
    assert stage.asked == [b"{}"] * 3


@pytest.mark.parametrize("token", ["", "wrong", "Bearer", "Bearer wrong", "Basic {}", "{}", "é"])
def test_without_the_token_nothing_is_said_or_done(stage: Stage, token: str) -> None:
    fields = [f"Authorization: {token.format(stage.token)}"] if token else []
    assert stage.post(*fields) == 401
    assert stage.say("GET /events", *fields) == 401
    assert stage.say("GET /source?seq=1", *fields) == 401
    assert stage.say(f"GET /events?token={stage.token}", *fields) == 401
    assert stage.asked == []


def test_each_session_has_a_token_of_its_own_of_256_bits(stage: Stage) -> None:
    other = Stage()
    assert len(stage.token) == 43
    assert other.token != stage.token
    other.close()


def test_a_state_is_changed_by_post_alone_and_only_as_json(stage: Stage) -> None:
    assert stage.say("GET /ask", stage.bearer) == 405
    assert stage.say("HEAD /ask", stage.bearer) == 405
    assert stage.post(stage.bearer, path="/events") == 405
    assert stage.post(stage.bearer, path="/") == 405
    assert stage.say("OPTIONS /ask", stage.bearer) == 405
    form = "Content-Type: text/plain"
    assert stage.say("POST /ask", form, "Content-Length: 2", stage.bearer, body="{}") == 415
    assert stage.asked == []


def test_a_ticket_is_good_once_and_not_for_long(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enter(ticket: str, *fields: str) -> bytes:
        lines = ["POST /enter HTTP/1.1", f"Host: {stage.host}", f"Content-Length: {len(ticket)}"]
        lines += ["Content-Type: application/json", *fields, "", ticket]
        return stage.raw("\r\n".join(lines).encode())

    url, _, ticket = stage.server.url_for_once().partition("#once-")
    assert f"{url}#{stage.token}" == stage.server.url
    assert stage.token not in ticket
    assert b" 403 " in enter(ticket, "Origin: http://localhost:1").splitlines()[0]
    assert b" 403 " in enter(ticket, "Sec-Fetch-Site: cross-site").splitlines()[0]
    for wrong in ("", "x", stage.token):
        assert b" 401 " in enter(wrong).splitlines()[0]
    answer = enter(ticket)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"token": stage.token}
    assert b" 401 " in enter(ticket).splitlines()[0]
    assert stage.post(f"Authorization: Bearer {ticket}") == 401
    tickets = [stage.server.url_for_once().partition("#once-")[2] for _ in range(9)]
    assert b" 401 " in enter(tickets[0]).splitlines()[0]
    monkeypatch.setattr(servers, "_TICKET", -1.0)
    late = stage.server.url_for_once().partition("#once-")[2]
    assert b" 401 " in enter(late).splitlines()[0]
    assert stage.asked == []


def test_a_head_has_no_body(stage: Stage) -> None:
    request = f"HEAD /{{}} HTTP/1.1\r\nHost: {stage.host}\r\n\r\n"
    for path, status in (("", b"200"), ("page.js", b"200"), ("nothing", b"404"), ("ask", b"405")):
        answer = stage.raw(request.format(path).encode())
        assert answer.split()[1] == status
        assert answer.endswith(b"\r\n\r\n")


# --- what is no request ---------------------------------------------------------------------------


def test_what_is_too_much_is_refused_and_read_to_the_end(stage: Stage) -> None:
    assert stage.say("GET /", "X: " + "x" * (4 * LONGEST_HEAD)) == 431
    assert stage.post(stage.bearer, body=" " * (LONGEST_BODY + 1)) == 413
    assert stage.post(stage.bearer, body=" " * LONGEST_BODY) == 200
    endless = b"GET /" + b"x" * (LONGEST_HEAD + 10)
    assert stage.raw(endless).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: {}\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : {}\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: {}\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /ask HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET /../errors.py HTTP/1.1\r\nHost: {}\r\n\r\n", 404),
        (b"GET /%2e%2e/errors.py HTTP/1.1\r\nHost: {}\r\n\r\n", 404),
        (b"GET /static/page.js HTTP/1.1\r\nHost: {}\r\n\r\n", 404),
        (b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: {}\n\n\r\n\r\n", 400),
    ],
)
def test_what_is_not_understood_is_refused(stage: Stage, request_: bytes, status: int) -> None:
    answer = stage.raw(request_.replace(b"{}", stage.host.encode()))
    assert int(answer.split()[1]) == status


def test_a_request_may_come_in_pieces(stage: Stage) -> None:
    with stage.dial() as sock:
        for byte in f"GET / HTTP/1.1\r\nHost: {stage.host}\r\n\r\n".encode():
            sock.sendall(bytes([byte]))
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_who_sends_nothing_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_PATIENCE", 0.01)
    stage = Stage()
    with stage.dial() as sock:
        sock.sendall(b"GET /")
        assert sock.recv(1) == b""
    stage.close()


def test_too_many_connections_are_closed_and_the_others_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_CLIENTS", 2)
    first, second = stage.dial(), stage.dial()
    until(lambda: len(stage.server._clients) == 2)
    with stage.dial() as third:
        assert third.recv(1) == b""
    first.close()
    second.close()
    until(lambda: not stage.server._clients)
    assert stage.say("GET /") == 200


# --- the stream -----------------------------------------------------------------------------------


def test_a_late_reader_gets_the_state_and_then_the_stream_as_it_was(stage: Stage) -> None:
    stage.published(STARTED, pod("a"), line("b"))
    reader = Reader(stage)
    (head,) = reader.head
    assert head["services"] == ["web"]
    assert head["state"]["project"] == "shop"
    assert head["state"]["seq"] == 3
    for n in range(500):
        stage.bus.publish(line(str(n)))
    stage.published(SessionEnded(exit_code=0))
    got = reader.until(504)
    assert [json.dumps(each, separators=(",", ":")) for each in got] == stage.recorded
    assert reader.piece()[0] == ""  # nothing comes after the session's end
    reader.close()


def test_what_happens_within_a_moment_comes_in_one_piece() -> None:
    now = [0.0]
    stage = Stage(clock=lambda: now[0])
    reader = Reader(stage)
    until(lambda: all(c.feed and not c.feed.behind for c in stage.server._clients))
    for n in range(5):
        stage.published(line(str(n)))
    now[0] = 1.0
    assert [each["seq"] for each in reader.piece()[2]] == [1, 2, 3, 4, 5]
    reader.close()
    stage.close()


@pytest.mark.parametrize("how", ["query", "header"])
def test_after_a_lost_connection_nothing_is_missing_or_double(stage: Stage, how: str) -> None:
    stage.published(STARTED, *(line(str(n)) for n in range(40)))
    first = Reader(stage)
    _, seen, got = first.piece()
    first.close()
    stage.published(*(line(str(n)) for n in range(40, 80)))
    again = Reader(stage, seen or 0, str(seen) if how == "header" else "")
    got += again.until(81)
    stage.published(pod("z"))
    got += again.until(82)
    assert [each["seq"] for each in got] == list(range(1, 83))
    again.close()


def test_what_is_not_kept_any_more_is_counted_where_it_is_missing() -> None:
    stage = Stage(lines=10)
    stage.published(pod("a"), *(line(str(n)) for n in range(50)), pod("b"))
    got = (reader := Reader(stage)).until(52)
    assert [each["type"] for each in got] == [
        "pod.changed",
        "dropped",
        *["log"] * 10,
        "pod.changed",
    ]
    assert got[1]["count"] == 40
    assert [each["seq"] for each in got[1:3]] == [41, 42]
    reader.close()
    stage.close()


def test_what_was_lost_before_it_came_here_is_counted_once(stage: Stage) -> None:
    stage.take([Record(1, TS, pod("a")), Record(6, TS, Dropped(count=4)), Record(7, TS, pod("b"))])
    got = (reader := Reader(stage)).until(7)
    assert [(each["seq"], each.get("count")) for each in got] == [(1, None), (6, 4), (7, None)]
    reader.close()


def test_a_reader_that_takes_nothing_slows_nobody_and_costs_only_its_place() -> None:
    stage = Stage(lines=100)
    stuck = Reader(stage)
    other = Reader(stage)
    thread = threading.Thread(target=lambda: other.until(600))
    thread.start()
    for _ in range(20):
        stage.published(*[line("x" * 20_000)] * 30)
        waiting = max((c.out.pending for c in stage.server._clients), default=0)
        assert waiting < 3 * 1024 * 1024
    thread.join(30)
    assert not thread.is_alive()
    got = stuck.until(600)
    dropped = [each for each in got if each["type"] == "dropped"]
    assert dropped
    assert sum(each["count"] for each in dropped) + len(got) - len(dropped) == 600
    stuck.close()
    other.close()
    stage.close()


def test_a_fifth_page_takes_the_place_of_the_first_which_is_told(stage: Stage) -> None:
    readers = [Reader(stage) for _ in range(5)]
    assert readers[0].piece()[0] == "elsewhere"
    stage.published(pod("a"))
    for reader in readers[1:]:
        assert reader.until(1)
    for reader in readers:
        reader.close()


def test_who_follows_gets_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_PATIENCE", 0.01)
    monkeypatch.setattr(servers, "_PING", 0.01)
    stage = Stage()
    reader = Reader(stage)
    assert reader.file.readline() == ": still here\n"
    reader.close()
    stage.close()


# --- sources --------------------------------------------------------------------------------------

TS = "2026-11-23T14:31:07.112Z"
STARTED = SessionStarted(
    version="1",
    mode="dev",
    project="shop",
    root="/project",
    context="kind-dev",
    namespace="dev",
    registry="localhost:5001",
    services=("web",),
    pid=1,
)


def test_the_lines_of_a_problem_are_read_and_no_other_file(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("".join(f"LINE {n}\n" for n in range(1, 10)))
    (tmp_path / "secret").write_text("secret\n")
    told = [
        DiagnosticRaised(code=Code.BUILD_FAILED, message="no", location=place)
        for place in (
            Location(str(tmp_path / "Dockerfile"), 5, 1),
            Location(str(tmp_path / "gone"), 5, 1),
            Location(str(tmp_path), 1),
            Location("Dockerfile"),
            None,
        )
    ]
    stage.published(STARTED, *told, line("x"))
    found = [_source(stage, f"seq={seq}") for seq in range(9)]
    assert found[2] == {"first": 2, "meant": 5, "lines": [f"LINE {n}" for n in range(2, 8)]}
    assert not any(each["lines"] for n, each in enumerate(found) if n != 2)
    assert _source(stage, f"seq=2&path={tmp_path}/secret") == found[2]
    assert _source(stage, "seq=x")["lines"] == _source(stage, "")["lines"] == []


def _source(stage: Stage, query: str) -> dict[str, Any]:
    lines = [f"GET /source?{query} HTTP/1.1", f"Host: {stage.host}", stage.bearer, "", ""]
    answer = stage.raw("\r\n".join(lines).encode())
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


# --- the port -------------------------------------------------------------------------------------


def test_the_usual_port_gives_way_to_a_free_one_and_a_named_one_does_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "USUAL_PORT", stage.port)
    other = PageServer(None, stage.history, stage.ask)
    assert f":{stage.port}/" not in other.url
    other.close(0.0)
    with pytest.raises(OSError, match="in use"):
        PageServer(stage.port, stage.history, stage.ask)
