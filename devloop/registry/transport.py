"""Requests to one registry: scheme, credentials, one retry, and failures in the user's words.

Everything that is the same for all of the distribution API's calls; what the calls mean is
client.py's business.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import urllib.parse
from typing import TYPE_CHECKING

import urllib3
from urllib3.exceptions import NameResolutionError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as TimedOut

from devloop.base.net import BROKEN, HttpClient, ProxyUnsupported, Shutter, shut_by
from devloop.base.net_proxy import is_loopback, proxy_for
from devloop.base.net_tls import tls_beside_system
from devloop.errors import Code, DevloopError
from devloop.registry.docker_trust import DockerTrust, trust_of
from devloop.registry.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.registry.credentials import RegistryCredentials


_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_CONNECT = 3.0
_ANSWER = 15.0
# An upload waits for the registry to take in and store what was sent.
_UPLOAD = 300.0


class Transport:
    """Plain HTTP for loopback as Docker does (TLS of any certificate if that is what answers
    there); elsewhere HTTPS, and plain HTTP only for a server that cannot do TLS, without
    credentials. Thread-safe."""

    def __init__(self, host: str, lookup: Callable[[str], RegistryCredentials | None]) -> None:
        self.host = host
        self._server = _HUB.get(self.host, self.host)
        self._local = is_loopback(re.sub(r":\d+$", "", self._server))
        self._scheme = "http" if self._local else "https"
        trust = DockerTrust() if self._local else trust_of(self.host, os.environ)
        # Where Docker asks for no certificate, credentials go as they go with Docker.
        self._trusted = self._local or trust.insecure
        self._http = HttpClient(
            proxy=lambda url: proxy_for(url, os.environ),
            tls=None if trust.insecure else tls_beside_system(trust.ca, trust.cert, trust.key),
            insecure=self._trusted,
        )
        self._lookup = lookup
        self._known: list[RegistryCredentials | None] = []
        self._lock = threading.Lock()
        self._tokens = Tokens(self._http)

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        cancel: Cancel | None = None,
        shutter: Shutter | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One request, authorised when the registry asks for it. `path` may be a whole URL.

        With a `shutter`, which ends the whole call, the answer's body is still to come."""
        sent = dict(headers or {})
        if known := self._tokens.known(scope):
            sent["Authorization"] = known
        response = self._send(method, path, sent, body, cancel=cancel, shutter=shutter)
        renew = False
        refused: RegistryCredentials | None = None
        while response.status == 401:
            credentials, fresh = self._credentials(renew=renew)
            if renew and credentials == refused:
                break
            authorization = self._tokens.answer(
                response.headers.get("WWW-Authenticate", ""),
                scope,
                credentials,
                secure=self._trusted or self._scheme == "https",
                cancel=cancel,
            )
            if authorization is not None:
                response.drain_conn()
                sent["Authorization"] = authorization
                response = self._send(method, path, sent, body, cancel=cancel, shutter=shutter)
            # A token or password may have changed since it was asked for: once more, then.
            if fresh:
                break
            renew, refused = True, credentials
        return response

    @contextlib.contextmanager
    def stream(
        self, path: str, *, scope: str, cancel: Cancel | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer to a GET, its body still on the wire; a fault while it is read inside the
        block is reported as any other fault of the registry."""
        shutter = Shutter()
        try:
            with shut_by(cancel, shutter):
                response = self.call("GET", path, scope=scope, cancel=cancel, shutter=shutter)
                try:
                    yield response
                finally:
                    # Half read, the connection is of no use to the next call.
                    response.close()
        except BROKEN as error:
            raise self._unreachable(error) from error

    def _credentials(self, *, renew: bool) -> tuple[RegistryCredentials | None, bool]:
        """What to prove who we are with, and whether it was asked for just now."""
        with self._lock:
            fresh = renew or not self._known
            if fresh:
                self._known = [self._lookup(self.host)]
            return self._known[0], fresh

    def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        *,
        cancel: Cancel | None,
        shutter: Shutter | None,
    ) -> urllib3.BaseHTTPResponse:
        whole = shutter is None
        shutter = shutter or Shutter()
        timeout = urllib3.Timeout(connect=_CONNECT, read=_UPLOAD if body else _ANSWER)
        while True:
            home = f"{self._scheme}://{self._server}/"
            url = urllib.parse.urljoin(home, path)
            if not url.startswith(home):
                # An upload may be sent on to another host, which must not see the credentials.
                headers = {k: v for k, v in headers.items() if k != "Authorization"}
            try:
                with shut_by(cancel, shutter):
                    response = self._http.open(
                        method,
                        url,
                        headers=headers,
                        body=body,
                        timeout=timeout,
                        shutter=shutter,
                        repeat=method in ("GET", "HEAD"),
                        redirects=3,
                        whole=whole,
                    )
            except SSLError as error:
                if (
                    not _is_plain(str(error))
                    or self._scheme == "http"
                    or ("Authorization" in headers and not self._trusted)
                ):
                    raise self._unreachable(error) from error
                self._scheme = "http"
            except (*BROKEN, ProxyUnsupported) as error:
                raise self._unreachable(error) from error
            else:
                if not self._wants_tls(response):
                    return response
                self._scheme = "https"

    def _wants_tls(self, response: urllib3.BaseHTTPResponse) -> bool:
        return (
            self._scheme == "http"
            and self._local
            and response.status == 400
            and b"HTTPS server" in (response.data or b"")[:500]
        )

    def _unreachable(self, error: Exception) -> DevloopError:
        hint = "check the name, the network and the VPN"
        if self._local:
            hint = "check that it runs: docker ps; devloop cluster up starts a local registry"
        if "certificate verify failed" in str(error).lower():
            hint = f"put its authority's certificate into /etc/docker/certs.d/{self.host}/ca.crt"
        message = f"the registry {self.host} does not answer"
        return DevloopError.of(
            Code.REGISTRY_UNREACHABLE, message, cause=_reason(error), suggestions=(hint,)
        )

    def no_registry(self, response: urllib3.BaseHTTPResponse) -> DevloopError:
        """The error for a server that does not know the API at all (the distribution
        specification's end-1)."""
        who = response.headers.get("Server", "")
        answered = f"{response.status} {response.reason or ''}".strip()
        hint = "devloop cluster up starts one" if self._local else "check the name"
        return DevloopError.of(
            Code.REGISTRY_UNREACHABLE,
            f"what answers at {self.host} is no registry",
            cause=f"GET /v2/ was answered with {answered}{f' by {who}' if who else ''}",
            suggestions=(f"name the port of a registry in `registry:`; {hint}",),
        )

    def refused(
        self,
        response: urllib3.BaseHTTPResponse,
        doing: str,
        otherwise: Code = Code.REGISTRY_UNREACHABLE,
    ) -> DevloopError:
        """The error for an answer that `doing` (`asking for shop/web`) did not expect: `otherwise`
        unless its status tells more."""
        text = (response.data or b"").decode("utf-8", "replace").strip()
        # Registries' bodies may be HTML pages; their error texts fit in this.
        cause = f"{response.status} {response.reason or ''} {text[:256]}".strip()
        code, message = otherwise, f"the registry {self.host} refused {doing}"
        hints: tuple[str, ...] = ()
        if response.status in (401, 403):
            code, hints = Code.REGISTRY_UNAUTHORIZED, (f"docker login {self.host}",)
            message = f"{self.host} does not accept the credentials for {doing}"
        elif response.status >= 500 or response.status == 429:
            code = Code.REGISTRY_UNREACHABLE
            message = f"the registry {self.host} failed when {doing}"
        return DevloopError.of(code, message, cause=cause, suggestions=hints)


def _is_plain(text: str) -> bool:
    """Whether an error of TLS says that the server does not speak it."""
    return "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.lower()


def _reason(error: Exception) -> str:
    if isinstance(error, NameResolutionError):
        return "its name is not known"
    if isinstance(error.__cause__, ConnectionRefusedError):
        return "it refused the connection: nothing listens there"
    # NewConnectionError is a kind of ConnectTimeoutError, for other reasons than time.
    if isinstance(error, TimedOut) and not isinstance(error, NewConnectionError):
        return "no answer in time"
    return str(error.__cause__ or error)
