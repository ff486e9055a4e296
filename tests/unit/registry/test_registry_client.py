from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.errors import DevloopError
from devloop.registry import credentials, transport
from devloop.registry.client import RegistryClient
from devloop.registry.credentials import RegistryCredentials
from devloop.registry.tokens import parse_challenge
from tests.unit.registry.fake_registry import Handler, State, serving, sha

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

TYPE = "application/vnd.oci.image.manifest.v1+json"
BODY = b'{"schemaVersion":2}'


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def host(state: State) -> Iterator[str]:
    with serving(state) as host:
        yield host


@pytest.fixture
def client(host: str) -> Iterator[RegistryClient]:
    with RegistryClient(
        host, lookup=lambda _: RegistryCredentials(user="me", secret="secret")
    ) as client:
        yield client


def test_a_manifest_goes_there_and_back(client: RegistryClient, host: str, state: State) -> None:
    put = client.put_manifest("shop/web", "t", BODY, TYPE)
    assert (put.digest, put.size) == (sha(BODY), len(BODY))
    head = client.head_manifest("shop/web", "t")
    assert head == put
    got = client.get_manifest("shop/web", put.digest)
    assert got is not None
    assert (got.body, got.media_type, got.digest) == (BODY, TYPE, put.digest)
    assert client.digest(f"{host}/shop/web", "t") == put.digest
    assert client.digest(f"{host}/shop/web", "other") is None
    assert client.get_manifest("shop/web", "other") is None
    assert state.connections == 1


def test_repositories_without_an_image_are_not_listed(client: RegistryClient) -> None:
    assert client.repositories() == ()
    for name in ("shop/web", "api"):
        client.put_manifest(name, "t", BODY, TYPE)
    assert client.repositories() == ("api", "shop/web")
    assert client.delete_manifest("api", sha(BODY)) is True
    assert client.repositories() == ("shop/web",)


def test_a_registry_that_hides_the_digest(client: RegistryClient, state: State) -> None:
    client.put_manifest("a", "t", BODY, TYPE)
    state.hide_digest = True
    assert client.digest("a", "t") == sha(BODY)


def test_a_manifest_that_is_another_is_refused(client: RegistryClient, state: State) -> None:
    wrong = "sha256:" + "0" * 64
    state.manifests[f"a@{wrong}"] = (TYPE, BODY)
    with pytest.raises(DevloopError) as caught:
        client.get_manifest("a", wrong)
    assert caught.value.code == "registry/digest-mismatch"


@pytest.mark.parametrize("absolute", [True, False])
def test_blobs(client: RegistryClient, state: State, absolute: bool) -> None:
    state.absolute = absolute
    digest = client.put_blob("a/b", b"hello")
    assert client.head_blob("a/b", digest) == 5
    assert client.get_blob("a/b", digest) == b"hello"
    assert client.head_blob("a/b", sha(b"no")) is None
    assert client.get_blob("a/b", sha(b"no")) is None
    digest, size = client.put_chunks("a/b", iter([b"one", b"", b"two"]))
    assert (digest, size) == (sha(b"onetwo"), 6)
    assert state.blobs[digest] == b"onetwo"
    assert client.put_chunks("a/b", [])[0] == sha(b"")


def test_a_token_is_asked_for_once_a_scope(client: RegistryClient, state: State) -> None:
    state.auth = "bearer"
    client.ping()
    client.put_manifest("a", "t", BODY, TYPE)
    state.tokens = 2
    for _ in range(3):
        assert client.digest("a", "t") == sha(BODY)
    tokens = [path for _, path, _ in state.requests if path.startswith("/token")]
    assert "service=fake" in tokens[0]
    assert "scope=repository%3Aa%3Apull%2Cpush" in tokens[1]
    assert len(tokens) == 3


def test_an_old_token_is_replaced(client: RegistryClient, state: State) -> None:
    state.auth = "bearer"
    client.ping()
    state.tokens += 10
    client.ping()


def test_an_identity_token(host: str, state: State) -> None:
    state.auth = "bearer"
    with RegistryClient(
        host, lookup=lambda _: RegistryCredentials(identity_token="identity")
    ) as client:
        client.ping()
    assert ("POST", "/token", "") in state.requests


