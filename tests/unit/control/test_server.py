"""The socket itself, with clients as they come: late, slow, stuck, many, mad, another user's."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base import unix_sockets
from devloop.base.unix_sockets import dial_unix, listen_unix
from devloop.control import server as servers
from devloop.control.client import ControlClient, ask, session_of
from devloop.control.history import History
from devloop.control.protocol import (
    SOCKET,
    EventsRequest,
    PauseRequest,
    Request,
    StatusRequest,
    request_line,
)
from devloop.control.server import ControlServer
from devloop.engine.bus import EventBus
from devloop.errors import Code, DevloopError
from devloop.events import LogLine, PodChanged, Record, SessionEnded, to_json
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TS = "2026-11-23T14:31:07.112Z"


def pod(name: str) -> PodChanged:
    return PodChanged(service="web", pod=name, phase="Running", ready=True, deleting=False)


def line(text: str) -> LogLine:
    return LogLine(service="web", pod="web-1", container="web", text=text)


class Stage:
    """A server with a bus in front of it, in `directory`."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.bus = EventBus()
        self.history = History(**options)
        self.handled: list[Request] = []
        self.server = ControlServer(directory / SOCKET, self.history, self.handle)
        self.bus.subscribe("control", lambda record: self.take([record]), batch=self.take)
        self.recorded: list[str] = []
        self.bus.subscribe("recorder", lambda record: self.recorded.append(to_json(record)))

    def take(self, records: Sequence[Record]) -> None:
        self.history.extend(records)
        self.server.notify()

    def handle(self, request: Request) -> Mapping[str, Any]:
        self.handled.append(request)
        if isinstance(request, PauseRequest):
            raise DevloopError.of(Code.USAGE_PAUSED, "it is paused")
        return {"state": self.history.state()} if isinstance(request, StatusRequest) else {}

    def published(self, *events: PodChanged | LogLine | SessionEnded) -> None:
        goal = self.history.last + len(events)
        for event in events:
            self.bus.publish(event)
        until(lambda: self.history.last >= goal)

    def plain(self) -> socket.socket:
        return dial_unix(self.directory / SOCKET, 10)

    def close(self) -> None:
        self.bus.close()
        self.server.close(1.0)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def lines_of(client: ControlClient) -> list[str]:
    return [raw.decode().rstrip("\n") for raw, _ in client.records()]


def test_a_late_reader_gets_the_stream_as_it_was_recorded(stage: Stage) -> None:
    stage.published(pod("a"), line("b"), pod("c"))
    with ControlClient(stage.directory, EventsRequest(follow=True)) as client:
        reader: list[str] = []
        thread = threading.Thread(target=lambda: reader.extend(lines_of(client)))
        thread.start()
        for n in range(500):
            stage.bus.publish(line(str(n)))
        stage.published(SessionEnded(exit_code=0))
        thread.join(30)
    until(lambda: len(stage.recorded) == 504)
    assert reader == stage.recorded


def test_who_does_not_follow_gets_what_there_was_and_the_end(stage: Stage) -> None:
    with ControlClient(stage.directory, EventsRequest()) as client:
        assert lines_of(client) == []
    stage.published(pod("a"), line("b"))
    with ControlClient(stage.directory, EventsRequest(quiet=True)) as client:
        assert [r["type"] for _, r in client.records()] == ["pod.changed"]


def test_half_a_connection_is_enough_to_read_what_there_was(stage: Stage) -> None:
    """As `echo ... | nc -U -N` has it."""
    stage.published(*[line("x" * 5000)] * 200)
    with stage.plain() as sock:
        sock.sendall(request_line(EventsRequest()))
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            assert len(file.readlines()) == 201


def test_a_stuck_reader_slows_nobody_and_is_told_what_it_missed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lines=100)
    try:
        with stage.plain() as sock, sock.makefile("rb") as file:
            sock.sendall(request_line(EventsRequest(follow=True)))
            assert json.loads(file.readline())["ok"]
            for _ in range(40):
                stage.published(*[line("x" * 1000)] * 100)
            # Others get their answers all the while.
            assert ask(tmp_path, StatusRequest())["state"]["seq"] == 4000
            assert max(client.out.pending for client in stage.server._clients) < 300_000
            stage.published(SessionEnded(exit_code=0))
            found = [json.loads(each) for each in file]
    finally:
        stage.close()
    dropped = [each["count"] for each in found if each["type"] == "dropped"]
    assert dropped
    assert found[-1]["type"] == "session.ended"
    assert len(found) - len(dropped) + sum(dropped) == 4001
    expected = 0
    for each in found:
        expected += 1 + (each["count"] if each["type"] == "dropped" else 0)
        assert each["seq"] == expected


def test_a_follower_that_goes_is_forgotten(stage: Stage) -> None:
    with stage.plain() as sock:
        sock.sendall(request_line(EventsRequest(follow=True)))
        assert sock.recv(100)
        assert stage.server._following
    until(lambda: not stage.server._clients and not stage.server._following)
    stage.published(pod("a"))


@pytest.mark.parametrize("data", [b"x" * 70_000, b"GET / HTTP/1.1\r\n\r\n", b"\0\xff\n"])
def test_nonsense_gets_an_error_and_the_end(stage: Stage, data: bytes) -> None:
    with stage.plain() as sock, sock.makefile("rb") as file:
        with contextlib.suppress(OSError):
            sock.sendall(data)
        answer = json.loads(file.readline())
        assert answer["ok"] is False
        assert answer["error"]["code"] == "usage/arguments"
        with contextlib.suppress(OSError):  # a reset, where it had more to say
            assert file.readline() == b""
    assert stage.handled == []


