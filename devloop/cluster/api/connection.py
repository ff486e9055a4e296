"""The one way to the API server: pinned at start, kept alive, plain dicts in and out.

Typed decoding of 100 pods costs 80 ms and a subprocess more, so neither happens here. What a
context means is read once; a later `kubectl config use-context` changes nothing for a session.
Must not know what the objects mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import ssl
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from devloop import __version__
from devloop.base.cancel import Cancelled
from devloop.cluster.api import kubeconfig
from devloop.cluster.api.api_errors import ApiError, connection_error, status_error
from devloop.cluster.api.sockets import Endpoint, Wire, tls_context
from devloop.cluster.api.stream import BROKEN, ResponseStream
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from urllib3.response import BaseHTTPResponse

    from devloop.base.cancel import Cancel

__all__ = ["APPLY", "JSON", "MERGE", "STRATEGIC", "Connection"]

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

_CONNECT_SECONDS = 3.0
_IDLE_CONNECTIONS = 8
_ATTEMPTS = 4
_LONGEST_PAUSE = 5.0


class Connection:
    """A pinned cluster. Safe to use from many threads.

    `context`, `namespace` (the flag's, else the context's), `server` (URL) and `user` (as the
    kubeconfig calls it) are for messages and for the guard."""

    def __init__(
        self,
        resolved: kubeconfig.Context,
        *,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.context = resolved.name
        self.namespace = namespace or resolved.namespace
        self.server = resolved.cluster.server
        self.user = resolved.user_name
        self._resolved = resolved
        self._sleep = sleep
        self._lock = threading.Lock()
        self._idle: list[Wire] = []
        self._closed = False
        self._generation = 0
        self._proxy = _proxy(resolved.cluster, os.environ if env is None else env)
        self._credentials = kubeconfig.UserCredentials()
        self._endpoint = Endpoint(host="", port=0, secure=False)
        self._authenticate()

    @classmethod
    def open(
        cls,
        context: str | None = None,
        namespace: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
    ) -> Connection:
        """Resolve `context` (None: the current one) and get its credentials; sends nothing.

        `env` (default: the process's) is read for KUBECONFIG, HOME and proxies. Raises
        cluster/context-not-found, cluster/unauthorized, config/parse, env/file-unreadable."""
        env = os.environ if env is None else env
        return cls(kubeconfig.read(env).resolve(context), namespace=namespace, env=env)

    def _authenticate(self) -> None:
        cluster = self._resolved.cluster
        self._credentials = credentials = kubeconfig.obtain(self._resolved)
        url = urlsplit(cluster.server)
        secure = url.scheme != "http"
        tls = None
        if secure:
            try:
                tls = tls_context(
                    ca=cluster.ca,
                    cert=credentials.cert,
                    key=credentials.key,
                    insecure=cluster.insecure,
                )
            except (ssl.SSLError, ValueError) as error:
                raise DevloopError.of(
                    Code.CLUSTER_UNAUTHORIZED,
                    f"the certificates of context {self.context!r} cannot be used",
                    cause=str(error),
                    suggestions=("renew the kubeconfig",),
                ) from error
        self._endpoint = Endpoint(
            host=url.hostname or "",
            port=url.port or (443 if secure else 80),
            secure=secure,
            prefix=url.path.rstrip("/"),
            tls=tls,
            tls_server_name=cluster.tls_server_name,
            proxy=self._proxy,
        )

    def headers(self) -> dict[str, str]:
        """What every request carries: for whoever speaks another protocol over `dial`."""
        headers = {"User-Agent": f"devloop/{__version__}", "Accept": "application/json"}
        if self._credentials.authorization:
            headers["Authorization"] = self._credentials.authorization
        return headers

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def dial(self, *, cancel: Cancel | None = None) -> socket.socket:
        """A connected (and TLS-wrapped) socket to the API server, the caller's to close."""
        wire = self._connected(Wire(self._endpoint, connect_timeout=_CONNECT_SECONDS), cancel)
        sock = wire.http.sock
        if sock is None:
            raise connection_error(ConnectionAbortedError("closed"), self.server)
        wire.http.sock = None
        return sock

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        timeout: float = 30.0,
        cancel: Cancel | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the answer's JSON object. `timeout` is seconds of silence.

        Answers 429 and 5xx are tried again a few times (Retry-After honoured), a 401 once with
        fresh credentials. All methods but POST are taken to be safe to repeat. Raises `ApiError`
        (a `DevloopError` with the HTTP status) or cluster/unreachable; `Cancelled` only while it
        waits between two tries."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        url = path + (f"?{urlencode(query)}" if query else "")
        renewed = False
        attempt = 0
        while True:
            generation = self._generation
            try:
                return self._once(method, url, data, content_type, timeout)
            except ApiError as error:
                attempt += 1
                if error.status == 401 and not renewed and self._renew(generation):
                    renewed = True
                    continue
                repeatable = error.passing and (method != "POST" or error.status == 429)
                if not repeatable or attempt >= _ATTEMPTS:
                    raise
                pause = error.retry_after
                if pause is None:
                    pause = 0.2 * 2**attempt * (0.75 + random.random() / 2)  # noqa: S311
                self._pause(min(pause, _LONGEST_PAUSE), cancel)

    def _pause(self, seconds: float, cancel: Cancel | None) -> None:
        if cancel is None:
            self._sleep(seconds)
        elif cancel.wait(seconds):
            raise Cancelled

    def _renew(self, generation: int) -> bool:
        """Get fresh credentials after a 401; False when there are no others to get."""
        with self._lock:
            if self._credentials.source not in {"plugin", "file"}:
                return False
            if generation == self._generation:
                self._authenticate()
                self._generation += 1
                idle, self._idle = self._idle, []
            else:
                idle = []
        for wire in idle:
            wire.close()
        return True

    def _once(
        self, method: str, url: str, data: bytes | None, content_type: str, timeout: float
    ) -> dict[str, Any]:
        while True:
            wire, reused = self._take()
            try:
                answer = self._send(
                    wire, method, url, data=data, content_type=content_type, timeout=timeout
                )
                payload = answer.read()
            except BROKEN as error:
                wire.close()
                # A kept-alive connection may be closed by the server in the very moment we use it.
                if reused and method != "POST" and not isinstance(error, TimeoutError):
                    continue
                raise connection_error(error, self.server, context=self.context) from error
            except BaseException:
                wire.close()
                raise
            self._give_back(wire, answer)
            if answer.status >= 400:
                raise self._refused(answer, payload, method, url)
            return _object(payload)

    def _refused(self, answer: BaseHTTPResponse, payload: bytes, method: str, url: str) -> ApiError:
        return status_error(
            answer.status,
            payload,
            method=method,
            path=url.partition("?")[0],
            server=self.server,
            user=self.user,
            retry_after=_number(answer.headers.get("Retry-After")),
        )

    def _send(
        self,
        wire: Wire,
        method: str,
        url: str,
        *,
        data: bytes | None = None,
        content_type: str = JSON,
        timeout: float | None,
    ) -> BaseHTTPResponse:
        headers = self.headers()
        if data is not None:
            headers["Content-Type"] = content_type
        wire.connect()
        wire.read_timeout(timeout)
        wire.http.request(
            method,
            self._endpoint.prefix + url,
            body=data,
            headers=headers,
            preload_content=False,
            decode_content=False,
        )
        return wire.http.getresponse()

    def stream(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        cancel: Cancel | None = None,
        idle: float | None = 100.0,
        opened: Callable[[Callable[[], None]], None] | None = None,
    ) -> ResponseStream:
        """Open a GET whose answer keeps coming (a watch, a followed log), on its own connection.

        `idle` is how many seconds of silence count as a dead connection, None for no limit (TCP
        keepalive still notices a dead peer). `opened` is handed a function that shuts the socket
        before the connection is even made, for an owner that has no `Cancel`. Raises like
        `request`, but tries nothing twice except after a 401."""
        url = path + (f"?{urlencode(query)}" if query else "")
        renewed = False
        while True:
            generation = self._generation
            try:
                return self._open_stream(url, cancel, idle, opened)
            except ApiError as error:
                if error.status == 401 and not renewed and self._renew(generation):
                    renewed = True
                    continue
                raise

    def _open_stream(
        self,
        url: str,
        cancel: Cancel | None,
        idle: float | None,
        opened: Callable[[Callable[[], None]], None] | None,
    ) -> ResponseStream:
        wire = Wire(self._endpoint, connect_timeout=_CONNECT_SECONDS)
        if opened is not None:
            opened(wire.shut)
        guard = cancel.closing(wire.shut) if cancel is not None else contextlib.nullcontext()
        with guard:
            try:
                answer = self._send(wire, "GET", url, timeout=idle)
                if answer.status < 400:
                    return ResponseStream(wire, answer, self.server, cancel)
                payload = answer.read()
            except BROKEN as error:
                wire.close()
                if cancel is not None and cancel.is_set():
                    raise Cancelled from error
                raise connection_error(error, self.server, context=self.context) from error
        wire.close()
        raise self._refused(answer, payload, "GET", url)

    def _connected(self, wire: Wire, cancel: Cancel | None) -> Wire:
        guard = cancel.closing(wire.shut) if cancel is not None else contextlib.nullcontext()
        with guard:
            try:
                wire.connect()
            except BROKEN as error:
                wire.close()
                if cancel is not None and cancel.is_set():
                    raise Cancelled from error
                raise connection_error(error, self.server, context=self.context) from error
        return wire

    def _take(self) -> tuple[Wire, bool]:
        while True:
            with self._lock:
                if self._closed:
                    raise Cancelled
                wire = self._idle.pop() if self._idle else None
            if wire is None:
                return Wire(self._endpoint, connect_timeout=_CONNECT_SECONDS), False
            if wire.alive:
                return wire, True
            wire.close()

    def _give_back(self, wire: Wire, answer: BaseHTTPResponse) -> None:
        keep = answer.headers.get("Connection", "").lower() != "close"
        with self._lock:
            keep = keep and not self._closed and len(self._idle) < _IDLE_CONNECTIONS
            if keep:
                self._idle.append(wire)
        if not keep:
            wire.close()

    def close(self) -> None:
        """Close the idle connections; later requests raise `Cancelled`. Streams are their
        owners' to close."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()


def _object(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload) if payload.strip() else {}
    except ValueError:
        return {"text": payload.decode("utf-8", "replace")}
    return value if isinstance(value, dict) else {"value": value}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def _proxy(cluster: kubeconfig.Cluster, env: Mapping[str, str]) -> str:
    """The kubeconfig's proxy-url, else HTTPS_PROXY unless NO_PROXY or loopback, as kubectl does."""
    if cluster.proxy:
        if cluster.proxy.startswith("socks"):
            raise DevloopError.of(
                Code.CONFIG_NOT_SUPPORTED,
                "the kubeconfig's proxy-url is a SOCKS proxy, which devloop cannot use",
                suggestions=("use an HTTP proxy, or a tunnel to a local port",),
            )
        return cluster.proxy
    host = urlsplit(cluster.server).hostname or ""
    if host in {"localhost", "127.0.0.1", "::1"}:
        return ""
    proxy = env.get("HTTPS_PROXY") or env.get("https_proxy") or ""
    no_proxy = env.get("NO_PROXY") or env.get("no_proxy") or ""
    bypass = getattr(urllib.request, "proxy_bypass_environment", None)
    if proxy and bypass is not None and bypass(host, {"no": no_proxy}):
        return ""
    return proxy
