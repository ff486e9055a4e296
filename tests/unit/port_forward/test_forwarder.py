"""The port forward over socket pairs: what a client sees while pods come and go."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.errors import Code, DevloopError
from devloop.events import ForwardChanged
from devloop.port_forward import PortForwarder, route
from tests.unit.port_forward.fakes import (
    App,
    Pods,
    answer,
    ask,
    connect,
    echo,
    opened,
    pod,
    read_all,
    until,
)

if TYPE_CHECKING:
    from devloop.events import Event

MB = 1024 * 1024


def states(events: list[Event]) -> list[tuple[str, str]]:
    return [(e.state, e.pod) for e in events if isinstance(e, ForwardChanged)]


def test_a_connection_reaches_the_ready_pod() -> None:
    with opened(App(answer), Pods(pod("a"))) as (forwarder, _):
        assert ask(forwarder) == "from a\n"


def test_ipv6_loopback_leads_there_too() -> None:
    with opened(App(answer), Pods(pod("a"))) as (forwarder, _):
        try:
            sock = connect(forwarder, "::1")
        except OSError:
            pytest.skip("no ::1 here")
        with sock:
            sock.sendall(b"x")
            assert read_all(sock) == b"from a\n"


def test_a_connection_made_before_there_is_a_pod_waits_for_one() -> None:
    pods = Pods(pod("a", ready=False))
    with opened(App(answer), pods) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"early\n")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(5)
        pods.set(pod("a"))
        assert read_all(sock) == b"from a\n"


def test_a_client_does_not_wait_for_ever() -> None:
    with (
        opened(App(answer), Pods(), connect_timeout=0.3) as (forwarder, _),
        connect(forwarder) as sock,
    ):
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert 0.2 < time.monotonic() - began < 2


def test_new_connections_go_to_the_newest_ready_pod() -> None:
    pods = Pods(pod("a"))
    with opened(App(answer), pods) as (forwarder, _):
        assert ask(forwarder) == "from a\n"
        pods.set(pod("a"), pod("bb", ready=False))
        assert ask(forwarder) == "from a\n"
        pods.set(pod("a"), pod("bb"))
        until(lambda: ask(forwarder) == "from bb\n", 1)
        pods.set(pod("a"), pod("bb", deleting=True))
        until(lambda: ask(forwarder) == "from a\n", 1)


def test_nobody_is_sent_to_a_pod_that_is_being_deleted() -> None:
    pods = Pods(pod("a", deleting=True))
    app = App(answer)
    with opened(app, pods) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"x")
        time.sleep(0.1)
        assert app.dialed == []
        pods.set(pod("a", deleting=True), pod("bb"))
        assert read_all(sock) == b"from bb\n"


def test_an_open_connection_stays_while_its_pod_is_deleted_gracefully() -> None:
    pods = Pods(pod("a"))
    with opened(App(echo), pods) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"one")
        assert sock.recv(10) == b"one"
        pods.set(pod("a", deleting=True), pod("bb"))
        sock.sendall(b"two")
        assert sock.recv(10) == b"two"


def test_a_pod_that_is_gone_is_left_within_a_second() -> None:
    pods = Pods(pod("a"))
    with opened(App(echo), pods) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"one")
        assert sock.recv(10) == b"one"
        pods.set(pod("bb"))
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert time.monotonic() - began < 1
        assert ask_echo(forwarder) == b"x"


def ask_echo(forwarder: PortForwarder) -> bytes:
    with connect(forwarder) as sock:
        sock.sendall(b"x")
        return sock.recv(1)


def test_a_silent_connection_moves_on_when_its_pod_is_gone() -> None:
    pods = Pods(pod("a"))
    app = App(answer)
    with opened(app, pods) as (forwarder, _), connect(forwarder) as sock:
        until(lambda: app.dialed == ["a"])
        time.sleep(0.05)
        pods.set(pod("bb"))
        until(lambda: app.dialed == ["a", "bb"])
        sock.sendall(b"late\n")
        assert read_all(sock) == b"from bb\n"


def test_a_failed_dial_is_tried_again_while_the_client_waits() -> None:
    app = App(answer)
    app.failing = [
        DevloopError.of(Code.CLUSTER_UNREACHABLE, "away"),
        OSError("reset"),
        ConnectionRefusedError("refused"),
    ]
    with opened(app, Pods(pod("a"))) as (forwarder, events):
        assert ask(forwarder) == "from a\n"
        assert len(app.dialed) == 4
        assert states(events) == [("listening", ""), ("ready", "a")]


def test_the_user_hears_of_a_port_that_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_REPORT_AFTER", 0.1)
    app = App(answer)
    app.refusing = [ConnectionRefusedError("nobody listens")] * 15
    with opened(app, Pods(pod("a"))) as (forwarder, events):
        assert ask(forwarder) == "from a\n"
        until(lambda: states(events)[-1] == ("ready", "a"))
        assert states(events)[2] == ("waiting", "a")
        assert "nobody listens" in {e.reason for e in events if isinstance(e, ForwardChanged)}


def test_a_port_where_nobody_listens_yet_is_tried_again_with_the_same_request() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("connection refused")] * 3
    with opened(app, Pods(pod("a"))) as (forwarder, _):
        assert ask(forwarder) == "from a\n"
        assert len(app.dialed) == 4


def test_retries_go_to_the_newest_pod() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("connection refused")] * 5
    pods = Pods(pod("a"))
    with opened(app, pods) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"x")
        until(lambda: len(app.dialed) >= 2)
        app.refusing.clear()
        pods.set(pod("a"), pod("bb"))
        assert read_all(sock) == b"from bb\n"


def test_a_crowd_does_not_storm_a_port_that_refuses() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("connection refused")] * 6
    with opened(app, Pods(pod("a"))) as (forwarder, _), ThreadPoolExecutor(64) as crowd:
        assert set(crowd.map(lambda _: ask(forwarder), range(64))) == {"from a\n"}
        assert len(app.dialed) == 64 + 6


def test_a_stream_that_breaks_in_an_answer_resets_the_client() -> None:
    def half(name: str, end: socket.socket) -> None:
        end.recv(100)
        end.sendall(b"half of")
        time.sleep(0.1)

    app = App(half)
    with opened(app, Pods(pod("a"))) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"x")
        assert sock.recv(100) == b"half of"
        app.pairs[0].refusing = ConnectionResetError("lost connection")
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def test_a_request_that_may_have_been_read_is_not_sent_twice() -> None:
    app = App(echo)
    with opened(app, Pods(pod("a"))) as (forwarder, _):
        with connect(forwarder) as sock:
            sock.sendall(b"POST")
            assert sock.recv(100) == b"POST"
        with connect(forwarder) as sock:
            until(lambda: len(app.pairs) == 2)
            app.pairs[1].refusing = None
            app.pairs[1].receive = lambda: None  # type: ignore[method-assign]
            sock.sendall(b"POST")
            time.sleep(0.1)

            def broken() -> bytes | None:
                raise ConnectionResetError("lost")

            app.pairs[1].receive = broken  # type: ignore[method-assign]
            app.kill()
            with pytest.raises(ConnectionResetError):
                sock.recv(10)
        assert app.dialed == ["a", "a"]


@pytest.mark.parametrize("half_close", [True, False])
def test_big_bodies_both_ways(half_close: bool) -> None:
    size = 50 * MB
    blob = os.urandom(MB)
    sent = hashlib.sha256()

    with opened(App(echo, half_close=half_close), Pods(pod("a"))) as (forwarder, _):
        with connect(forwarder) as sock:

            def upload() -> None:
                for _ in range(size // MB):
                    sock.sendall(blob)
                    sent.update(blob)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=upload)
            thread.start()
            got = hashlib.sha256()
            count = 0
            while count < size:
                data = sock.recv(MB)
                assert data, count
                got.update(data)
                count += len(data)
            thread.join()
            if half_close:
                assert sock.recv(1) == b""
        assert (count, got.digest()) == (size, sent.digest())


def test_a_slow_reader_does_not_fill_the_memory() -> None:
    written = threading.Event()
    sizes: list[int] = []

    def flood(name: str, end: socket.socket) -> None:
        end.settimeout(0.3)
        total = 0
        try:
            while total < 64 * MB:
                total += end.send(b"x" * 65536)
        except TimeoutError:
            pass
        sizes.append(total)
        written.set()
        end.settimeout(10)
        end.sendall(b"end")

    with opened(App(flood), Pods(pod("a"))) as (forwarder, _), connect(forwarder) as sock:
        assert written.wait(10)
        assert sizes[0] < 16 * MB  # the kernel's buffers and one of ours
        assert len(read_all(sock)) == sizes[0] + 3


def test_a_slow_reader_gets_the_whole_answer() -> None:
    def big(name: str, end: socket.socket) -> None:
        end.recv(10)
        end.sendall(b"x" * 8 * MB)

    with opened(App(big), Pods(pod("a"))) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"go")
        time.sleep(0.5)
        total = 0
        while data := sock.recv(MB):
            total += len(data)
            time.sleep(0.001)
        assert total == 8 * MB


def test_an_early_answer_to_an_unfinished_upload_arrives_whole() -> None:
    def too_large(name: str, end: socket.socket) -> None:
        end.recv(10)
        end.sendall(b"413 too large")
        end.shutdown(socket.SHUT_WR)
        time.sleep(0.2)

    with opened(App(too_large), Pods(pod("a"))) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"x" * 200000)
        time.sleep(0.1)
        assert read_all(sock) == b"413 too large"


@pytest.mark.parametrize("half_close", [True, False])
def test_a_client_that_has_finished_sending_gets_its_answer(half_close: bool) -> None:
    def late(name: str, end: socket.socket) -> None:
        end.recv(100)
        time.sleep(0.3)
        end.sendall(b"late ")
        time.sleep(0.3)
        end.sendall(b"answer")

    app = App(late, half_close=half_close)
    with opened(app, Pods(pod("a"))) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"request")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"late answer"


def test_a_half_close_is_passed_on_where_the_stream_can() -> None:
    def count(name: str, end: socket.socket) -> None:
        end.sendall(f"{len(read_all(end))} bytes".encode())

    with opened(App(count), Pods(pod("a"))) as (forwarder, _), connect(forwarder) as sock:
        sock.sendall(b"x" * 1000)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"1000 bytes"


def test_a_client_that_closes_ends_its_stream_where_it_cannot_be_told() -> None:
    app = App(echo, half_close=False)
    with opened(app, Pods(pod("a"))) as (forwarder, _):
        with connect(forwarder) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        until(lambda: app.pairs[0].fileno() < 0, 4)


def test_64_connections_at_once() -> None:
    with opened(App(echo), Pods(pod("a"))) as (forwarder, _), ThreadPoolExecutor(64) as crowd:

        def talk(number: int) -> bool:
            blob = bytes([number]) * 100_000
            with connect(forwarder) as sock:
                sock.sendall(blob)
                sock.shutdown(socket.SHUT_WR)
                return read_all(sock) == blob

        assert all(crowd.map(talk, range(128)))
        names = [t.name for t in threading.enumerate() if t.name.startswith("devloop-dial")]
        assert len(names) <= 16


def test_a_look_at_the_port_alone_dials_nobody_after_it_left() -> None:
    app = App(answer)
    pods = Pods()
    with opened(app, pods) as (forwarder, _):
        connect(forwarder).close()
        time.sleep(0.1)
        pods.set(pod("a"))
        assert ask(forwarder) == "from a\n"
        assert app.dialed == ["a"]


def test_idle_connections_cost_nothing() -> None:
    app = App(echo, half_close=False)
    with opened(app, Pods(pod("a"))) as (forwarder, _):
        socks = [connect(forwarder) for _ in range(20)]
        for sock in socks:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        for sock in socks[:10]:
            sock.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        before = resource.getrusage(resource.RUSAGE_SELF)
        receives = sum(p.receives for p in app.pairs)
        time.sleep(0.6)
        after = resource.getrusage(resource.RUSAGE_SELF)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert spent < 0.1
        assert sum(p.receives for p in app.pairs) == receives
        for sock in socks:
            sock.close()


def test_events_tell_the_story() -> None:
    pods = Pods()
    with opened(App(answer), pods) as (_, events):
        until(lambda: len(events) == 2)
        pods.set(pod("a"))
        until(lambda: len(events) == 3)
        pods.set(pod("a"))
        pods.set(pod("a", deleting=True), pod("bb"))
        until(lambda: len(events) == 4)
        pods.set()
        until(lambda: len(events) == 5)
    assert states(events) == [
        ("listening", ""),
        ("waiting", ""),
        ("ready", "a"),
        ("ready", "bb"),
        ("waiting", ""),
        ("closed", ""),
    ]


def test_a_busy_port_is_refused_at_start_with_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        forwarder = PortForwarder(
            [("web", 0, 80), ("api", port, 80)], App(answer), Pods(), lambda _: None
        )
        with pytest.raises(DevloopError) as caught:
            forwarder.start()
        forwarder.close()
    assert caught.value.code == "env/port-busy"
    assert str(port) in caught.value.diagnosis.message
    assert f"pid {os.getpid()}" in (caught.value.diagnosis.cause or "")


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/dev/fd").iterdir()}


def is_reset(sock: socket.socket) -> bool:
    try:
        sock.recv(1)
    except ConnectionResetError:
        return True
    return False


def test_closing_ends_everything() -> None:
    pods = Pods(pod("a"))
    app = App(echo)
    descriptors = open_descriptors()
    with opened(app, pods) as (forwarder, events):
        busy, waiting = connect(forwarder), connect(forwarder)
        busy.sendall(b"x")
        assert busy.recv(1) == b"x"
        port = forwarder.locals[0]
        app.delay = 30.0
        slow = connect(forwarder)
        until(lambda: len(app.dialed) == 3)
    assert not pods.watched
    assert states(events)[-1] == ("closed", "")
    for sock in (busy, waiting, slow):
        with sock:
            assert is_reset(sock)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    assert not [t for t in threading.enumerate() if t.name.startswith("devloop")]
    assert open_descriptors() <= descriptors


def test_the_port_can_be_opened_again_at_once() -> None:
    pods = Pods(pod("a"))
    with opened(App(answer), pods) as (forwarder, _):
        assert ask(forwarder) == "from a\n"
        port = forwarder.locals[0]
    again = PortForwarder([("web", port, 80)], App(answer), pods, lambda _: None)
    again.start()
    again.close()


def test_several_ports() -> None:
    with opened(App(answer), Pods(pod("a")), ports=3) as (forwarder, events):
        for port in forwarder.locals:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(b"x")
                assert read_all(sock) == b"from a\n"
        ports = {e.port for e in events if isinstance(e, ForwardChanged)}
        assert ports == {8080, 8081, 8082}
