"""Kept-alive HTTP connections that another thread can break off at once.

urllib3 does the HTTP; what it lacks is a way to end a call that hangs, so each call leaves the
socket that it uses where a `Cancel` finds it. Nothing here knows about registries.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from devloop.base.cancel import Cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel

__all__ = ["RegistryWire", "breaking", "is_loopback"]


class _Box:
    """The socket that a call uses now, and whether the call is to end."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._cut = False

    def hold(self, connection: socket.socket) -> None:
        self._socket = connection
        if self._cut:
            _shut(connection)

    def cut(self) -> None:
        # In this order: a socket that comes meanwhile is then shut by the one or the other.
        self._cut = True
        if self._socket is not None:
            _shut(self._socket)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Held(threading.local):
    """Where this thread's call leaves the socket that it uses now."""

    def __init__(self) -> None:
        self.box: _Box | None = None


_HELD = _Held()


def is_loopback(host: str) -> bool:
    """Whether a host without port is this computer, by Docker's rule: localhost, 127/8 or ::1."""
    host = host.strip("[]").lower()
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    if host == "localhost":
        # Container engines publish a port on one family or on both, and resolvers differ in which
        # of the two they give for this name (or give just one).
        return [
            (socket.AF_INET, ("127.0.0.1", port)),
            (socket.AF_INET6, ("::1", port, 0, 0)),
        ]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


class _Breakable:
    """Mixed into urllib3's connections: opens the socket itself and tells where it is."""

    def _new_conn(self) -> socket.socket:
        this: Any = self
        try:
            addresses = _addresses(this.host.strip("[]"), this.port)
        except socket.gaierror as error:
            raise NameResolutionError(this.host, this, error) from error
        last: OSError | None = None
        for family, address in addresses:
            connection: socket.socket | None = None
            try:
                connection = socket.socket(family, socket.SOCK_STREAM)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(_seconds(this.timeout))
                _hold(connection)
                connection.connect(address)
                # Again: one that is not connected yet cannot be shut.
                _hold(connection)
            except OSError as error:
                if connection is not None:
                    connection.close()
                # What the first address says tells more than "no IPv6 here" of the last.
                last = last or error
            else:
                return connection
        if isinstance(last, TimeoutError):
            raise ConnectTimeoutError(this, f"{this.host}:{this.port} did not answer") from last
        raise NewConnectionError(this, str(last)) from last

    def request(self, *args: Any, **kwargs: Any) -> None:
        this: Any = self
        if this.sock is not None:
            _hold(this.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]


def _seconds(timeout: object) -> float | None:
    return float(timeout) if isinstance(timeout, (int, float)) else None


def _hold(connection: socket.socket) -> None:
    if _HELD.box is not None:
        _HELD.box.hold(connection)


class _PlainConnection(_Breakable, HTTPConnection):
    pass


class _SecureConnection(_Breakable, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class RegistryWire:
    """A pool of connections. `insecure` accepts any certificate (for loopback registries only)."""

    def __init__(self, *, insecure: bool = False, maxsize: int = 8) -> None:
        self._options: dict[str, Any] = {"num_pools": 4, "maxsize": maxsize, "retries": False}
        if insecure:
            self._options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        self._direct = urllib3.PoolManager(**self._options)
        self._direct.pool_classes_by_scheme = _POOLS
        self._proxied: dict[str, urllib3.ProxyManager] = {}

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        body: bytes | None = None,
        timeout: urllib3.Timeout,
        cancel: Cancel | None = None,
        whole: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """The response, with its body read unless `whole` is False. Raises urllib3's errors and
        Cancelled."""
        retries = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=3)
        with breaking(cancel):
            try:
                return self._manager(url).request(
                    method,
                    url,
                    headers=headers,
                    body=body,
                    timeout=timeout,
                    retries=retries,
                    preload_content=whole,
                )
            except urllib3.exceptions.MaxRetryError as error:
                if cancel is not None:
                    cancel.check()
                raise (error.reason or error) from error
            except urllib3.exceptions.HTTPError:
                if cancel is not None:
                    cancel.check()
                raise

    def _manager(self, url: str) -> urllib3.PoolManager:
        parsed = urllib3.util.parse_url(url)
        host, scheme = parsed.host or "", parsed.scheme or "http"
        if is_loopback(host):
            return self._direct
        proxy = urllib.request.getproxies().get(scheme)
        if not proxy or urllib.request.proxy_bypass(host):
            return self._direct
        if proxy not in self._proxied:
            self._proxied[proxy] = urllib3.ProxyManager(proxy, **self._options)
            self._proxied[proxy].pool_classes_by_scheme = _POOLS
        return self._proxied[proxy]

    def close(self) -> None:
        for manager in (self._direct, *self._proxied.values()):
            manager.clear()


@contextlib.contextmanager
def breaking(cancel: Cancel | None) -> Iterator[None]:
    """Let `cancel` shut the socket of the calls inside, which themselves are given no cancel."""
    if cancel is None:
        yield
        return
    cancel.check()
    box = _Box()
    before, _HELD.box = _HELD.box, box
    try:
        with cancel.closing(box.cut):
            yield
    finally:
        _HELD.box = before
    if cancel.is_set():
        raise Cancelled