def test_basic_auth(client: RegistryClient, state: State) -> None:
    state.auth = "basic"
    client.ping()
    client.ping()
    assert len(state.requests) == 3


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("known", [None, RegistryCredentials(user="me", secret="wrong")])
def test_wrong_credentials(
    host: str, state: State, auth: str, known: RegistryCredentials | None
) -> None:
    state.auth = auth
    with (
        RegistryClient(host, lookup=lambda _: known) as client,
        pytest.raises(DevloopError) as caught,
    ):
        client.ping()
    assert caught.value.code == "registry/unauthorized"
    assert caught.value.diagnosis.suggestions == (f"docker login {host}",)
    assert "wrong" not in repr(caught.value.diagnosis) + repr(known)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_that_changed_is_asked_for_again_once(host: str, state: State, auth: str) -> None:
    state.auth = auth
    asked: list[str] = []

    def lookup(host: str) -> RegistryCredentials:
        asked.append(host)
        return RegistryCredentials(user="me", secret=password)

    password = "secret"
    with RegistryClient(host, lookup=lookup) as client:
        client.ping()
        client.ping()
        assert len(asked) == 1
        state.password = password = "changed"
        state.tokens += 10
        client.put_manifest("a", "t", BODY, TYPE)
        assert len(asked) == 2
        state.password = "unknown to us"
        state.tokens += 10
        with pytest.raises(DevloopError) as caught:
            client.digest("a", "t")
        assert caught.value.code == "registry/unauthorized"
        assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(404, b"File not found", "text/html"), (200, b"<h1>Hello</h1>", "text/html; charset=utf-8")],
)
def test_a_server_that_is_no_registry_is_named_as_that(
    client: RegistryClient, state: State, status: int, body: bytes, kind: str
) -> None:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        assert isinstance(handler, Handler)
        handler.answer(status, body, Content_Type=kind)
        return True

    state.fault = fault
    with pytest.raises(DevloopError) as caught:
        client.ping()
    assert caught.value.code == "registry/unreachable"
    assert caught.value.diagnosis.message == f"what answers at {client.host} is no registry"
    assert (caught.value.diagnosis.cause or "").startswith(f"GET /v2/ was answered with {status}")


def _fails_with(status: int, body: bytes = b"sorry") -> object:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        assert isinstance(handler, Handler)
        handler.answer(status, body)
        return True

    return fault


@pytest.mark.parametrize(
    ("status", "reading", "pushing"),
    [
        (500, "registry/unreachable", "registry/unreachable"),
        (429, "registry/unreachable", "registry/unreachable"),
        (403, "registry/unauthorized", "registry/unauthorized"),
        (400, "registry/unreachable", "registry/push-failed"),
    ],
)
def test_refusals(
    client: RegistryClient, state: State, status: int, reading: str, pushing: str
) -> None:
    state.fault = _fails_with(status)  # type: ignore[assignment]
    with pytest.raises(DevloopError) as caught:
        client.digest("a", "t")
    assert caught.value.code == reading
    for push in (
        lambda: client.put_blob("a", b"x"),
        lambda: client.put_manifest("a", "t", b"", ""),
    ):
        with pytest.raises(DevloopError) as caught:
            push()
        assert caught.value.code == pushing
        assert "sorry" in (caught.value.diagnosis.cause or "")


def test_a_long_error_page_is_cut(client: RegistryClient, state: State) -> None:
    state.fault = _fails_with(500, b"<html>" + b"x" * 10_000)  # type: ignore[assignment]
    with pytest.raises(DevloopError) as caught:
        client.ping()
    assert len(caught.value.diagnosis.cause or "") < 400


def test_a_connection_that_was_closed_meanwhile_is_opened_again(
    client: RegistryClient, state: State
) -> None:
    client.ping()
    broken: list[int] = []

    def once(handler: BaseHTTPRequestHandler) -> bool:
        if broken:
            return False
        broken.append(1)
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    state.fault = once
    client.ping()
    assert state.connections == 2


