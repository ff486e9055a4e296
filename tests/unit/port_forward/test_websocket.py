"""WebSockets against a server on a local socket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.websocket import WebSocket, WebSocketFrames, frame, open_websocket
from devloop.errors import DevloopError
from tests.support.kubeconfig import connected
from tests.support.waiting import until
from tests.unit.port_forward.fakes import next_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
PATH = "/api/v1/namespaces/shop/pods/web-1/portforward"


def served(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame from server to client: not masked."""
    length = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    if length < 126:
        return head + bytes([length]) + payload
    if length < 65536:
        return head + b"\x7e" + length.to_bytes(2, "big") + payload
    return head + b"\x7f" + length.to_bytes(8, "big") + payload


def unmasked(data: bytes) -> tuple[int, bytes, bytes]:
    """The first of a client's frames: opcode, payload, what follows."""
    length, start = data[1] & 0x7F, 2
    assert data[1] & 0x80, "a client must mask"
    if length == 126:
        length, start = int.from_bytes(data[2:4], "big"), 4
    elif length == 127:
        length, start = int.from_bytes(data[2:10], "big"), 10
    mask, body = data[start : start + 4], data[start + 4 : start + 4 + length]
    payload = bytes(b ^ mask[i % 4] for i, b in enumerate(body))
    return data[0] & 0x0F, payload, data[start + 4 + length :]


