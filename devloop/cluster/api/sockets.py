"""Connections to one API server that can be shut from another thread at any moment.

urllib3 speaks HTTP and TLS; what it lacks is a hold on the socket while it still connects, shakes
hands or waits for the first byte, which is where a cancelled worker would hang. Nothing here knows
about Kubernetes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection

__all__ = ["Endpoint", "Shutter", "Wire", "tls_context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to connect. `prefix` is the server URL's path, without the last slash."""

    host: str
    port: int
    secure: bool
    prefix: str = ""
    tls: ssl.SSLContext | None = None
    tls_server_name: str = ""
    proxy: str = ""


class Shutter:
    """Holds one socket; `shut` makes every call blocked on it return at once.

    `shut` may come before there is a socket; it is shut then as soon as it is adopted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.closed = False

    def adopt(self, sock: socket.socket) -> None:
        with self._lock:
            if self.closed:
                raise ConnectionAbortedError("closed before it was connected")
            self._socket = sock

    def shut(self) -> None:
        with self._lock:
            self.closed = True
            sock = self._socket
        if sock is not None:
            # The plain socket's method: SSLSocket's own would drop the TLS state that a reader
            # in another thread is using. Linux also wakes a connect() that is under way.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _keep_alive(sock: socket.socket) -> None:
    """Notice a peer that vanished (sleep, VPN) within a minute even when nothing is sent."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _dial(host: str, port: int, timeout: float | None, shutter: Shutter) -> socket.socket:
    failure: OSError | None = None
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            shutter.adopt(sock)
            _keep_alive(sock)
            sock.settimeout(timeout)
            sock.connect(address)
        except OSError as error:
            failure = failure or error
            sock.close()
        else:
            return sock
    raise failure or OSError(f"no address for {host}")


class _Plain(HTTPConnection):
    shutter: Shutter

    def _new_conn(self) -> socket.socket:
        return _dial(self._dns_host, self.port, _seconds(self.timeout), self.shutter)


class _Secure(HTTPSConnection):
    shutter: Shutter

    def _new_conn(self) -> socket.socket:
        return _dial(self._dns_host, self.port, _seconds(self.timeout), self.shutter)

    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            self.shutter.adopt(self.sock)


def _seconds(timeout: Any) -> float | None:
    return timeout if isinstance(timeout, (int, float)) else None


class Wire:
    """One HTTP connection with its shutter. Only its owner may call anything but `shut`."""

    def __init__(self, endpoint: Endpoint, *, connect_timeout: float) -> None:
        self.shutter = Shutter()
        host, port = endpoint.host, endpoint.port
        tunnel = None
        if endpoint.proxy and endpoint.secure:
            proxy = urlsplit(endpoint.proxy)
            tunnel = (host, port)
            host, port = proxy.hostname or "", proxy.port or 80
        self.http: _Plain | _Secure
        if endpoint.secure:
            self.http = _Secure(
                host,
                port,
                timeout=connect_timeout,
                ssl_context=endpoint.tls,
                cert_reqs=endpoint.tls.verify_mode if endpoint.tls else None,
                server_hostname=endpoint.tls_server_name or None,
                assert_hostname=endpoint.tls_server_name or None,
            )
            if tunnel:
                self.http.set_tunnel(*tunnel)
        else:
            self.http = _Plain(host, port, timeout=connect_timeout)
        self.http.shutter = self.shutter

    def connect(self) -> None:
        if self.http.sock is None:
            self.http.connect()

    @property
    def alive(self) -> bool:
        """Whether the server has not closed it while it was idle."""
        return bool(self.http.is_connected)

    def read_timeout(self, seconds: float | None) -> None:
        """How long a read may stay silent; until now the connect timeout was in force, which
        urllib3 would set again with each request and answer."""
        self.http.timeout = seconds
        if self.http.sock is not None:
            self.http.sock.settimeout(seconds)

    def shut(self) -> None:
        self.shutter.shut()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.http.close()


def tls_context(*, ca: str, cert: str, key: str, insecure: bool) -> ssl.SSLContext:
    """A client context from PEM texts; raises ssl.SSLError for texts that are no certificates."""
    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cadata=ca or None)
        # Clusters' own authorities often lack extensions that strict checking (Python 3.13's
        # default) asks for and Go, hence kubectl, does not.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cert:
        _load_pair(context, cert, key)
    return context


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """OpenSSL's Python face takes files only: the key lies in one for a moment, for us alone."""
    handle, name = tempfile.mkstemp(prefix="devloop-")
    try:
        with os.fdopen(handle, "w", encoding="ascii", errors="replace") as file:
            file.write(f"{cert}\n{key}\n")
        context.load_cert_chain(name)
    finally:
        Path(name).unlink(missing_ok=True)
