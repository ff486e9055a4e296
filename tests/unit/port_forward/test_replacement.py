"""What clients see while the process behind the port is replaced, in its pod or in another."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from devloop.model import ContainerView
from tests.support.waiting import until
from tests.unit.port_forward.fakes import App, Pods, connect, echo, opened
from tests.unit.port_forward.fakes import pod as bare_pod

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.model import PodView
    from tests.unit.port_forward.fakes import Forwarded, Pair

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


def pod(name: str, *, image: str = "app:1", container: str = "c1", ready: bool = True) -> PodView:
    main = ContainerView(name="main", image=image, container_id=container)
    return dataclasses.replace(bare_pod(name, ready=ready), phase="Running", containers=(main,))


class Site(App):
    """Answers HTTP requests with `version`; `stuck` requests stay without an answer until their
    process is killed. `requests` are those that any process has read."""

    def __init__(self) -> None:
        super().__init__(self._site)
        self.version = 1
        self.stuck = threading.Event()
        self.requests: list[bytes] = []

    def _site(self, _name: str, end: socket.socket) -> None:
        while data := end.recv(65536):
            self.requests.append(data)
            if self.stuck.is_set():
                end.recv(1)
                return
            body = str(self.version).encode()
            end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def answer(sock: socket.socket) -> int:
    got = b""
    while b"\r\n\r\n" not in got or not got.partition(b"\r\n\r\n")[2]:
        data = sock.recv(65536)
        if not data:
            raise ConnectionResetError("ended without an answer")
        got += data
    return int(got.partition(b"\r\n\r\n")[2])


def ask(sock: socket.socket, request: bytes = GET) -> int:
    sock.sendall(request)
    return answer(sock)


def refuse(site: Site, times: int) -> None:
    site.refusing = [ConnectionRefusedError("connection refused") for _ in range(times)]


# --- another pod -------------------------------------------------------------------------------


def test_a_kept_connection_moves_to_the_new_pod_between_two_requests() -> None:
    pods, site = Pods(pod("a")), Site()
    with opened(site, pods) as forwarder, connect(forwarder) as sock:
        assert ask(sock) == 1
        pods.set(pod("a"), pod("bb", image="app:2"))
        until(lambda: site.pairs[0].fileno() < 0)
        site.version = 2
        assert ask(sock) == 2
        assert site.dialed == ["a", "bb"]


def test_a_request_under_way_is_finished_by_the_old_pod_and_the_next_goes_to_the_new() -> None:
    pods = Pods(pod("a"))
    read, go = threading.Event(), threading.Event()

    def slow(name: str, end: socket.socket) -> None:
        while end.recv(65536):
            read.set()
            go.wait(30)
            end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%2d" % len(name))

    site = App(slow)
    with opened(site, pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        assert read.wait(30)
        pods.set(pod("a"), pod("bb", image="app:2"))
        forwarder.turn_over()
        go.set()
        assert answer(sock) == 1
        assert ask(sock) == 2


def test_a_silent_connection_is_dialled_anew_for_servers_that_speak_first() -> None:
    def greet(name: str, end: socket.socket) -> None:
        if name == "bb":
            end.sendall(b"hello from bb")
        end.recv(1)

    pods = Pods(pod("a"))
    site = App(greet)
    with opened(site, pods) as forwarder, connect(forwarder) as sock:
        until(lambda: site.attached == 1)
        forwarder.turn_over()
        pods.set(pod("a"), pod("bb", image="app:2"))
        assert sock.recv(100) == b"hello from bb"


def test_other_protocols_stay_with_a_pod_that_lives() -> None:
    pods = Pods(pod("a"))
    with opened(App(echo), pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"\x16one")
        assert sock.recv(10) == b"\x16one"
        pods.set(pod("a"), pod("bb", image="app:2"))
        forwarder.turn_over()
        sock.sendall(b"two")
        assert sock.recv(10) == b"two"


def test_a_dial_that_was_under_way_to_the_old_pod_is_not_used() -> None:
    pods, site = Pods(pod("a")), Site()
    site.gate.clear()
    with opened(site, pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        until(lambda: site.dialed == ["a"])
        pods.set(pod("a"), pod("bb", image="app:2"))
        forwarder.turn_over()
        site.gate.set()
        assert answer(sock) == 1
        assert site.dialed == ["a", "bb"]
        assert site.requests == [GET]


# --- another process in the same pod -----------------------------------------------------------


def test_a_kept_connection_survives_the_end_of_its_process() -> None:
    site = Site()
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        assert ask(sock) == 1
        site.kill()
        until(lambda: site.pairs[0].fileno() < 0)
        site.version = 2
        refuse(site, 3)
        assert ask(sock) == 2


def test_a_safe_request_that_nobody_answered_is_asked_again() -> None:
    site = Site()
    site.stuck.set()
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        until(lambda: len(site.requests) == 1)
        site.stuck.clear()
        site.version = 2
        refuse(site, 2)
        site.kill()
        assert answer(sock) == 2
        assert site.requests == [GET, GET]


def test_an_unsafe_request_that_nobody_answered_is_not_asked_again() -> None:
    site = Site()
    site.stuck.set()
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(POST)
        until(lambda: len(site.requests) == 1)
        site.stuck.clear()
        site.kill()
        with pytest.raises(ConnectionResetError):
            answer(sock)
        assert site.requests == [POST]


def test_an_unsafe_request_that_was_refused_is_asked_again() -> None:
    site = Site()
    refuse(site, 3)
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        assert ask(sock, POST) == 1


def test_a_request_that_kills_every_process_is_given_up() -> None:
    def die(_name: str, end: socket.socket) -> None:
        end.recv(65536)

    site = App(die)
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        assert sock.recv(100) == b""
        assert len(site.dialed) == 4


def test_a_connection_that_ended_before_anything_was_said_is_made_again() -> None:
    """The old process took it from its queue and was killed."""
    site = Site()
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        until(lambda: site.attached == 1)
        forwarder.turn_over()
        site.kill()
        until(lambda: len(site.dialed) == 2)
        assert ask(sock, POST) == 1


HEAD, BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"half"


def test_a_cut_answer_that_the_client_has_seen_is_reset_and_not_asked_again() -> None:
    def cut(_name: str, end: socket.socket) -> None:
        end.recv(65536)
        end.sendall(HEAD + BODY[:2])
        end.recv(1)

    site = App(cut)
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        assert sock.recv(1000).endswith(b"ha")
        forwarder.turn_over()
        site.pairs[0].refusing = ConnectionResetError("lost connection")
        site.kill()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        assert site.dialed == ["a"]


def advancing(forwarder: Forwarded, true: Callable[[], bool]) -> None:
    """Let time pass until something comes true."""

    def moved() -> bool:
        forwarder.loop.advance(0.05)
        return true()

    until(moved)


class Cut(Site):
    """The first process writes the head of an answer and no more."""

    def _site(self, name: str, end: socket.socket) -> None:
        if self.version > 1:
            super()._site(name, end)
            return
        if request := end.recv(65536):  # else it was a probe
            self.requests.append(request)
            end.sendall(HEAD)
            end.recv(1)


@pytest.mark.parametrize("wait", [0.02, 4.0], ids=["at once", "late"])
def test_an_answer_whose_process_is_killed_in_the_middle_is_asked_for_again(wait: float) -> None:
    pods, site = Pods(pod("a")), Cut()
    with opened(site, pods, manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        until(lambda: len(site.requests) == 1)
        pods.set(pod("a", image="app:2"))
        forwarder.turn_over()
        forwarder.loop.advance(wait)
        site.version = 2
        refuse(site, 2)
        site.kill()
        advancing(forwarder, lambda: len(site.requests) == 2)
        assert answer(sock) == 2


def test_a_process_that_was_overtaken_may_be_killed_in_the_middle_of_an_answer() -> None:
    """It was started for an image that the pod does not ask for any more."""
    one, two, three = (f"app@sha256:{n}" for n in (1, 2, 3))
    pods, site = Pods(pod("a", image=one)), Cut()
    with opened(site, pods, manual=True) as forwarder, connect(forwarder) as sock:
        until(lambda: site.prepared == ("a",))
        pods.set(pod("a", image=two))
        pods.set(pod("a", image=three))
        refuse(site, 2)
        sock.sendall(GET)
        advancing(forwarder, lambda: len(site.requests) == 1)
        forwarder.loop.advance(1)
        site.version = 3
        site.kill()
        advancing(forwarder, lambda: len(site.requests) == 2)
        assert answer(sock) == 3


def test_an_answer_that_says_how_long_it_is_is_asked_again_before_anybody_knows_why() -> None:
    """The runtime tells of a process' end up to a second late, and the watch may be later still."""
    pods, site = Pods(pod("a")), Cut()
    with opened(site, pods, manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        advancing(forwarder, lambda: len(site.requests) == 1)
        for _ in range(12):
            forwarder.loop.advance(0.1)
        site.version = 2
        site.kill()
        advancing(forwarder, lambda: len(site.requests) == 2)
        assert answer(sock) == 2


def test_an_unsafe_request_is_not_asked_again_in_the_middle_of_its_answer() -> None:
    pods, site = Pods(pod("a")), Cut()
    with opened(site, pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(POST)
        assert sock.recv(100) == HEAD
        pods.set(pod("a", image="app:2"))
        site.version = 2
        site.kill()
        with pytest.raises(ConnectionResetError):
            answer(sock)
        assert site.requests == [POST]


class Tardy(Cut):
    """The second dial has its stream only when nobody wants it any more."""

    def __call__(self, pod: PodView, port: int | str, cancel: Cancel) -> Pair:
        stream = super().__call__(pod, port, cancel)
        if len(self.dialed) == 2:
            cancel.wait(30)
        return stream


def test_a_probe_that_comes_back_after_the_end_is_let_go() -> None:
    pods, site = Pods(pod("a")), Tardy()
    with opened(site, pods) as forwarder, connect(forwarder) as sock:
        sock.sendall(POST)
        assert sock.recv(100) == HEAD
        pods.set(pod("a", image="app:2"))
        until(lambda: len(site.dialed) == 2)
    assert site.dialed == ["a", "a"]
    assert all(pair.fileno() < 0 for pair in site.pairs)


def test_a_probe_that_waits_for_a_refusal_ends_with_the_rest() -> None:
    pods, site = Pods(pod("a")), Cut()
    with opened(site, pods, manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(POST)
        assert sock.recv(100) == HEAD
        pods.set(pod("a", image="app:2"))
        until(lambda: site.attached == 2)
        forwarder.turn_over()
    assert all(pair.fileno() < 0 for pair in site.pairs)


def test_an_answer_is_not_kept_back_for_long() -> None:
    """One that comes in drops, with its length and without; one that is big, one of events."""
    sent = threading.Semaphore(0)

    def drops(_name: str, end: socket.socket) -> None:
        kind = end.recv(65536)
        if kind.startswith(b"GET /big"):
            end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + bytes(70000))
        elif kind.startswith(b"GET /events"):
            end.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        elif kind.startswith(b"GET /chunks"):
            end.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        else:
            end.sendall(HEAD)
        sent.release()
        end.recv(1)

    with opened(App(drops), Pods(pod("a")), manual=True) as forwarder:
        for path, waits in (("/", 2.0), ("/chunks", 0.1), ("/big", 0), ("/events", 0)):
            with connect(forwarder) as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert sent.acquire(timeout=30)
                forwarder.turn_over()
                for _ in range(round(waits / 0.1)):
                    sock.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        sock.recv(1)
                    sock.settimeout(30)
                    forwarder.loop.advance(0.101)
                assert sock.recv(100000).startswith(b"HTTP/1.1 200 OK")


def test_the_next_replacement_takes_over_a_connection_that_tries() -> None:
    """The one client whose dial was to show whether the pod works again is not waited for."""
    pods, site = Pods(pod("a")), Site()
    with (
        opened(site, pods, manual=True) as forwarder,
        connect(forwarder) as first,
        connect(forwarder) as second,
    ):
        assert [ask(first), ask(second)] == [1, 1]
        pods.set(pod("a", image="app:2"))
        until(lambda: site.pairs[1].fileno() < 0)
        refuse(site, 1)
        first.sendall(GET)
        second.sendall(GET)
        until(lambda: site.attached == 3)  # the probe, which is refused
        forwarder.turn_over()
        forwarder.loop.advance(0.01)
        until(lambda: site.attached == 4)  # the trial, which is quiet for 8 ms
        forwarder.turn_over()
        site.version = 3
        pods.set(pod("a", image="app:3", container="c1"))
        refuse(site, 1)
        advancing(forwarder, lambda: len(site.requests) == 4)
        assert [answer(first), answer(second)] == [3, 3]


def test_nobody_is_sent_to_a_process_that_is_about_to_be_killed() -> None:
    pods, site = Pods(pod("a")), Site()
    with opened(site, pods) as forwarder, connect(forwarder) as kept:
        assert ask(kept) == 1
        pods.set(pod("a", image="app:2"))
        until(lambda: site.pairs[0].fileno() < 0)
        kept.sendall(POST)
        with connect(forwarder) as fresh:
            fresh.sendall(POST)
            until(lambda: len(site.dialed) >= 4)  # probes, with nothing said
            assert site.requests == [GET]
            site.version = 2
            refuse(site, 3)
            assert answer(kept) == 2
            assert answer(fresh) == 2
        assert site.requests == [GET, POST, POST]


def test_the_new_container_ends_the_waiting_for_the_old_process() -> None:
    pods, site = Pods(pod("a")), Site()
    with opened(site, pods) as forwarder, connect(forwarder) as sock:
        assert ask(sock) == 1
        pods.set(pod("a", image="app:2"))
        until(lambda: site.pairs[0].fileno() < 0)
        sock.sendall(GET)
        forwarder.turn_over()
        assert site.requests == [GET]
        site.version = 2
        pods.set(pod("a", image="app:2", container="c2", ready=False))
        assert answer(sock) == 2


def test_what_the_old_process_left_is_done_by_the_new_one() -> None:
    """The runtime tells of the old process's end late: the new one's first answer is enough."""
    pods, site = Pods(pod("a")), Site()
    site.stuck.set()
    with opened(site, pods) as forwarder, connect(forwarder) as hanging:
        hanging.sendall(GET)
        until(lambda: len(site.requests) == 1)
        site.stuck.clear()
        site.version = 2
        refuse(site, 3)
        with connect(forwarder) as fresh:
            assert ask(fresh) == 2
        assert answer(hanging) == 2


def test_a_lone_client_does_not_wait_for_the_runtime_to_tell_of_the_end() -> None:
    """Nobody else is there to find out that the old process has gone."""
    pods, site = Pods(pod("a")), Site()
    site.stuck.set()
    with opened(site, pods) as forwarder, connect(forwarder) as alone:
        alone.sendall(GET)
        until(lambda: len(site.requests) == 1)
        site.stuck.clear()
        site.version = 2
        refuse(site, 3)
        pods.set(pod("a", image="app:2"))
        assert answer(alone) == 2


def test_streams_of_the_old_process_end_when_the_new_container_runs() -> None:
    pods = Pods(pod("a"))
    with opened(App(echo), pods, manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"\x16one")
        assert sock.recv(10) == b"\x16one"
        pods.set(pod("a", image="app:2"))
        forwarder.turn_over()
        pods.set(pod("a", image="app:2", container="c2"))
        forwarder.loop.advance(0.9)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_restart_without_a_word_from_the_cluster_is_survived_by_a_crowd() -> None:
    pods, site = Pods(pod("a")), Site()
    with opened(site, pods) as forwarder, ThreadPoolExecutor(32) as crowd:

        def visit(number: int) -> list[int]:
            with connect(forwarder) as sock:
                return [ask(sock) for _ in range(20)]

        visits = [crowd.submit(visit, n) for n in range(64)]
        for version in range(2, 5):
            seen = len(site.requests)
            until(lambda seen=seen: len(site.requests) > seen + 100)  # type: ignore[misc]
            refuse(site, 2)
            site.version = version
            site.kill()
        for done in visits:
            versions = done.result(30)
            assert versions == sorted(versions)


# --- clients between two requests --------------------------------------------------------------


def test_a_parked_client_may_leave() -> None:
    pods, site = Pods(pod("a")), Site()
    with opened(site, pods) as forwarder:
        with connect(forwarder) as sock:
            assert ask(sock) == 1
            pods.set(pod("bb"))
            until(lambda: site.pairs[0].fileno() < 0)
        forwarder.turn_over()
        assert site.dialed == ["a"]


def test_a_parked_client_is_closed_cleanly_in_the_end() -> None:
    site = Site()
    with opened(site, Pods(pod("a")), manual=True) as forwarder, connect(forwarder) as sock:
        assert ask(sock) == 1
        site.kill()
        until(lambda: site.pairs[0].fileno() < 0)
        forwarder.turn_over()
        forwarder.loop.advance(60)
        assert sock.recv(1) == b""


def test_an_announced_end_is_passed_on_at_once() -> None:
    """The runtime would tell of it a second later."""

    def last(_name: str, end: socket.socket) -> None:
        end.recv(65536)
        end.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        end.recv(1)

    site = App(last)
    with opened(site, Pods(pod("a"))) as forwarder, connect(forwarder) as sock:
        sock.sendall(GET)
        got = b""
        while data := sock.recv(100):
            got += data
        assert got.endswith(b"ok")
        until(lambda: site.pairs[0].fileno() < 0)


def test_quiet_streams_give_signs_of_life() -> None:
    app = App(echo)
    with opened(app, Pods(pod("a")), manual=True) as forwarder, connect(forwarder) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        forwarder.loop.advance(60)
        forwarder.loop.advance(60)
        assert app.pairs[0].pings == 2


def test_pods_to_come_are_announced_to_the_dialer() -> None:
    pods, app = Pods(pod("a")), App(echo)
    with opened(app, pods):
        until(lambda: app.prepared == ("a",))
        pods.set(pod("a"), pod("bb", image="app:2", ready=False))
        until(lambda: app.prepared == ("a", "bb"))


def test_250_connections_at_once_through_a_replacement() -> None:
    pods, site = Pods(pod("a")), Site()
    with opened(site, pods) as forwarder, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(forwarder)) for _ in range(250)]
        assert [ask(sock) for sock in socks] == [1] * 250
        pods.set(pod("a"), pod("bb", image="app:2"))
        until(lambda: all(pair.fileno() < 0 for pair in site.pairs[:250]))
        site.version = 2
        for sock in socks:
            sock.sendall(GET)
        assert [answer(sock) for sock in socks] == [2] * 250


def test_a_request_to_a_pod_being_deleted_is_asked_of_its_successor() -> None:
    """The runtime would tell a second late that the old one has ended."""
    pods, site = Pods(pod("a")), Site()
    site.stuck.set()
    with (
        opened(site, pods) as forwarder,
        connect(forwarder) as safe,
        connect(forwarder) as unsafe,
    ):
        safe.sendall(GET)
        unsafe.sendall(POST)
        until(lambda: len(site.requests) == 2)
        site.stuck.clear()
        site.version = 2
        leaving = dataclasses.replace(pod("a"), deleting=True)
        pods.set(leaving, pod("bb", image="app:2"))
        assert answer(safe) == 2
        unsafe.setblocking(False)
        with pytest.raises(BlockingIOError):
            unsafe.recv(1)
        assert site.requests.count(POST) == 1
