"""Visitors who never stop asking, while the real app behind the port forward is replaced."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from devloop.cluster.api.pod_ports import PodPorts
from tests.support.port_forward_lab import Browser, Lab, forwarded, wrong_answers
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kind, pytest.mark.docker]

IN_PLACE, ROLLING = 10, 5
MB = 1024 * 1024


class Counter:
    """Which version comes next: one Deployment serves all the tests of this file."""

    def __init__(self) -> None:
        self.version = 0

    def next(self) -> int:
        self.version += 1
        return self.version


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = Lab(f"forward-{secrets.token_hex(4)}", versions=IN_PLACE + ROLLING + 10)
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture(scope="module")
def counter() -> Counter:
    return Counter()


@pytest.fixture
def port(lab: Lab) -> Iterator[int]:
    """A local port that leads to the app."""
    with (
        contextlib.closing(PodPorts(lab.connection)) as dial,
        forwarded([("web", 0, 8080)], dial, lab.feed) as (port,),
    ):
        yield port


@pytest.mark.parametrize(("how", "times"), [("in_place", IN_PLACE), ("rolling", ROLLING)])
def test_visitors_see_no_failure_and_nothing_old(
    lab: Lab, counter: Counter, port: int, how: str, times: int
) -> None:
    with (
        Browser("127.0.0.1", port, keep_alive=True) as kept,
        Browser("127.0.0.1", port, keep_alive=False) as fresh,
    ):
        until(lambda: min(kept.version, fresh.version) >= 0)
        for _ in range(times):
            version = counter.next()
            getattr(lab, how)(version)
            until(lambda v=version: min(kept.version, fresh.version) >= v, 60)  # type: ignore[misc]
        until(lab.settled, 60)
    assert wrong_answers(kept, fresh) == []
    assert kept.connections == 1


def test_a_slow_request_is_answered_by_the_new_process(
    lab: Lab, counter: Counter, port: int
) -> None:
    """It was under way when its process was killed, and asking again is safe."""
    until(lab.settled, 60)
    with ThreadPoolExecutor(1) as pool:

        def slow() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request("GET", "/slow")
                return int(connection.getresponse().read())
            finally:
                connection.close()

        asked = pool.submit(slow)
        time.sleep(0.5)
        version = counter.next()
        lab.in_place(version)
        assert asked.result(60) == version


def test_a_kept_socket_without_a_request_is_not_touched(
    lab: Lab, counter: Counter, port: int
) -> None:
    until(lab.settled, 60)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    assert int(connection.getresponse().read()) == counter.version
    sock = connection.sock
    for how in (lab.in_place, lab.rolling):
        how(counter.next())
        time.sleep(0.5)
        until(lab.settled, 60)
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(60)
    connection.request("GET", "/")
    assert int(connection.getresponse().read()) == counter.version
    assert connection.sock is sock
    connection.close()


def test_200_parallel_connections(lab: Lab, counter: Counter, port: int) -> None:
    until(lab.settled, 60)

    def visit(_: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/")
            return int(connection.getresponse().read())
        finally:
            connection.close()

    with ThreadPoolExecutor(200) as crowd:
        assert set(crowd.map(visit, range(400))) == {counter.version}


def test_one_client_that_does_not_read_stops_nobody(lab: Lab, port: int) -> None:
    """On a shared connection its answer would fill everybody's."""
    until(lab.settled, 60)
    body = b"x" * (8 * MB)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stuck:

        def upload() -> None:
            stuck.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )

        thread = threading.Thread(target=upload, name="port-forward-lab-upload")
        thread.start()
        time.sleep(0.5)
        with Browser("127.0.0.1", port, keep_alive=False) as visitor:
            until(lambda: len(visitor.visits) >= 50, 30)
        assert wrong_answers(visitor) == []
        got = 0
        while got < len(body):
            data = stuck.recv(MB)
            assert data
            got += len(data)
        thread.join(30)


def test_100_mb_both_ways(lab: Lab, port: int) -> None:
    until(lab.settled, 60)
    body = os.urandom(MB) * 100
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/", body=body)
    answer = connection.getresponse()
    digest = hashlib.sha256()
    while data := answer.read(MB):
        digest.update(data)
    connection.close()
    assert digest.digest() == hashlib.sha256(body).digest()
