"""Against servers and proxies on local sockets."""

from __future__ import annotations

import base64
import contextlib
import http.server
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from devloop.base import net
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.net_tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = urllib3.Timeout(connect=3, read=5)


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: list[Any]
    bodies: list[int]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers.get("Upgrade"):
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nearly")
            self.wfile.write(self.rfile.read(4))
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_PUT(self) -> None:
        self.bodies.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
        self.do_GET()


@contextlib.contextmanager
def served(handler: type[http.server.BaseHTTPRequestHandler], **members: Any) -> Iterator[int]:
    tls = members.pop("tls", None)
    bound = type("Bound", (handler,), {"connections": [], "bodies": [], **members})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="devloop-origin")
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class ConnectProxy(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, str]]

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection(("127.0.0.1", int(port))) as far:
            self.send_response(200)
            self.end_headers()
            up = threading.Thread(target=self.pump, args=(self.connection, far))
            up.start()
            self.pump(far, self.connection)
            up.join()
        assert host

    @staticmethod
    def pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for k8s.test and proxy.test in one file."""
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:k8s.test,DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=k8s.test", "-addext", names, "-keyout", "key", "-out", "cert"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both"
    both.write_text((folder / "key").read_text() + (folder / "cert").read_text())
    return both


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_tls(certificate: Path) -> ssl.SSLContext:
    ca = certificate.read_text().partition("-----BEGIN CERTIFICATE-----")
    return tls_context(ca=ca[1] + ca[2], cert="", key="", insecure=False)


def direct(_: str) -> str:
    return ""


@contextlib.contextmanager
def client(**options: Any) -> Iterator[net.HttpClient]:
    options.setdefault("proxy", direct)
    made = net.HttpClient(**options)
    try:
        yield made
    finally:
        made.close()


def get(http: net.HttpClient, url: str, **more: Any) -> bytes:
    return http.request("GET", url, headers={}, timeout=TIMEOUT, **more).data


def test_connections_are_kept_and_send_without_delay() -> None:
    connections: list[Any] = []
    with served(Origin, connections=connections) as port, client() as http:
        assert [get(http, f"http://localhost:{port}/") for _ in range(3)] == [b"ok"] * 3
        shutter = net.Shutter()
        answer = http.open(
            "GET", f"http://localhost:{port}/", headers={}, timeout=TIMEOUT, shutter=shutter
        )
        sock: Any = answer.connection
        assert sock.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert answer.read() == b"ok"
    assert len(connections) == 1


def test_a_proxy_is_given_the_user_and_password_of_its_url(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    asked: list[tuple[str, str]] = []
    with (
        served(Origin, tls=server_tls) as origin,
        served(ConnectProxy, asked=asked) as proxy,
        client(tls=client_tls, proxy=lambda _: f"http://me:p%40ss@127.0.0.1:{proxy}") as http,
    ):
        assert get(http, f"https://k8s.test:{origin}/") == b"ok"
    assert asked == [(f"k8s.test:{origin}", "Basic " + base64.b64encode(b"me:p@ss").decode())]


def test_a_proxy_that_speaks_tls_is_spoken_to_in_tls(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    asked: list[tuple[str, str]] = []
    with (
        served(Origin, tls=server_tls) as origin,
        served(ConnectProxy, asked=asked, tls=server_tls) as proxy,
        client(
            tls=client_tls, proxy_tls=client_tls, proxy=lambda _: f"https://127.0.0.1:{proxy}"
        ) as http,
    ):
        assert get(http, f"https://k8s.test:{origin}/") == b"ok"
        cancel = Cancel()
        assert get(http, f"https://k8s.test:{origin}/", cancel=cancel) == b"ok"
    assert len(asked) == 1


def test_a_proxy_that_speaks_tls_may_be_unverified(server_tls: ssl.SSLContext) -> None:
    insecure = tls_context(ca="", cert="", key="", insecure=True)
    with (
        served(Origin, tls=server_tls) as origin,
        served(ConnectProxy, asked=[], tls=server_tls) as proxy,
        client(
            tls=insecure, proxy_tls=insecure, proxy=lambda _: f"https://127.0.0.1:{proxy}"
        ) as http,
    ):
        assert get(http, f"https://other.test:{origin}/") == b"ok"


def test_a_socks_proxy_without_its_library_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with (
        client(proxy=lambda _: "socks5://me:secret@proxy:1080") as http,
        pytest.raises(net.ProxyUnsupported, match=r"socks5://proxy:1080 .*PySocks"),
    ):
        get(http, "https://k8s.test/")


def test_a_cancel_before_there_is_a_socket_is_not_lost() -> None:
    connections: list[Any] = []
    with served(Origin, connections=connections) as port, client() as http:
        shutter = net.Shutter()
        shutter.shut()
        with pytest.raises(net.BROKEN):
            http.open(
                "GET", f"http://localhost:{port}/", headers={}, timeout=TIMEOUT, shutter=shutter
            )


def test_a_server_that_never_shakes_hands_can_be_cancelled(client_tls: ssl.SSLContext) -> None:
    """TLS takes the socket over while it shakes hands."""
    cancel = Cancel()
    with socket.create_server(("127.0.0.1", 0)) as silent, client(tls=client_tls) as http:

        def accept() -> None:
            taken, _ = silent.accept()
            with taken:
                taken.recv(1)  # the client's first message: it waits for ours
                cancel.set()
                while taken.recv(65536):
                    pass

        thread = threading.Thread(target=accept, name="devloop-silent")
        thread.start()
        long = urllib3.Timeout(connect=60, read=60)
        with pytest.raises(Cancelled):
            http.request(
                "GET",
                f"https://127.0.0.1:{silent.getsockname()[1]}/",
                headers={},
                timeout=long,
                cancel=cancel,
            )
        thread.join()


def test_a_late_shut_does_not_reach_the_next_call_on_the_same_connection() -> None:
    with served(Origin) as port, client() as http:
        first, second = net.Shutter(), net.Shutter()
        url = f"http://localhost:{port}/"
        http.open("GET", url, headers={}, timeout=TIMEOUT, shutter=first, whole=True)
        answer = http.open("GET", url, headers={}, timeout=TIMEOUT, shutter=second)
        first.shut()
        assert answer.read() == b"ok"


def test_a_body_may_take_longer_to_send_than_a_connection_to_open() -> None:
    """The server reads only after the connect timeout has gone by."""
    body = b"x" * (32 << 20)
    waited = threading.Event()
    bodies: list[int] = []

    class Slow(Origin):
        def do_PUT(self) -> None:
            waited.wait(0.3)
            super().do_PUT()

    with served(Slow, bodies=bodies) as port, client() as http:
        short = urllib3.Timeout(connect=0.1, read=20)
        url = f"http://localhost:{port}/"
        http.request("PUT", url, headers={}, body=body, timeout=short)
    assert bodies == [len(body)]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_upgraded_socket_is_taken_with_what_came_early(
    scheme: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    tls = server_tls if scheme == "https" else None
    with served(Origin, tls=tls) as port, client(tls=client_tls) as http:
        answer = http.open(
            "GET",
            f"{scheme}://localhost:{port}/",
            headers={"Connection": "Upgrade", "Upgrade": "echo"},
            timeout=TIMEOUT,
            shutter=net.Shutter(),
        )
        assert answer.status == 101
        sock, rest = net.take_socket(answer)
        with sock:
            sock.settimeout(30)
            sock.sendall(b"ping")
            while len(rest) < 9 and (data := sock.recv(100)):
                rest += data
    assert rest == b"earlyping"


def test_an_upgrade_within_a_proxys_tls_is_refused(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        served(Origin, tls=server_tls) as origin,
        served(ConnectProxy, asked=[], tls=server_tls) as proxy,
        client(
            tls=client_tls, proxy_tls=client_tls, proxy=lambda _: f"https://127.0.0.1:{proxy}"
        ) as http,
    ):
        answer = http.open(
            "GET",
            f"https://k8s.test:{origin}/",
            headers={"Connection": "Upgrade", "Upgrade": "echo"},
            timeout=TIMEOUT,
            shutter=net.Shutter(),
        )
        with pytest.raises(net.ProxyUnsupported):
            net.take_socket(answer)