def test_a_request_that_comes_byte_by_byte_is_one_request(stage: Stage) -> None:
    with stage.plain() as sock, sock.makefile("rb") as file:
        for byte in request_line(StatusRequest()):
            sock.sendall(bytes([byte]))
        assert json.loads(file.readline())["ok"]
    assert stage.handled == [StatusRequest()]


def test_who_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PATIENCE", 0.05)
    stage = Stage(tmp_path)
    try:
        with stage.plain() as sock:
            sock.sendall(b'{"op":')
            assert sock.recv(100) == b""
    finally:
        stage.close()


def test_one_client_too_many_is_told_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CLIENTS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(stage.plain())
            sock.sendall(request_line(EventsRequest(follow=True)))
            assert sock.recv(100)
        with pytest.raises(DevloopError) as caught:
            ask(stage.directory, StatusRequest())
        assert caught.value.code == Code.ENV_CONTROL_BUSY
    until(lambda: not stage.server._clients)
    assert ask(stage.directory, StatusRequest())["ok"]


def test_what_the_session_refuses_is_raised_where_it_was_asked(stage: Stage) -> None:
    with pytest.raises(DevloopError) as caught:
        ask(stage.directory, PauseRequest())
    assert caught.value.code == Code.USAGE_PAUSED


def test_another_users_process_is_refused_by_either_side(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.server._own = lambda _: False
    with stage.plain() as sock:
        with contextlib.suppress(OSError):
            sock.sendall(request_line(StatusRequest()))
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    assert stage.handled == []
    monkeypatch.setattr("devloop.base.unix_sockets.peer_uid", lambda _: 12345)
    with pytest.raises(PermissionError):
        dial_unix(tmp_path / SOCKET, 10)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_the_kernels_word_for_who_is_there_is_asked() -> None:
    """A process of another user, to whom the file's mode alone would be no obstacle."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        _another_user_asks(Path(name))


def _another_user_asks(directory: Path) -> None:
    stage = Stage(directory)
    try:
        (directory / SOCKET).chmod(0o666)
        code = (
            "import os, socket, sys; os.setuid(65534);"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            """s.sendall(b'{"op":"status"}\\n'); print(s.recv(100))"""
        )
        argv = [sys.executable, "-S", "-c", code, str(directory / SOCKET)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    finally:
        stage.close()
    assert done.stdout == "b''\n" or "Reset" in done.stderr or "Broken" in done.stderr, done
    assert stage.handled == []


def test_the_socket_is_the_users_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600
    stage.close()
    assert not os.path.lexists(tmp_path / SOCKET)
    with pytest.raises(DevloopError) as caught:
        ask(tmp_path, StatusRequest())
    assert caught.value.code == Code.ENV_NO_SESSION


def test_the_socket_of_a_killed_session_is_no_session_and_is_replaced(tmp_path: Path) -> None:
    listen_unix(tmp_path / SOCKET).close()
    assert os.path.lexists(tmp_path / SOCKET)
    with pytest.raises(DevloopError) as caught:
        ask(tmp_path, StatusRequest())
    assert caught.value.code == Code.ENV_NO_SESSION
    stage = Stage(tmp_path)
    assert ask(tmp_path, StatusRequest())["ok"]
    stage.close()


def test_a_project_that_lies_deep_has_a_socket_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if len(str(tmp_path)) > 70:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    deep = tmp_path.joinpath(*["directory"] * 20)
    deep.mkdir(parents=True)
    listen_unix(deep / SOCKET).close()  # one was killed
    stage = Stage(deep)
    short = (deep / SOCKET).readlink()
    assert len(os.fsencode(short)) < 104
    assert stat.S_IMODE(short.parent.stat().st_mode) == 0o700
    assert ask(deep, StatusRequest())["ok"]
    stage.close()
    assert not os.path.lexists(deep / SOCKET)
    assert not short.exists()


def test_a_project_on_a_file_system_without_sockets_has_one_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = unix_sockets._listening

    def listening(place: Path) -> socket.socket:
        if place.parent == tmp_path:
            raise OSError(errno.EOPNOTSUPP, "no sockets here")
        return real(place)

    monkeypatch.setattr(unix_sockets, "_listening", listening)
    stage = Stage(tmp_path)
    assert (tmp_path / SOCKET).is_symlink()
    assert ask(tmp_path, StatusRequest())["ok"]
    stage.close()
    assert not os.path.lexists(tmp_path / SOCKET)


def test_what_a_session_says_of_itself_stands_before_what_it_wrote(tmp_path: Path) -> None:
    assert session_of(tmp_path) is None
    stage = Stage(tmp_path)
    (tmp_path / "session.json").write_text(json.dumps({"v": 1, "pid": os.getpid(), "mode": "dev"}))
    assert session_of(tmp_path) == {"v": 1, "pid": os.getpid(), "mode": "dev", "running": True}
    stage.close()


def test_a_record_is_as_long_as_it_is(stage: Stage) -> None:
    stage.take([Record(1, TS, line("z" * 1_000_000))])
    with ControlClient(stage.directory, EventsRequest()) as client:
        (only,) = lines_of(client)
    assert len(only) > 1_000_000