class Api:
    """An API server that answers each connection by the next of `scripts`."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.scripts: list[Callable[[socket.socket, str], None]] = []
        self.requests: list[str] = []
        self._thread = threading.Thread(target=self._serve, name="devloop-test-api", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += sock.recv(4096)
                self.requests.append(head.decode())
                self.scripts.pop(0)(sock, head.decode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(30)


def header(request: str, name: str) -> str:
    [line] = [li for li in request.split("\r\n") if li.lower().startswith(f"{name.lower()}:")]
    return line.partition(":")[2].strip()


def upgraded(then: Callable[[socket.socket], None]) -> Callable[[socket.socket, str], None]:
    def script(sock: socket.socket, request: str) -> None:
        key = header(request, "Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: two\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            + served(BINARY, b"")
        )
        then(sock)

    return script


def refused(status: int, message: str) -> Callable[[socket.socket, str], None]:
    def script(sock: socket.socket, _request: str) -> None:
        body = json.dumps({"kind": "Status", "message": message, "code": status}).encode()
        sock.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return script


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


@pytest.fixture
def connection(api: Api, tmp_path: Path) -> Iterator[Connection]:
    with connected(api.url, tmp_path) as connection:
        yield connection


def opened(connection: Connection, cancel: Cancel | None = None) -> WebSocket:
    return open_websocket(connection, PATH, "one, two", cancel or Cancel())


def test_the_request_and_the_bytes_of_a_stream(api: Api, connection: Connection) -> None:
    def app(sock: socket.socket) -> None:
        opcode, payload, rest = unmasked(sock.recv(4096))
        assert (opcode, payload, rest) == (BINARY, b"hello", b"")
        sock.sendall(served(BINARY, b"wor") + served(BINARY, b"ld"))
        sock.recv(1)

    api.scripts.append(upgraded(app))
    stream = opened(connection)
    assert stream.receive() is None
    assert stream.send(b"", b"hello") == 5
    assert stream.flush()
    assert next_of(stream) + next_of(stream) == b"world"
    stream.close()
    stream.close()
    request = api.requests[0]
    assert request.startswith(f"GET {PATH} HTTP/1.1\r\n")
    assert header(request, "Sec-WebSocket-Protocol") == "one, two"
    assert header(request, "Authorization") == "Bearer secret"


@pytest.mark.parametrize("how", [served(CLOSE, b"\x03\xe8"), b""])
def test_the_end_of_a_stream(api: Api, connection: Connection, how: bytes) -> None:
    api.scripts.append(upgraded(lambda sock: sock.sendall(served(BINARY, b"bye") + how)))
    stream = opened(connection)
    assert next_of(stream) == b"bye"
    assert next_of(stream) == b""
    assert stream.receive() == b""
    stream.close()


def test_pings_are_answered(api: Api, connection: Connection) -> None:
    answers: list[tuple[int, bytes, bytes]] = []

    def app(sock: socket.socket) -> None:
        sock.sendall(served(PING, b"there?"))
        answers.append(unmasked(sock.recv(100)))
        sock.sendall(served(BINARY, b"done"))

    api.scripts.append(upgraded(app))
    stream = opened(connection)
    assert next_of(stream) == b"done"
    assert answers == [(PONG, b"there?", b"")]
    stream.close()


def test_a_busy_stream_takes_no_more_than_a_bound(api: Api, connection: Connection) -> None:
    go = threading.Event()
    got: list[int] = []

    def app(sock: socket.socket) -> None:
        go.wait(60)
        data, total = b"", 0
        while total < sent:
            data += sock.recv(1 << 20)
            while len(data) >= 8 + (length := int.from_bytes(data[2:4], "big")) > 8:
                data = data[8 + length :]
                total += length
        got.append(total)

    api.scripts.append(upgraded(app))
    stream = opened(connection)
    sent = 0
    while taken := stream.send(b"", b"x" * 65536):
        sent += taken
        assert sent < 64 << 20
    assert not stream.flush()
    go.set()
    until(stream.flush)
    assert next_of(stream) == b""
    assert got == [sent]
    stream.close()


def test_refusals_of_the_api_server(api: Api, connection: Connection) -> None:
    api.scripts.append(refused(404, 'pods "web-1" not found'))
    with pytest.raises(DevloopError) as caught:
        opened(connection)
    assert caught.value.code == "cluster/not-found"


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n", b""])
def test_answers_that_make_no_sense(api: Api, connection: Connection, answer: bytes) -> None:
    api.scripts.append(lambda sock, _: sock.sendall(answer))
    with pytest.raises(DevloopError) as caught:
        opened(connection)
    assert caught.value.code == "cluster/unreachable"


def test_a_silent_server_can_be_cancelled(api: Api, connection: Connection) -> None:
    cancel = Cancel()

    def silent(sock: socket.socket, _request: str) -> None:
        cancel.set()
        sock.recv(1)

    api.scripts.append(silent)
    with pytest.raises(Cancelled):
        opened(connection, cancel)


def test_a_lost_connection_is_an_error(api: Api, connection: Connection) -> None:
    api.scripts.append(upgraded(lambda sock: sock.sendall(b"\xf2\x00")))
    stream = opened(connection)
    with pytest.raises(ConnectionResetError):
        next_of(stream)
    stream.close()


@given(st.binary(max_size=300), st.integers(1, 400))
def test_frames_survive_any_cut(payload: bytes, cut: int) -> None:
    whole = served(BINARY, payload) + served(PING, b"p") + served(BINARY, payload[:5])
    frames = WebSocketFrames()
    found = []
    for start in range(0, len(whole), cut):
        frames.feed(whole[start : start + cut])
        found += list(frames)
    assert found == [(BINARY, payload), (PING, b"p"), (BINARY, payload[:5])]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 1_000_000])
def test_every_form_of_a_length(length: int) -> None:
    frames = WebSocketFrames()
    frames.feed(served(BINARY, b"x" * length))
    assert list(frames) == [(BINARY, b"x" * length)]


def test_fragments_are_put_together() -> None:
    frames = WebSocketFrames()
    frames.feed(served(BINARY, b"\0a", final=False) + served(PING, b""))
    frames.feed(served(0, b"b", final=False) + served(0, b"c") + served(BINARY, b"\0d"))
    assert list(frames) == [(PING, b""), (BINARY, b"\0abc"), (BINARY, b"\0d")]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(served(0, b"b"), id="a continuation without a start"),
        pytest.param(served(BINARY, b"a", final=False) + served(BINARY, b"b"), id="two starts"),
        pytest.param(served(3, b""), id="a reserved opcode for data"),
        pytest.param(served(11, b""), id="a reserved opcode for control"),
        pytest.param(served(PING, b"x" * 126), id="a long control frame"),
        pytest.param(served(PING, b"x", final=False), id="a control frame in parts"),
        pytest.param(b"\xc2\x00", id="reserved bits"),
        pytest.param(b"\x82\x80\0\0\0\0", id="a masked frame"),
    ],
)
def test_what_rfc_6455_does_not_allow_is_refused(wrong: bytes) -> None:
    frames = WebSocketFrames()
    frames.feed(served(BINARY, b"fine") + wrong)
    found = iter(frames)
    assert next(found) == (BINARY, b"fine")
    with pytest.raises(ConnectionResetError):
        next(found)


def test_an_empty_first_part_starts_a_message() -> None:
    frames = WebSocketFrames()
    frames.feed(served(BINARY, b"", final=False) + served(0, b"a"))
    assert list(frames) == [(BINARY, b"a")]


@given(st.binary(max_size=70_000))
def test_masking_can_be_undone(payload: bytes) -> None:
    length = len(payload)
    made = frame(BINARY, payload)
    start = 2 if length < 126 else 4 if length < 65536 else 10
    assert len(made) == start + 4 + length
    if length < 2000:
        assert unmasked(made) == (BINARY, payload, b"")
