"""Tunnels into a pod and what keeps them, against a node on a local socket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import threading
import time
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api import pod_ports, spdy
from devloop.cluster.api.pod_ports import PodPorts
from devloop.cluster.api.tunnel import Tunnel, TunnelPort
from devloop.cluster.api.upgrade import UpgradedStream
from devloop.errors import DevloopError
from tests.support.kubeconfig import connected
from tests.support.waiting import until
from tests.unit.port_forward.fakes import next_of, pod
from tests.unit.port_forward.test_websocket import unmasked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection

ECHO, REFUSING, BROKEN, ENDING, MUTE, DEAF, PINGING, FLOOD = 80, 81, 82, 83, 84, 85, 86, 87


def fields(block: bytes) -> dict[str, str]:
    words, pos = [], 4
    while pos < len(block):
        length = int.from_bytes(block[pos : pos + 4], "big")
        words.append(block[pos + 4 : pos + 4 + length].decode())
        pos += 4 + length
    return dict(zip(words[::2], words[1::2], strict=True))


def control(kind: int, body: bytes, flags: int = 0) -> bytes:
    head = (0x80030000 | kind).to_bytes(4, "big")
    return head + bytes((flags,)) + len(body).to_bytes(3, "big") + body


class InWebSocket:
    """The server's side of SPDY in a WebSocket, its messages cut at any place."""

    def __init__(self, sock: socket.socket, head: str) -> None:
        self._sock = sock
        self._data = b""
        key = re.search("Sec-WebSocket-Key: (.*)\r", head)
        assert key is not None
        assert "Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r" in head
        text = f"{key[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()
        accept = base64.b64encode(hashlib.sha1(text).digest()).decode()
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    def recv(self, _: int) -> bytes:
        while (found := unmasked_or_none(self._data)) is None:
            if not (data := self._sock.recv(65536)):
                return b""
            self._data += data
        opcode, payload, self._data = found
        return payload if opcode == 2 else b""

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), 100):
            part = data[start : start + 100]
            self._sock.sendall(bytes((0x82, len(part))) + part)


def unmasked_or_none(data: bytes) -> tuple[int, bytes, bytes] | None:
    if len(data) < 8:
        return None
    length, start = data[1] & 0x7F, 2
    if length == 126:
        length, start = int.from_bytes(data[2:4], "big"), 4
    return unmasked(data) if len(data) >= start + 4 + length else None


