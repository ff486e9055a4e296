"""The one way to the API server: pinned at start, kept alive, plain dicts in and out.

Typed decoding of 100 pods costs 80 ms and a subprocess more, so neither happens here. What a
context means is read once; a later `kubectl config use-context` changes nothing for a session.
Must not know what the objects mean.
"""

from __future__ import annotations

import functools
import json
import os
import random
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from devloop import __version__
from devloop.base import net
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.net_proxy import proxy_for
from devloop.base.net_tls import TlsError, tls_context
from devloop.base.threads import Background
from devloop.cluster.api import kubeconfig, user_credentials
from devloop.cluster.api.api_errors import ApiError, connection_error, status_error
from devloop.cluster.api.local_nodes import made_by
from devloop.cluster.api.pod_view import dig, items
from devloop.cluster.api.stream import ResponseStream
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping


JSON = "application/json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

_CONNECT_SECONDS = 3.0
_ATTEMPTS = 4
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    """What requests are sent with: the user's credentials, and connections that carry them."""

    credentials: user_credentials.UserCredentials
    headers: urllib3.HTTPHeaderDict
    http: net.HttpClient


class Connection:
    """A pinned cluster. Safe to use from many threads.

    `context`, `namespace` (the flag's, else the context's), `server` (URL) and `user` (as the
    kubeconfig calls it) are for messages and for the guard. `date` is the server's clock as of its
    last answer: HTTP's Date header, "" when it has sent none."""

    def __init__(
        self,
        resolved: kubeconfig.Context,
        *,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        again: Callable[[], kubeconfig.Context] | None = None,
    ) -> None:
        """`again` reads the kubeconfig once more: somebody may have logged in meanwhile."""
        self.context = resolved.name
        self.namespace = namespace or resolved.namespace
        self.server = resolved.cluster.server
        self.user = resolved.user_name
        # The kubeconfig's proxy-url counts for every server, as with client-go.
        proxy = resolved.cluster.proxy
        self.proxy = proxy or proxy_for(self.server, os.environ if env is None else env)
        self._resolved = resolved
        self._again = again
        self._clock = clock
        self._lock = threading.Lock()
        self.date = ""
        self._closed = False
        self._renewal: Background[_Login] | None = None
        self._login = self._log_in(None, Cancel())

    @property
    def local_tool(self) -> str:
        """The tool for local clusters that made the nodes; "" when none did, or they may not be
        listed. Asks the cluster once."""
        return self.made_by[0]

    @functools.cached_property
    def made_by(self) -> tuple[str, str]:
        """The same, and what that tool calls the cluster, if it has names for them."""
        return made_by(items(dig(self.find("/api/v1/nodes", absent={403}), "items")))

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
        cluster/context-not-found, cluster/unauthorized, config/parse, config/not-supported,
        env/file-unreadable."""
        env = os.environ if env is None else env
        resolved = kubeconfig.read(env).resolve(context)

        def again() -> kubeconfig.Context:
            return kubeconfig.read(env).resolve(resolved.name)

        return cls(resolved, namespace=namespace, env=env, again=again)

    # --- credentials ---------------------------------------------------------------------------

    def _log_in(self, before: _Login | None, cancel: Cancel) -> _Login:
        if before is not None:
            self._resolved = self._reread()
        # Later on the terminal belongs to the session.
        credentials = user_credentials.obtain(
            self._resolved, cancel=cancel, interactive=before is None
        )
        if before is not None and credentials == before.credentials:
            return before
        headers = urllib3.HTTPHeaderDict()
        headers["User-Agent"] = f"devloop/{__version__}"
        headers["Accept"] = "application/json"
        if credentials.authorization:
            headers["Authorization"] = credentials.authorization
        for name, value in user_credentials.impersonation(self._resolved):
            headers.add(name, value)
        pair = (credentials.cert, credentials.key)
        if before is not None and pair == (before.credentials.cert, before.credentials.key):
            http = before.http
        else:
            http = self._http(credentials)
        return _Login(credentials=credentials, headers=headers, http=http)

    def _reread(self) -> kubeconfig.Context:
        """The context with its user as the kubeconfig has it now; the cluster stays what it was."""
        if self._again is None:
            return self._resolved
        try:
            found = self._again()
        except (DevloopError, OSError):  # somebody is just writing it
            return self._resolved
        if found.cluster.server != self.server:
            return self._resolved
        return replace(self._resolved, user_name=found.user_name, user_entry=found.user_entry)

    def _http(self, credentials: user_credentials.UserCredentials) -> net.HttpClient:
        cluster = self._resolved.cluster
        tls = proxy_tls = None
        try:
            if cluster.server.startswith("https:"):
                tls = tls_context(
                    ca=cluster.ca,
                    cert=credentials.cert,
                    key=credentials.key,
                    insecure=cluster.insecure,
                )
            if self.proxy.startswith("https:"):
                # Go trusts the cluster's authority for its proxy as well.
                proxy_tls = tls_context(ca="", cert="", key="", insecure=cluster.insecure)
                if cluster.ca:
                    proxy_tls.load_verify_locations(cadata=cluster.ca)
        except (TlsError, ValueError) as error:
            raise DevloopError.of(
                Code.CLUSTER_UNAUTHORIZED,
                f"the certificates of context {self.context!r} cannot be used",
                cause=str(error),
                suggestions=("renew the kubeconfig",),
            ) from error
        return net.HttpClient(
            proxy=lambda _: self.proxy,
            tls=tls,
            tls_server_name=cluster.tls_server_name,
            proxy_tls=proxy_tls,
        )

    def _renewed(self, old: _Login, cancel: Cancel | None) -> _Login:
        """Fresh credentials in the place of `old`; whoever else wants them waits for the same."""
        with self._lock:
            if self._closed:
                raise Cancelled
            if self._login is not old:
                return self._login
            if self._renewal is None:
                self._renewal = Background(
                    "credentials", lambda ended: self._renew(old, ended), expected=(DevloopError,)
                )
            renewal = self._renewal
        return renewal.result(cancel or Cancel())

    def _renew(self, old: _Login, cancel: Cancel) -> _Login:
        try:
            login = self._log_in(old, cancel)
            with self._lock:
                self._login = login
        finally:
            with self._lock:
                self._renewal = None
        if login.http is not old.http:
            old.http.close()
        return login

    # --- requests ------------------------------------------------------------------------------

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
        (a `DevloopError` with the HTTP status) or cluster/unreachable; `Cancelled` while a GET is
        under way or while it waits between two tries."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        url = path + (f"?{urlencode(query)}" if query else "")
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self.send(
                    method,
                    url,
                    headers={} if data is None else {"Content-Type": content_type},
                    body=data,
                    silence=timeout,
                    cancel=cancel if method == "GET" else None,
                    whole=True,
                )
                return _object(answer.data)
            except ApiError as error:
                repeatable = error.passing and (method != "POST" or error.status == 429)
                if not repeatable or attempt >= _ATTEMPTS:
                    raise
                pause = error.retry_after
                if pause is None:
                    pause = 0.2 * 2**attempt * (0.75 + random.random() / 2)  # noqa: S311
                if (cancel or Cancel()).wait(min(pause, _LONGEST_PAUSE)):
                    raise Cancelled from None

    def find(self, path: str, *, absent: Container[int] = (404,)) -> dict[str, Any] | None:
        """GET the object at `path`; None where the answer is one of `absent`. Else as `request`."""
        try:
            return self.request("GET", path)
        except ApiError as error:
            if error.status in absent:
                return None
            raise

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        silence: float | None,
        body: bytes | None = None,
        shutter: net.Shutter | None = None,
        cancel: Cancel | None = None,
        whole: bool = False,
        repeatable: bool | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The answer to one request (`url` is its path and query), its body still to come unless
        `whole`: the caller closes it.

        Repeated after a 401, and on a kept-alive connection that turns out to be closed when it is
        `repeatable`, which every method but POST is.
        Raises `ApiError` for an answer of 400 and more, cluster/unreachable, `Cancelled`."""
        shutter = shutter or net.Shutter()
        renewed = False
        while True:
            login = self._current(cancel)
            every = login.headers.copy()
            every.update(headers)
            answer: urllib3.BaseHTTPResponse | None = None
            try:
                with net.shut_by(cancel, shutter):
                    answer = login.http.open(
                        method,
                        self.server + url,
                        headers=every,
                        body=body,
                        timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=silence),
                        shutter=shutter,
                        repeat=method != "POST" if repeatable is None else repeatable,
                        whole=whole,
                    )
                    self.date = answer.headers.get("Date", self.date)
                    if answer.status >= 400:
                        _ = answer.data  # read while it can be cancelled
            except (*net.BROKEN, net.ProxyUnsupported, Cancelled) as error:
                if answer is not None:
                    answer.close()
                if isinstance(error, Cancelled):
                    raise
                raise self.lost(error) from error
            if answer.status < 400:
                return answer
            if answer.status != 401 or renewed or self._renewed(login, cancel) is login:
                raise self.refused(answer, method, url)
            renewed = True

    def _current(self, cancel: Cancel | None) -> _Login:
        if self._closed:
            raise Cancelled
        login = self._login
        expires = login.credentials.expires
        if expires is not None and self._clock() >= expires:
            return self._renewed(login, cancel)
        return login

    def refused(self, answer: urllib3.BaseHTTPResponse, method: str, url: str) -> ApiError:
        """What an answer that is none to work with means."""
        return status_error(
            answer.status,
            answer.data,
            method=method,
            path=url.partition("?")[0],
            server=self.server,
            user=self.user,
            retry_after=_number(answer.headers.get("Retry-After")),
        )

    def lost(self, error: BaseException) -> DevloopError:
        """What a failure to connect, send or receive means."""
        if isinstance(error, net.ProxyUnsupported):
            return DevloopError.of(
                Code.CONFIG_NOT_SUPPORTED,
                "the proxy to the cluster cannot be used",
                cause=str(error),
                suggestions=("use another proxy, or a tunnel to a local port",),
            )
        return connection_error(error, self.server, context=self.context)

    def stream(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        cancel: Cancel | None = None,
        idle: float | None = 100.0,
        accept: str = JSON,
        opened: Callable[[Callable[[], None]], None] | None = None,
    ) -> ResponseStream:
        """Open a GET whose answer keeps coming (a watch, a followed log).

        `idle` is how many seconds of silence count as a dead connection, None for no limit (TCP
        keepalive still notices a dead peer). `accept`: what is wanted instead of JSON. `opened` is
        handed a function that shuts the socket before the connection is even made, for an owner
        that has no `Cancel`. Raises as `send` does."""
        shutter = net.Shutter()
        if opened is not None:
            opened(shutter.shut)
        url = path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept}
        answer = self.send(
            "GET", url, headers=headers, silence=idle, shutter=shutter, cancel=cancel
        )
        return ResponseStream(answer, shutter, self.server, cancel)

    def close(self) -> None:
        """Close the idle connections; later requests raise `Cancelled`. Streams are their
        owners' to close."""
        with self._lock:
            self._closed = True
            renewal, login = self._renewal, self._login
        if renewal is not None:
            renewal.close()
        login.http.close()


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
