"""HTTP over kept-alive connections that another thread can shut at any moment.

urllib3 does the HTTP, the TLS, the pools and the proxies; what it lacks is a hold on the socket
while it still connects, shakes hands or waits for the first byte, which is where a cancelled worker
would hang. Its connections here open their sockets themselves and leave them with the call's
`Shutter`. Nothing here knows what is asked for, retries, or turns errors into words.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
)

from devloop.base.sockets import keep_alive, shut

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from devloop.base.cancel import Cancel


# What a connection that breaks raises, wherever it breaks.
BROKEN = (OSError, http.client.HTTPException, HTTPError)


class Shutter:
    """Holds the socket that one call uses; `shut` makes whatever blocks on it return at once.

    `shut` may come before there is a socket: the next one is then refused. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._copied = False
        self.closed = False

    def hold(self, sock: socket.socket, *, copy: bool = False) -> None:
        """`copy`: a duplicate, for a socket that TLS is about to take over. Raises
        ConnectionAbortedError when it was shut already."""
        with self._lock:
            self._drop()
            self._socket, self._copied = (sock.dup() if copy else sock), copy
            closed = self.closed
        if closed:
            raise ConnectionAbortedError("closed before it was connected")

    def shut(self) -> None:
        with self._lock:
            self.closed = True
            if self._socket is not None:
                shut(self._socket)  # Linux also wakes a connect() under way

    def release(self) -> None:
        """Let go of the socket: it is another call's, or nobody's, from now on."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._copied and self._socket is not None:
            self._socket.close()
        self._socket, self._copied = None, False


@contextlib.contextmanager
def shut_by(cancel: Cancel | None, shutter: Shutter) -> Iterator[None]:
    """Let `cancel` shut `shutter` while in the block. Raises `Cancelled` instead of the broken
    connection that comes of it."""
    if cancel is None:
        yield
        return
    cancel.check()
    with cancel.closing(shutter.shut):
        try:
            yield
        except BROKEN:
            cancel.check()
            raise
    cancel.check()


class ProxyUnsupported(Exception):  # noqa: N818 - the caller says what to do about it
    """The proxy is of a kind that cannot be used; the text says why."""


class _Call(threading.local):
    """What this thread's call and the connection that serves it know of each other."""

    shutter: Shutter | None = None
    read_timeout: float | None = None
    reused = False