def test_nothing_listens() -> None:
    with RegistryClient("localhost:1") as client, pytest.raises(DevloopError) as caught:
        client.ping()
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "registry/unreachable"
    assert diagnosis.message == "the registry localhost:1 does not answer"
    assert diagnosis.cause == "it refused the connection: nothing listens there"


def test_localhost_is_both_addresses() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    state = State()
    from http.server import ThreadingHTTPServer  # noqa: PLC0415 - for this test alone

    class Six(ThreadingHTTPServer):
        address_family = socket.AF_INET6

    handler = type("Bound", (Handler,), {"state": state})
    try:
        server = Six(("::1", 0), handler)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="devloop-six")
    thread.start()
    try:
        with RegistryClient(f"localhost:{server.server_port}") as client:
            client.ping()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_hanging_registry_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_ANSWER", 3600.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cancel = Cancel()
        threading.Timer(0.1, cancel.set).start()
        with (
            RegistryClient(f"127.0.0.1:{silent.getsockname()[1]}") as client,
            pytest.raises(Cancelled),
        ):
            client.ping(cancel)
        with pytest.raises(Cancelled):
            client.ping(cancel)


def test_a_server_that_talks_nonsense() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=talk, name="devloop-nonsense")
        thread.start()
        with (
            RegistryClient(f"127.0.0.1:{server.getsockname()[1]}") as client,
            pytest.raises(DevloopError) as caught,
        ):
            client.ping()
        thread.join()
    assert caught.value.code == "registry/unreachable"


