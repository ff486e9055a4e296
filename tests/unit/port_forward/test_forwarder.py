"""The port forward over socket pairs: what a client sees while pods come and go."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.errors import Code, DevloopError
from devloop.events import ForwardChanged
from devloop.port_forward import PortForwarder
from devloop.port_forward.settings import ForwardSettings
from tests.support.waiting import until
from tests.unit.port_forward.fakes import (
    App,
    Forwarded,
    Pods,
    answer,
    ask,
    connect,
    echo,
    opened,
    pod,
    read_all,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.events import Event
    from devloop.model import PodView

MB = 1024 * 1024


def test_a_connection_reaches_the_ready_pod() -> None:
    with opened(App(answer), Pods(pod("a"))) as forwarder:
        assert ask(forwarder) == "from a\n"


def test_ipv6_loopback_leads_there_too() -> None:
    with opened(App(answer), Pods(pod("a"))) as forwarder:
        try:
            sock = connect(forwarder, "::1")
        except OSError:
            pytest.skip("no ::1 here")
        with sock:
            sock.sendall(b"x")
            assert read_all(sock) == b"from a\n"


def test_a_connection_made_before_there_is_a_pod_waits_for_one() -> None:
    pods = Pods(pod("a", ready=False))
    app = App(answer)
    with opened(app, pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"early\n")
        forwarder.turn_over()
        assert app.dialed == []
        pods.set(pod("a"))
        assert read_all(sock) == b"from a\n"


def test_a_client_does_not_wait_for_ever() -> None:
    with opened(App(answer), Pods(), manual=True) as forwarder, connect(forwarder) as sock:
        forwarder.turn_over()
        forwarder.loop.advance(61)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_ports_are_opened_and_closed_while_it_runs_and_the_others_stay() -> None:
    with opened(App(echo), Pods(pod("a"))) as forwards, connect(forwards) as sock:
        sock.sendall(b"x")
        assert sock.recv(1)
        more, third = free_port(), free_port()
        forwards.forwarder.change([("web", more, 9000)], [])
        with socket.create_connection(("127.0.0.1", more), timeout=30) as new:
            new.sendall(b"y")
            assert new.recv(1)
            with pytest.raises(DevloopError, match="in use"):
                forwards.forwarder.change([("web", third, 9000), ("api", more, 1)], [])
            assert [e.local for e in forwards.events if isinstance(e, ForwardChanged)].count(
                third
            ) == 0
            # The same local port for another one of the container.
            forwards.forwarder.change([("web", more, 9001)], [("web", more)])
            with contextlib.suppress(ConnectionResetError):
                assert new.recv(1) == b""
        until(lambda: (9001, "ready") in [(e.port, e.state) for e in events_of(forwards)])
        forwards.forwarder.change([], [("web", more)])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", more), timeout=30)
        sock.sendall(b"z")
        assert sock.recv(1)
    assert forwards.bugs == []


def events_of(forwards: Forwarded) -> list[ForwardChanged]:
    return [event for event in forwards.events if isinstance(event, ForwardChanged)]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def test_new_connections_go_to_the_newest_ready_pod() -> None:
    pods = Pods(pod("a"))
    with opened(App(answer), pods) as forwarder:
        assert ask(forwarder) == "from a\n"
        pods.set(pod("a"), pod("bb", ready=False))
        assert ask(forwarder) == "from a\n"
        pods.set(pod("a"), pod("bb"))
        until(lambda: ask(forwarder) == "from bb\n")
        pods.set(pod("a"), pod("bb", deleting=True))
        until(lambda: ask(forwarder) == "from a\n")


def test_nobody_is_sent_to_a_pod_that_is_being_deleted() -> None:
    pods = Pods(pod("a", deleting=True))
    app = App(answer)
    with opened(app, pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"x")
        forwarder.turn_over()
        assert app.dialed == []
        pods.set(pod("a", deleting=True), pod("bb"))
        assert read_all(sock) == b"from bb\n"


def test_an_open_connection_stays_while_its_pod_is_deleted_gracefully() -> None:
    pods = Pods(pod("a"))
    with opened(App(echo), pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"one")
        assert sock.recv(10) == b"one"
        pods.set(pod("a", deleting=True), pod("bb"))
        sock.sendall(b"two")
        assert sock.recv(10) == b"two"


def test_a_pod_that_is_gone_is_left_within_a_second() -> None:
    pods = Pods(pod("a"))
    with opened(App(echo), pods, manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"one")
        assert sock.recv(10) == b"one"
        pods.set(pod("bb"))
        forwarder.loop.advance(0.9)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert ask_echo(forwarder) == b"x"


def ask_echo(forwarder: Forwarded) -> bytes:
    with connect(forwarder) as sock:
        sock.sendall(b"x")
        return sock.recv(1)


def test_a_silent_connection_moves_on_when_its_pod_is_gone() -> None:
    pods = Pods(pod("a"))
    app = App(answer)
    with opened(app, pods) as forwarder, connect(forwarder) as sock:
        until(lambda: app.attached == 1)
        forwarder.turn_over()
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
    with opened(app, Pods(pod("a"))) as forwarder:
        assert ask(forwarder) == "from a\n"
        assert len(app.dialed) == 4
        assert forwarder.states == [("listening", ""), ("ready", "a")]


def test_a_port_that_stays_closed_is_reported() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("nobody listens")] * 15
    settings = ForwardSettings(report_after=0.0)
    with opened(app, Pods(pod("a")), settings=settings) as forwarder:
        assert ask(forwarder) == "from a\n"
        until(lambda: forwarder.states[-1] == ("ready", "a"))
        assert forwarder.states[2] == ("waiting", "a")
        reasons = {e.reason for e in forwarder.events if isinstance(e, ForwardChanged)}
        assert "nobody listens" in reasons


def test_a_port_where_nobody_listens_yet_is_tried_again_with_the_same_request() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("connection refused")] * 3
    with opened(app, Pods(pod("a"))) as forwarder:
        assert ask(forwarder) == "from a\n"
        assert len(app.dialed) == 4


def test_retries_go_to_the_newest_pod() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("connection refused")] * 5
    pods = Pods(pod("a"))
    with opened(app, pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"x")
        until(lambda: len(app.dialed) >= 2)
        app.refusing.clear()
        pods.set(pod("a"), pod("bb"))
        assert read_all(sock) == b"from bb\n"


def test_a_crowd_does_not_storm_a_port_that_refuses() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("connection refused")] * 6
    with opened(app, Pods(pod("a")), manual=True) as forwarder, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(forwarder))]
        socks[0].sendall(b"first")
        until(lambda: len(app.pairs) == 1 and app.pairs[0].fileno() < 0)
        socks += [stack.enter_context(connect(forwarder)) for _ in range(31)]
        for sock in socks[1:]:
            sock.sendall(b"x")
        forwarder.turn_over()
        assert len(app.dialed) == 1
        for tries in range(2, 8):
            forwarder.loop.advance(1)
            until(lambda tries=tries: app.attached == tries)  # type: ignore[misc]
            forwarder.turn_over()
        forwarder.loop.advance(0.01)  # the one that tries is quiet for 8 ms
        assert [read_all(sock) for sock in socks] == [b"from a\n"] * 32
        assert len(app.dialed) == 32 + 6


def test_a_pause_is_over_when_the_loop_says_so_a_tick_before_the_clock_does() -> None:
    app = App(answer)
    app.refusing = [ConnectionRefusedError("connection refused")]
    with opened(app, Pods(pod("a")), manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"x")
        until(lambda: app.attached == 1)
        forwarder.turn_over()
        forwarder.loop.advance(ForwardSettings().shortest_pause - 5e-10)
        until(lambda: app.attached == 2)
        forwarder.turn_over()
        forwarder.loop.advance(0.01)  # it is quiet for 8 ms
        assert read_all(sock) == b"from a\n"


def test_a_stream_that_breaks_in_an_answer_resets_the_client() -> None:
    app = App(half_an_answer)
    with opened(app, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"x")
        assert sock.recv(100) == b"half of"
        forwarder.turn_over()
        app.pairs[0].refusing = ConnectionResetError("lost connection")
        app.kill()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def half_an_answer(_name: str, end: socket.socket) -> None:
    end.recv(100)
    end.sendall(b"half of")
    end.recv(100)


def test_a_request_that_may_have_been_read_is_not_sent_twice() -> None:
    app = App(echo)
    with opened(app, Pods(pod("a"))) as forwarder:
        with connect(forwarder) as sock:
            sock.sendall(b"POST")
            assert sock.recv(100) == b"POST"
        with connect(forwarder) as sock:
            until(lambda: len(app.pairs) == 2)
            app.pairs[1].refusing = None
            app.pairs[1].receive = lambda: None  # type: ignore[method-assign]
            sock.sendall(b"POST")
            until(lambda: app.pairs[1].sent == 4)

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

    with opened(App(echo, half_close=half_close), Pods(pod("a"))) as forwarder:
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
    full = threading.Event()
    sizes: list[int] = []

    def flood(_name: str, end: socket.socket) -> None:
        end.settimeout(0.3)  # nobody takes anything any more
        total = 0
        try:
            while total < 64 * MB:
                total += end.send(b"x" * 65536)
        except TimeoutError:
            pass
        sizes.append(total)
        full.set()
        end.settimeout(30)
        end.sendall(b"end")

    with opened(App(flood), Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        assert full.wait(30)
        assert sizes[0] < 16 * MB  # the kernel's buffers and one of ours
        assert len(read_all(sock)) == sizes[0] + 3


def test_a_slow_reader_gets_the_whole_answer() -> None:
    def big(_name: str, end: socket.socket) -> None:
        end.recv(10)
        end.sendall(b"x" * 8 * MB)

    app = App(big)
    with opened(app, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"go")
        until(lambda: bool(app.pairs) and app.pairs[0].receives > 2)
        forwarder.turn_over()
        total = 0
        while data := sock.recv(65536):
            total += len(data)
            forwarder.turn_over()
        assert total == 8 * MB


def test_an_early_answer_to_an_unfinished_upload_arrives_whole() -> None:
    read = threading.Event()

    def too_large(_name: str, end: socket.socket) -> None:
        end.recv(10)
        end.sendall(b"413 too large")
        end.shutdown(socket.SHUT_WR)
        read.wait(30)

    with opened(App(too_large), Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"x" * 200000)
        assert read_all(sock) == b"413 too large"
        read.set()


@pytest.mark.parametrize("half_close", [True, False])
def test_a_client_that_has_finished_sending_gets_its_answer(half_close: bool) -> None:
    go = threading.Event()

    def late(_name: str, end: socket.socket) -> None:
        end.recv(100)
        go.wait(30)
        end.sendall(b"late ")
        end.sendall(b"answer")

    app = App(late, half_close=half_close)
    with opened(app, Pods(pod("a")), manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"request")
        sock.shutdown(socket.SHUT_WR)
        until(lambda: bool(app.pairs) and app.pairs[0].sent == 7)
        forwarder.loop.advance(4)
        go.set()
        assert read_all(sock) == b"late answer"


def test_a_half_close_is_passed_on_where_the_stream_can() -> None:
    def count(name: str, end: socket.socket) -> None:
        end.sendall(f"{len(read_all(end))} bytes".encode())

    with opened(App(count), Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"x" * 1000)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"1000 bytes"


def test_a_client_that_closes_ends_its_stream_where_the_pod_cannot_be_notified() -> None:
    app = App(echo, half_close=False)
    with opened(app, Pods(pod("a")), manual=True) as forwarder:
        with connect(forwarder) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        forwarder.turn_over()
        forwarder.loop.advance(2)
        assert app.pairs[0].fileno() < 0


def test_64_connections_at_once() -> None:
    with opened(App(echo), Pods(pod("a"))) as forwarder, ThreadPoolExecutor(64) as crowd:

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
    with opened(app, pods) as forwarder:
        connect(forwarder).close()
        forwarder.turn_over()
        pods.set(pod("a"))
        assert ask(forwarder) == "from a\n"
        assert app.dialed == ["a"]


def test_idle_connections_cost_nothing() -> None:
    """No descriptor is watched that stays ready while there is nothing to do."""
    app = App(echo, half_close=False)
    with opened(app, Pods(pod("a")), manual=True) as forwarder, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(forwarder)) for _ in range(20)]
        for sock in socks:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        for sock in socks[:10]:
            sock.shutdown(socket.SHUT_WR)
        forwarder.turn_over()
        receives = sum(p.receives for p in app.pairs)
        turns = forwarder.loop.turns
        forwarder.turn_over()
        assert forwarder.loop.turns - turns <= 12
        assert sum(p.receives for p in app.pairs) == receives


def test_each_change_is_published_once() -> None:
    pods = Pods()
    with opened(App(answer), pods) as forwarder:
        for now in ((), (pod("a"),), (pod("a"),), (pod("a", deleting=True), pod("bb")), ()):
            pods.set(*now)
            forwarder.turn_over()
    assert forwarder.states == [
        ("listening", ""),
        ("waiting", ""),
        ("ready", "a"),
        ("ready", "bb"),
        ("waiting", ""),
        ("closed", ""),
    ]


def test_a_port_may_be_open_at_an_address() -> None:
    app, pods = App(answer), Pods(pod("a"))
    seen: list[Event] = []
    ready = threading.Event()

    def publish(event: Event) -> None:
        seen.append(event)
        ready.set()

    forwarder = PortForwarder([("web", 0, "http", "0.0.0.0", "pod/a")], app, pods, publish)
    forwarder.start()
    try:
        assert ready.wait(10)
        assert isinstance(seen[0], ForwardChanged)
        assert seen[0].port == "http"
        # All of 127/8 leads here on Linux alone.
        host = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
        socket.create_connection((host, seen[0].local), 10).close()
    finally:
        forwarder.close()


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


def served(forwarder: Forwarded, number: int) -> Iterator[socket.socket]:
    """So many connections, each dialed when the one before it has had an answer."""
    for _ in range(number):
        sock = connect(forwarder)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        yield sock


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
    with opened(app, pods) as forwarder:
        busy, waiting = connect(forwarder), connect(forwarder)
        busy.sendall(b"x")
        assert busy.recv(1) == b"x"
        port = forwarder.ports[0]
        app.gate.clear()
        slow = connect(forwarder)
        until(lambda: len(app.dialed) == 3)
    assert not pods.watched
    assert forwarder.states[-1] == ("closed", "")
    for sock in (busy, waiting, slow):
        with sock:
            assert is_reset(sock)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    assert not [t for t in threading.enumerate() if t.name.startswith("devloop")]
    assert open_descriptors() <= descriptors


def test_the_port_can_be_opened_again_at_once() -> None:
    pods = Pods(pod("a"))
    with opened(App(answer), pods) as forwarder:
        assert ask(forwarder) == "from a\n"
        port = forwarder.ports[0]
    again = PortForwarder([("web", port, 80)], App(answer), pods, lambda _: None)
    again.start()
    again.close()


def test_several_ports() -> None:
    with opened(App(answer), Pods(pod("a")), ports=3) as forwarder:
        assert [ask(forwarder, port) for port in range(3)] == ["from a\n"] * 3
        ports = {e.port for e in forwarder.events if isinstance(e, ForwardChanged)}
        assert ports == {8080, 8081, 8082}


@contextlib.contextmanager
def a_broken_neighbour(forwarder: Forwarded, app: App) -> Iterator[None]:
    """A connection to the first port whose stream raises what nobody expects."""
    with connect(forwarder) as broken:
        broken.sendall(b"x")
        assert broken.recv(1) == b"x"
        app.pairs[-1].refusing = ValueError("a frame that makes no sense")
        broken.sendall(b"y")
        yield
        assert is_reset(broken)


def test_a_bug_in_one_connection_resets_that_one_alone(caplog: pytest.LogCaptureFixture) -> None:
    app = App(echo)
    with opened(app, Pods(pod("a")), ports=2) as forwarder, connect(forwarder) as neighbour:
        neighbour.sendall(b"one")
        assert neighbour.recv(10) == b"one"
        with a_broken_neighbour(forwarder, app):
            pass
        neighbour.sendall(b"two")
        assert neighbour.recv(10) == b"two"
        for port in (0, 1):
            with connect(forwarder, port=port) as fresh:
                fresh.sendall(b"new")
                assert fresh.recv(10) == b"new"
        assert "closed" not in dict(forwarder.states)
    assert forwarder.bugs == []
    assert "a frame that makes no sense" in caplog.text
    assert "Traceback" in caplog.text


def test_a_bug_met_in_a_timer_resets_that_connection_alone() -> None:
    app = App(echo)
    with opened(app, Pods(pod("a")), manual=True) as forwarder, contextlib.ExitStack() as stack:
        broken, neighbour = (stack.enter_context(one) for one in served(forwarder, 2))
        app.pairs[0].failing_ping = ValueError("a bug")
        forwarder.loop.advance(61)
        assert is_reset(broken)
        neighbour.sendall(b"y")
        assert neighbour.recv(1) == b"y"
    assert forwarder.bugs == []


def test_a_bug_of_the_forwarding_itself_is_reported_and_closes_the_ports() -> None:
    pods = Pods(pod("a"))

    def broken(service: str) -> tuple[PodView, ...]:
        raise ValueError(f"a bug in what knows the pods of {service}")

    with opened(App(answer), pods) as forwarder:
        pods.current = broken  # type: ignore[method-assign]
        pods.set(pod("bb"))
        until(lambda: bool(forwarder.bugs))
        assert forwarder.states[-1] == ("closed", "")
    (bug,) = forwarder.bugs
    assert isinstance(bug, ValueError)
