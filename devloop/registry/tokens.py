"""Answers a registry's `WWW-Authenticate`: Basic, or Bearer with a token from its token service.

Tokens are kept per scope until shortly before they expire. RegistryCredentials go only to HTTPS or
to this computer. Source: https://distribution.github.io/distribution/spec/auth/token/ and
.../oauth/.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING

import urllib3

from devloop.base.net import BROKEN, ProxyUnsupported
from devloop.base.net_proxy import is_loopback

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.base.net import HttpClient
    from devloop.registry.credentials import RegistryCredentials


_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_TIMEOUT = urllib3.Timeout(connect=3.0, read=15.0)
# A token that leaves this early is not refused while a request is on its way.
_MARGIN = 5.0


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """`Bearer realm="...",service="..."` -> ("bearer", {...}); ("", {}) for nothing."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {
        match[1].lower(): match[2] if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(rest)
    }


class Tokens:
    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, str]] = {}

    def known(self, scope: str) -> str | None:
        with self._lock:
            until, header = self._kept.get(scope, (0.0, ""))
            return header if time.monotonic() < until else None

    def answer(
        self,
        challenge: str,
        scope: str,
        credentials: RegistryCredentials | None,
        *,
        secure: bool,
        cancel: Cancel | None,
    ) -> str | None:
        """The `Authorization` header to try next, None when there is nothing to try."""
        scheme, given = parse_challenge(challenge)
        if scheme == "basic":
            if credentials is None or not credentials.user or not secure:
                return None
            return self._keep(scope, credentials.basic, 3600.0)
        if scheme != "bearer" or "realm" not in given:
            return None
        token, seconds = self._fetch(given, scope or given.get("scope", ""), credentials, cancel)
        return self._keep(scope, f"Bearer {token}", seconds) if token else None

    def _keep(self, scope: str, header: str, seconds: float) -> str:
        with self._lock:
            self._kept[scope] = (time.monotonic() + seconds - _MARGIN, header)
        return header

    def _fetch(
        self,
        given: dict[str, str],
        scope: str,
        credentials: RegistryCredentials | None,
        cancel: Cancel | None,
    ) -> tuple[str, float]:
        realm = urllib3.util.parse_url(given["realm"])
        safe = realm.scheme == "https" or is_loopback(realm.host or "")
        known = credentials if safe else None
        query = {"service": given.get("service", ""), "scope": scope}
        query = {key: value for key, value in query.items() if value}
        headers: dict[str, str] = {}
        body: bytes | None = None
        method, url = "GET", given["realm"]
        if known is not None and known.identity_token:
            form = query | {"grant_type": "refresh_token", "client_id": "devloop"}
            form["refresh_token"] = known.identity_token
            method, body = "POST", urllib.parse.urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            joint = "&" if realm.query else "?"
            url = f"{url}{joint}{urllib.parse.urlencode(query)}"
            if known is not None:
                headers["Authorization"] = known.basic
        try:
            response = self._http.request(
                method,
                url,
                headers=headers,
                body=body,
                timeout=_TIMEOUT,
                cancel=cancel,
                repeat=method == "GET",
                redirects=3,
            )
            data = json.loads(response.data) if response.status == 200 else {}
        except (*BROKEN, ProxyUnsupported, ValueError):
            data = None
        if not isinstance(data, dict):
            return "", 0.0
        token = data.get("token") or data.get("access_token") or ""
        seconds = data.get("expires_in")
        return str(token), float(seconds) if isinstance(seconds, (int, float)) else 60.0