_CALL = _Call()


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    if host == "localhost":
        # Container engines publish a port on one family or on both, and resolvers differ in which
        # of the two they give for this name (or give just one).
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _keep_alive(sock: socket.socket) -> None:
    """Notice a peer that vanished (sleep, VPN) within a minute even when nothing is sent."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock, idle=30, interval=10, count=3)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _hold(sock: Any, *, copy: bool = False) -> None:
    while not isinstance(sock, socket.socket):  # TLS within a proxy's TLS
        sock = sock.socket
    if _CALL.shutter is not None:
        _CALL.shutter.hold(sock, copy=copy)


class _Tracked:
    """Mixed into urllib3's connections: leaves the socket with the call that uses it."""

    _fresh = False
    _shutter: Shutter | None = None

    def connect(self) -> None:
        this: Any = self
        self._fresh = True
        super().connect()  # type: ignore[misc]
        _hold(this.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        this: Any = self
        if self._shutter is not None and self._shutter is not _CALL.shutter:
            self._shutter.release()  # the call before must not shut what is this call's now
        self._shutter = _CALL.shutter
        if this.sock is None:
            this.connect()
        else:
            _hold(this.sock)
        _CALL.reused, self._fresh = not self._fresh, False
        # urllib3 would send under the connect timeout, which is too short for a large body.
        this.timeout = _CALL.read_timeout
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Dialled(_Tracked):
    """Opens the socket itself, so that there is one to shut while it connects."""

    def _new_conn(self) -> socket.socket:
        this: Any = self
        host = this._dns_host.strip("[]")  # noqa: SLF001 - `host` lacks a name's last dot
        try:
            addresses = _addresses(host, this.port)
        except socket.gaierror as error:
            raise NameResolutionError(host, this, error) from error
        last: OSError | None = None
        for family, address in addresses:
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                _keep_alive(sock)
                sock.settimeout(this.timeout if isinstance(this.timeout, (int, float)) else None)
                _hold(sock)
                sock.connect(address)
                # Again: one that is not connected yet cannot be shut everywhere.
                _hold(sock, copy=isinstance(this, HTTPSConnection))
            except OSError as error:
                if sock is not None:
                    sock.close()
                # What the first address says tells more than "no IPv6 here" of the last.
                last = last or error
            else:
                return sock
        if isinstance(last, TimeoutError):
            raise ConnectTimeoutError(this, f"{host}:{this.port} did not answer") from last
        raise NewConnectionError(this, str(last)) from last


class _PlainConnection(_Dialled, HTTPConnection):
    pass


class _SecureConnection(_Dialled, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls: Any = _SecureConnection

    def _validate_conn(self, conn: Any) -> None:
        # As urllib3's, without the warning: whoever asks for no verification knows it.
        if conn.is_closed:
            conn.connect()


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class HttpClient:
    """Pools of connections. Thread-safe.

    `proxy` gives a URL's proxy ("": none), `tls` the context for https (None: the system's
    authorities), `proxy_tls` the one for a proxy that is itself reached by https. `insecure`
    accepts any certificate where there is no `tls`."""

    def __init__(
        self,
        *,
        proxy: Callable[[str], str],
        tls: ssl.SSLContext | None = None,
        tls_server_name: str = "",
        proxy_tls: ssl.SSLContext | None = None,
        insecure: bool = False,
        maxsize: int = 8,
    ) -> None:
        self._proxy = proxy
        self._proxy_tls = proxy_tls
        self._options: dict[str, Any] = {"num_pools": 4, "maxsize": maxsize, "retries": False}
        if tls is not None:
            self._options |= {"ssl_context": tls, "cert_reqs": tls.verify_mode}
        elif insecure:
            self._options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        if tls_server_name:
            names = {"server_hostname": tls_server_name, "assert_hostname": tls_server_name}
            self._options |= names
        self._lock = threading.Lock()
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._pools: dict[str, HTTPConnectionPool] = {}

    def request(
        self,
        method: str,
        url: str,
        *,
        cancel: Cancel | None = None,
        **more: Any,
    ) -> urllib3.BaseHTTPResponse:
        """`open` for an answer whose body is read at once. Also raises `Cancelled`."""
        shutter = Shutter()
        with shut_by(cancel, shutter):
            return self.open(method, url, shutter=shutter, whole=True, **more)

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: urllib3.Timeout,
        shutter: Shutter,
        repeat: bool = False,
        redirects: int = 0,
        whole: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """The response, its body still to come unless `whole`: close it, or read it to its end.

        `repeat`: send it again when a kept-alive connection turns out to be closed. The timeout's
        `read` is seconds of silence. Raises urllib3's errors, OSError, ProxyUnsupported."""
        manager = self._manager(url)
        send, target = manager.urlopen, url
        retries: urllib3.Retry | bool = False
        if redirects:
            retries = urllib3.Retry(None, connect=0, read=0, redirect=redirects, status=0, other=0)
        elif manager.proxy is None or url.startswith("https:"):
            # Straight to the pool: what the manager does for each request costs 0.1 ms.
            send, target = self._pool(manager, url)
        before = (_CALL.shutter, _CALL.read_timeout)
        _CALL.shutter, _CALL.read_timeout = shutter, timeout.read_timeout
        try:
            while True:
                _CALL.reused = False
                try:
                    return send(
                        method,
                        target,
                        headers=headers,
                        body=body,
                        timeout=timeout,
                        retries=retries,
                        redirect=redirects > 0,
                        preload_content=whole,
                    )
                except BROKEN as error:
                    cause = (error.reason or error) if isinstance(error, MaxRetryError) else error
                    late = isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError))
                    if repeat and _CALL.reused and not shutter.closed and not late:
                        continue
                    shutter.release()
                    if cause is error:
                        raise
                    raise cause from cause.__cause__
        finally:
            _CALL.shutter, _CALL.read_timeout = before

    def _pool(
        self, manager: urllib3.PoolManager, url: str
    ) -> tuple[Callable[..., urllib3.BaseHTTPResponse], str]:
        start = url.find("/", url.index("://") + 3)
        origin, target = (url, "/") if start < 0 else (url[:start], url[start:])
        with self._lock:
            pool = self._pools.get(origin)
            if pool is None:
                pool = self._pools[origin] = manager.connection_from_url(origin)
        return pool.urlopen, target

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxy(url)
        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = self._made(proxy)
            return self._managers[proxy]

    def _made(self, proxy: str) -> urllib3.PoolManager:
        if proxy.startswith("socks"):
            return _socks_manager(proxy, self._options)
        if not proxy:
            manager = urllib3.PoolManager(**self._options)
        else:
            try:
                parsed = urllib3.util.parse_url(proxy)
                auth = unquote(parsed.auth) if parsed.auth else None
                manager = urllib3.ProxyManager(
                    proxy,
                    proxy_headers=urllib3.make_headers(proxy_basic_auth=auth),
                    proxy_ssl_context=self._proxy_tls,
                    **self._options,
                )
            except (HTTPError, ValueError) as error:
                raise ProxyUnsupported(f"{_masked(proxy)}: {error}") from error
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            managers, self._managers, self._pools = list(self._managers.values()), {}, {}
        for manager in managers:
            for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()


def _masked(proxy: str) -> str:
    """A proxy's URL without its password."""
    head, at, host = proxy.rpartition("@")
    return f"{head.partition('://')[0]}://{host}" if at else proxy


def _socks_manager(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    if importlib.util.find_spec("socks") is None:
        raise ProxyUnsupported(
            f"{_masked(proxy)} is a SOCKS proxy, for which PySocks must be installed"
        )
    from urllib3.contrib import socks  # noqa: PLC0415 - an extra that few need

    class Plain(_Tracked, socks.SOCKSConnection):
        pass

    class Secure(_Tracked, socks.SOCKSHTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(_SecurePool):
        ConnectionCls: Any = Secure

    # The proxy looks names up, as with Go.
    proxy = proxy.replace("socks5://", "socks5h://", 1)
    manager = socks.SOCKSProxyManager(proxy, **options)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return manager


def take_socket(response: urllib3.BaseHTTPResponse) -> tuple[socket.socket, bytes]:
    """The socket of a 101 answer, the caller's to close, and what came after the answer's head.

    Raises ProxyUnsupported for TLS within a proxy's TLS, which no socket can carry."""
    whole: Any = response
    connection = whole.connection
    sock = connection.sock
    if not isinstance(sock, socket.socket):
        response.close()
        raise ProxyUnsupported("streams into pods do not go through a proxy reached by https")
    answer = whole._fp  # noqa: SLF001 - http.client's, which holds the buffer
    sock.setblocking(False)
    rest = b""
    with contextlib.suppress(OSError):  # nothing has come yet
        rest = answer.fp.peek() or b""
    connection.sock = None
    answer.close()
    return sock, bytes(rest)