def test_plain_http_elsewhere_gets_no_credentials(
    host: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is not loopback is tried with TLS; the server answers in plain HTTP."""
    state.auth = "basic"
    port = int(host.rpartition(":")[2])
    monkeypatch.setattr(
        "devloop.base.net._addresses",
        lambda *_: [(socket.AF_INET, ("127.0.0.1", port))],
    )
    known = RegistryCredentials(user="me", secret="secret")
    with (
        RegistryClient(f"registry.example:{port}", lookup=lambda _: known) as client,
        pytest.raises(DevloopError) as caught,
    ):
        client.ping()
    assert caught.value.code == "registry/unauthorized"
    assert state.requests
    assert all(authorization == "" for _, _, authorization in state.requests)


def test_challenges() -> None:
    assert parse_challenge('Bearer realm="https://a/t?x=1",service="s", scope="a:b:pull,push"') == (
        "bearer",
        {"realm": "https://a/t?x=1", "service": "s", "scope": "a:b:pull,push"},
    )
    assert parse_challenge("Basic realm=x") == ("basic", {"realm": "x"})
    assert parse_challenge("") == ("", {})


# What the docker CLI keeps.


def config(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "config.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    program = tmp_path / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


AUTH = "bWU6c2U6Y3JldA=="  # me:se:cret


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("localhost:5001", "localhost:5001"),
        ("https://reg.example", "reg.example"),
        ("https://reg.example/v1/", "reg.example"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_auths(tmp_path: Path, key: str, host: str) -> None:
    path = config(tmp_path, {"auths": {key: {"auth": AUTH}}})
    found = credentials.for_host(host, path)
    assert found == RegistryCredentials(user="me", secret="se:cret")
    assert credentials.for_host("other", path) is None


@pytest.mark.parametrize("data", ["", "{", "[]", {"auths": 3}, {"auths": {"h": {"auth": "%"}}}])
def test_a_broken_config_knows_nothing(tmp_path: Path, data: object) -> None:
    assert credentials.for_host("h", config(tmp_path, data)) is None
    assert credentials.for_host("h", tmp_path / "missing.json") is None


def test_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    helper(
        tmp_path,
        monkeypatch,
        "one",
        'read host; [ "$1 $host" = "get a.example" ] || exit 1\n'
        'echo \'{"Username":"u","Secret":"p"}\'',
    )
    helper(tmp_path, monkeypatch, "two", 'echo \'{"Username":"<token>","Secret":"t"}\'')
    config(
        tmp_path,
        {
            "credHelpers": {"a.example": "one"},
            "credsStore": "two",
            "auths": {"c.example": {"identitytoken": "i"}},
        },
    )
    assert credentials.for_host("a.example") == RegistryCredentials(user="u", secret="p")
    assert credentials.for_host("b.example") == RegistryCredentials(identity_token="t")
    helper(tmp_path, monkeypatch, "two", "exit 1")
    assert credentials.for_host("b.example") is None
    assert credentials.for_host("c.example") == RegistryCredentials(identity_token="i")


def test_a_blob_piece_by_piece(client: RegistryClient, state: State) -> None:
    data = bytes(range(256)) * 20_000
    state.blobs[sha(data)] = data
    with client.open_blob("shop/web", sha(data)) as chunks:
        assert chunks is not None
        pieces = list(chunks)
    assert len(pieces) > 1
    assert b"".join(pieces) == data
    with client.open_blob("shop/web", sha(b"other")) as chunks:
        assert chunks is None
    client.ping()
    with client.open_blob("shop/web", sha(data)) as chunks:
        assert chunks is not None
        next(chunks)
    client.ping()


def test_a_blob_that_is_another_is_found_out_at_its_end(
    client: RegistryClient, state: State
) -> None:
    state.blobs[sha(b"wanted")] = b"given"
    with (
        pytest.raises(DevloopError) as caught,
        client.open_blob("shop/web", sha(b"wanted")) as chunks,
    ):
        list(chunks or ())
    assert caught.value.code == "registry/digest-mismatch"


def test_a_blob_is_streamed_with_credentials(client: RegistryClient, state: State) -> None:
    state.auth = "bearer"
    state.blobs[sha(b"x")] = b"x"
    with client.open_blob("shop/web", sha(b"x")) as chunks:
        assert b"".join(chunks or ()) == b"x"


def test_a_blob_whose_connection_breaks(client: RegistryClient, state: State) -> None:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b"some")
        handler.close_connection = True
        return True

    state.fault = fault
    with (
        pytest.raises(DevloopError) as caught,
        client.open_blob("shop/web", sha(b"x")) as chunks,
    ):
        list(chunks or ())
    assert caught.value.code == "registry/unreachable"


def test_cancelling_wakes_a_blob_that_hangs(client: RegistryClient, state: State) -> None:
    ended = threading.Event()

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        handler.wfile.write(b"some")
        handler.wfile.flush()
        ended.wait(30)
        handler.close_connection = True
        return True

    state.fault = fault
    cancel = Cancel()
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    try:
        with (
            pytest.raises(Cancelled),
            client.open_blob("shop/web", sha(b"x"), cancel) as chunks,
        ):
            list(chunks or ())
    finally:
        ended.set()
        timer.join()


def test_a_blob_is_taken_over_from_another_repository(client: RegistryClient, state: State) -> None:
    state.blobs[sha(b"x")] = b"x"
    assert client.mount_blob("shop/web", sha(b"x"), "base/python")
    method, path, _ = state.requests[-1]
    assert (method, "mount=sha256%3A" in path) == ("POST", True)
    assert path.endswith("&from=base%2Fpython")
    state.mounts = False
    assert not client.mount_blob("shop/web", sha(b"x"), "base/python")
    assert not state.uploads, "an upload was left open"


def test_uploads_opened_ahead_save_a_round_trip(client: RegistryClient, state: State) -> None:
    client.ready_uploads("shop/web", 2)
    client.ready_uploads("shop/web", 2)
    assert [method for method, _, _ in state.requests] == ["POST", "POST"]
    state.requests.clear()
    digests = [client.put_blob("shop/web", data) for data in (b"one", b"two", b"three")]
    assert [method for method, _, _ in state.requests] == ["PUT", "PUT", "POST", "PUT"]
    assert all(state.blobs[digest] for digest in digests)


def test_an_upload_that_the_registry_forgot_is_opened_again(
    client: RegistryClient, state: State
) -> None:
    client.ready_uploads("shop/web", 1)
    state.fault = _refuse_once(state)
    digest = client.put_blob("shop/web", b"data")
    assert state.blobs[digest] == b"data"
    assert [method for method, _, _ in state.requests] == ["POST", "PUT", "POST", "PUT"]


def _refuse_once(state: State) -> Callable[[BaseHTTPRequestHandler], bool]:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        state.fault = None
        assert isinstance(handler, Handler)
        handler.answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        return True

    return fault