class Node:
    """An API server whose pods' ports each behave in one way. `refusal` is an HTTP answer given
    instead of an upgrade, but not of one to a WebSocket if `websocket`; one that `closes_late`
    gives a kept-alive connection up when the next request comes. `told` are the frames that
    came."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.refusal = b""
        self.websocket = False
        self.closes_late = False
        self.heads: list[str] = []
        self.told: list[spdy.Frame] = []
        self.socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name="devloop-test-node", daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def tunnels(self) -> int:
        return sum(sock.fileno() >= 0 for sock in self.socks)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.socks.append(sock)
            self._start(lambda sock=sock: self._serve(sock))  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(4096) or b"\r\n\r\n"
            self.heads.append(head.decode())
            if "websocket" in self.heads[-1] and self.websocket:
                self._talk(InWebSocket(sock, self.heads[-1]))
                return
            if self.refusal:
                sock.sendall(self.refusal)
                if self.closes_late:
                    sock.recv(65536)
                return
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n"
                b"X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n"
            )
            self._talk(sock)

    def _talk(self, sock: socket.socket | InWebSocket) -> None:
        frames, unpack, ports = spdy.SpdyFrames(), zlib.decompressobj(), {}
        while data := sock.recv(65536):
            frames.feed(data)
            for frame in frames:
                self.told.append(frame)
                if frame.kind == 1:
                    said = fields(unpack.decompress(frame.payload[6:]))
                    if said["streamtype"] == "data":
                        ports[frame.stream] = int(said["port"])
                        self._open(sock, frame.stream, int(said["port"]))
                elif frame.kind == 0 and ports.get(frame.stream) == ECHO and frame.payload:
                    sock.sendall(spdy.data(frame.stream, frame.payload))
                elif frame.kind == spdy.PING:
                    sock.sendall(spdy.ping(frame.payload))

    def _open(self, sock: socket.socket | InWebSocket, data: int, port: int) -> None:
        if port == DEAF:
            return
        error = data - 2
        for stream in (error, data):
            sock.sendall(control(spdy.SYN_REPLY, stream.to_bytes(4, "big") + b"ignored"))
        if port == REFUSING:
            # As containerd does: the end of the data comes before the reason for it.
            sock.sendall(spdy.data(data, b"", final=True))
            time.sleep(0.01)
            sock.sendall(spdy.data(error, b"dial tcp4: connect: connection refused"))
        if port in (REFUSING, ENDING):
            sock.sendall(spdy.data(data, b"", final=True) + spdy.data(error, b"", final=True))
        if port == BROKEN:
            sock.sendall(spdy.reset(data))
        if port == PINGING:
            sock.sendall(spdy.ping(b"\0\0\0\2") + spdy.data(data, b"x"))
        if port == FLOOD:
            sock.sendall(spdy.data(data, b"x" * 32768) * 30)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


@pytest.fixture
def connection(node: Node, tmp_path: Path) -> Iterator[Connection]:
    with connected(f"http://127.0.0.1:{node.listener.getsockname()[1]}", tmp_path) as connection:
        yield connection


@pytest.fixture
def ports(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodPorts]:
    # On a busy machine an answer takes its time; a tunnel that counts as dead is another one.
    monkeypatch.setattr(pod_ports, "_REPLY", 30.0)
    monkeypatch.setattr(pod_ports, "_FRESH_REPLY", 30.0)
    ports = PodPorts(connection, spare=1)
    yield ports
    ports.close()


def opened(ports: PodPorts, port: int) -> TunnelPort:
    stream = ports(pod("web"), port, Cancel())
    assert isinstance(stream, TunnelPort)
    return stream


def warm(ports: PodPorts) -> None:
    """Have a spare tunnel that waits for its first use."""
    ports.prepare([pod("web")])
    until(lambda: ports._idle.get(pod("web").uid))


def test_the_request_and_the_bytes_of_a_stream(node: Node, ports: PodPorts) -> None:
    stream = opened(ports, ECHO)
    assert stream.receive() is None
    assert stream.send(b"hello") == 5
    assert stream.flush()
    assert next_of(stream) == b"hello"
    assert not stream.shutdown_write()
    stream.close()
    stream.close()
    assert node.heads[0].startswith("POST /api/v1/namespaces/default/pods/web/portforward HTTP")
    assert "Authorization: Bearer secret" in node.heads[0]


def test_a_refusal_is_told_although_the_end_comes_first(ports: PodPorts) -> None:
    stream = opened(ports, REFUSING)
    with pytest.raises(ConnectionRefusedError, match="refused"):
        next_of(stream)
    with pytest.raises(ConnectionRefusedError):
        stream.receive()
    stream.close()


def test_the_end_and_the_break_of_a_stream(ports: PodPorts) -> None:
    ended = opened(ports, ENDING)
    assert next_of(ended) == b""
    assert ended.receive() == b""
    ended.close()
    broken = opened(ports, BROKEN)
    with pytest.raises(ConnectionResetError):
        next_of(broken)
    broken.close()


def test_a_tunnel_is_used_again_after_a_refusal_and_after_an_answer(
    node: Node, ports: PodPorts
) -> None:
    warm(ports)
    for _ in range(5):
        stream = opened(ports, REFUSING)
        with pytest.raises(ConnectionRefusedError):
            next_of(stream)
        stream.close()
        stream = opened(ports, ECHO)
        stream.send(b"x")
        assert next_of(stream) == b"x"
        stream.close()
    assert len(node.heads) <= 2  # one that was used and one spare


@pytest.mark.parametrize("port", [REFUSING, MUTE])
def test_a_tunnel_with_bytes_that_nobody_may_read_is_not_used_again(
    node: Node, ports: PodPorts, port: int
) -> None:
    warm(ports)
    stream = opened(ports, port)
    stream.send(b"lost")
    stream.close()
    until(lambda: any(sock.fileno() < 0 for sock in node.socks))


def test_a_half_read_answer_costs_the_tunnel(node: Node, ports: PodPorts) -> None:
    warm(ports)
    stream = opened(ports, FLOOD)
    stream.close()
    until(lambda: ports._idle.get(pod("web").uid))
    both = [opened(ports, MUTE) for _ in range(2)]  # on the spare one and on the one that was used
    until(lambda: any(sock.fileno() < 0 for sock in node.socks))
    for stream in both:
        stream.close()


def test_spare_tunnels_wait_and_are_replaced(node: Node, ports: PodPorts) -> None:
    warm(ports)
    first, second = opened(ports, ECHO), opened(ports, ECHO)
    until(lambda: len(node.heads) >= 3)
    for stream in (first, second):
        stream.send(b"y")
        assert next_of(stream) == b"y"
        stream.close()


def test_a_spare_tunnel_that_died_is_passed_over(node: Node, ports: PodPorts) -> None:
    warm(ports)
    for sock in tuple(node.socks):
        sock.shutdown(socket.SHUT_RDWR)
    stream = opened(ports, ECHO)
    stream.send(b"z")
    assert next_of(stream) == b"z"
    stream.close()


def test_a_spare_tunnel_that_says_nothing_is_passed_over(
    node: Node, ports: PodPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_ports, "_REPLY", 0.1)
    monkeypatch.setattr(pod_ports, "_FRESH_REPLY", 0.2)
    warm(ports)
    with pytest.raises(DevloopError) as caught:
        ports(pod("web"), DEAF, Cancel())
    assert caught.value.code == "cluster/unreachable"


def test_a_pod_that_is_not_there_yet_is_tried_again_until_it_is(
    node: Node, ports: PodPorts
) -> None:
    node.refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    ports.prepare([pod("web")])
    until(lambda: len(node.heads) == 2)
    node.refusal = b""
    until(lambda: node.tunnels == 1)


def test_idle_tunnels_are_asked_for_a_sign_of_life(
    node: Node, ports: PodPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_ports, "_CHECK", 0.05)
    warm(ports)
    until(lambda: sum(frame.kind == spdy.PING for frame in node.told) >= 2)
    assert len(node.heads) == 1


def test_pods_that_are_not_asked_any_more_keep_no_tunnels(node: Node, ports: PodPorts) -> None:
    warm(ports)
    ports.prepare([])
    until(lambda: node.tunnels == 0)


def test_the_servers_pings_are_answered(node: Node, ports: PodPorts) -> None:
    stream = opened(ports, PINGING)
    assert next_of(stream) == b"x"
    stream.ping()
    until(
        lambda: {f.payload for f in node.told if f.kind == spdy.PING} == {b"\0\0\0\1", b"\0\0\0\2"}
    )
    stream.close()


def test_a_role_without_create_or_a_proxy_without_spdy_gets_spdy_in_a_websocket(
    node: Node, ports: PodPorts
) -> None:
    node.refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    node.websocket = True
    first = opened(ports, ECHO)
    assert [head.split(" ")[0] for head in node.heads] == ["POST", "GET"]
    ports.prepare([pod("web")])
    first.close()
    for _ in range(3):
        stream = opened(ports, ECHO)
        assert stream.send(b"x" * 300) == 300
        got = b""
        while len(got) < 300:
            got += next_of(stream)
        stream.close()
        refusing = opened(ports, REFUSING)
        with pytest.raises(ConnectionRefusedError):
            next_of(refusing)
        refusing.close()
    assert [head.split(" ")[0] for head in node.heads].count("POST") == 1
    assert len(node.heads) <= 4


@pytest.mark.parametrize("closes_late", [False, True])
def test_where_neither_carrier_gets_through_both_are_tried_again(
    closes_late: bool, node: Node, ports: PodPorts
) -> None:
    node.closes_late = closes_late
    node.refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    for _ in range(2):
        with pytest.raises(DevloopError):
            ports(pod("web"), ECHO, Cancel())
    assert [head.split(" ")[0] for head in node.heads] == ["POST", "GET"] * 2


def test_a_pod_that_is_not_there_is_told_at_once(node: Node, ports: PodPorts) -> None:
    node.refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(DevloopError) as caught:
        ports(pod("web"), ECHO, Cancel())
    assert caught.value.code == "cluster/not-found"
    assert len(node.heads) == 1


def test_a_node_that_does_not_answer_can_be_cancelled(ports: PodPorts) -> None:
    cancel = Cancel()
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        ports(pod("web"), DEAF, cancel)
    timer.join()


def test_a_stream_never_holds_more_than_a_bound() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        stream = TunnelPort(Tunnel(UpgradedStream(ours)), 1, 3, lambda tunnel: tunnel.close())
        sent = 0
        while taken := stream.send(b"x" * 65536):
            sent += taken
            assert sent < 64 << 20
        assert not stream.flush()
        stream.close()


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(1, 90))
def test_frames_survive_any_cut(payloads: list[bytes], cut: int) -> None:
    whole = b"".join(spdy.data(7, p, final=not p) for p in payloads) + spdy.ping(b"abcd")
    frames, found = spdy.SpdyFrames(), []
    for start in range(0, len(whole), cut):
        frames.feed(whole[start : start + cut])
        found += list(frames)
    assert [(f.stream, f.payload, f.final) for f in found[:-1]] == [(7, p, not p) for p in payloads]
    assert (found[-1].kind, found[-1].payload) == (spdy.PING, b"abcd")


def test_another_version_of_the_protocol_is_an_error() -> None:
    frames = spdy.SpdyFrames()
    frames.feed(b"\x80\x02\x00\x06\x00\x00\x00\x00")
    with pytest.raises(ConnectionResetError):
        list(frames)
