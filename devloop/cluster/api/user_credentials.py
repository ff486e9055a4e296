"""How a kubeconfig's user proves who they are: tokens, certificates, credential plugins.

The rules are client-go's: plugin/pkg/client/auth/exec/exec.go, tools/clientcmd and
transport/round_trippers.go. The client library's plugin runner is not used: it has no deadline, no
cancel and no cache, and its import costs 0.4 s for every user of EKS, GKE and AKS.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from devloop.base import process
from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.kubeconfig import pem_of, text_of
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.kubeconfig import Context
    from devloop.cluster.api.pod_view import Json


_EXEC_API = "client.authentication.k8s.io"
_VERSIONS = (f"{_EXEC_API}/v1", f"{_EXEC_API}/v1beta1")
# Seconds that a plugin may take: one of them may open a browser for somebody to log in.
_LIMIT = 180.0
# RFC 9110's token characters but "%", which starts an escape; letters and digits are safe anyway.
_HEADER_SAFE = "!#$&'*+-.^_`|~"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCredentials:
    """`cert` and `key` are PEM text, `authorization` a header's value.

    `source` tells where they come from, `expires` (seconds since 1970) when they are to be replaced
    without being asked."""

    authorization: str = ""
    cert: str = ""
    key: str = ""
    source: Literal["none", "static", "file", "plugin"] = "none"
    expires: float | None = None


def obtain(context: Context, *, cancel: Cancel, interactive: bool) -> UserCredentials:
    """Get the user's credentials: runs a credential plugin if the user has one.

    The order is client-go's: certificate and token as they stand, then the plugin, the password.
    `interactive`: a plugin may ask at the terminal, if there is one. Raises cluster/unauthorized
    when a plugin fails, config/not-supported, config/value, env/file-unreadable, `Cancelled`."""
    user = context.user_entry
    given = UserCredentials(
        cert=pem_of(user, "client-certificate"), key=pem_of(user, "client-key"), source="static"
    )
    if user.get("token"):
        return replace(given, authorization=f"Bearer {user['token']}")
    if user.get("tokenFile"):
        # Projected tokens are rewritten while we run: worth reading again after a 401.
        token = text_of(Path(str(user["tokenFile"]))).strip()
        return replace(given, authorization=f"Bearer {token}", source="file")
    if user.get("exec"):
        terminal = interactive and sys.stdin is not None and sys.stdin.isatty()
        return _from_plugin(context, given, cancel=cancel, terminal=terminal)
    if user.get("auth-provider"):
        raise DevloopError.of(
            Code.CONFIG_NOT_SUPPORTED,
            f"user {context.user_name!r} logs in with an auth-provider, which devloop cannot use",
            suggestions=(
                "use a credential plugin (exec:) instead: kubelogin does OpenID Connect",
                "https://kubernetes.io/docs/reference/access-authn-authz/authentication/",
            ),
        )
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password') or ''}".encode()
        return replace(given, authorization=f"Basic {base64.b64encode(pair).decode('ascii')}")
    return given if given.cert else UserCredentials()


def impersonation(context: Context) -> tuple[tuple[str, str], ...]:
    """The headers that make the API server act as somebody else: (name, value), names may repeat.

    Raises config/value for groups or the like without a user."""
    user = context.user_entry
    headers = [("Impersonate-Uid", str(user["as-uid"]))] if user.get("as-uid") else []
    headers += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        name = f"Impersonate-Extra-{quote(str(key), safe=_HEADER_SAFE)}"
        headers += [(name, str(value)) for value in values or ()]
    if user.get("as"):
        return (("Impersonate-User", str(user["as"])), *headers)
    if headers:
        raise DevloopError.of(
            Code.CONFIG_VALUE,
            f"user {context.user_name!r} of the kubeconfig names a uid, groups or user-extra to "
            "impersonate, but no user",
            suggestions=("add `as: NAME` to the user",),
        )
    return ()


def _from_plugin(
    context: Context, given: UserCredentials, *, cancel: Cancel, terminal: bool
) -> UserCredentials:
    plugin = context.user_entry["exec"]
    plugin = plugin if isinstance(plugin, dict) else {}
    command = str(plugin.get("command") or "")
    version = str(plugin.get("apiVersion") or "")
    if version not in _VERSIONS:
        raise _failed(context, plugin, f"apiVersion {version!r} is none of {', '.join(_VERSIONS)}")
    mode = str(plugin.get("interactiveMode") or "IfAvailable")
    if mode == "Always" and not terminal:
        raise _failed(context, plugin, "it asks questions, and there is no terminal for them now")
    interactive = terminal and mode != "Never"
    env = {str(e["name"]): str(e.get("value") or "") for e in plugin.get("env") or ()}
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = _cluster_info(context.cluster_entry)
    info = {"kind": "ExecCredential", "apiVersion": version, "spec": spec}
    try:
        done = process.capture(
            [command, *(str(arg) for arg in plugin.get("args") or ())],
            cancel=cancel,
            limit=_LIMIT,
            env={**os.environ, **env, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            terminal=interactive,
        )
    except process.CannotRun as error:
        raise _failed(context, plugin, error.reason) from error
    except process.Overran as error:
        raise _failed(context, plugin, f"it did not end in {_LIMIT:.0f} s", error.err) from error
    if done.status != 0:
        last = done.err.strip().splitlines()[-1:] or [f"exit status {done.status}"]
        raise _failed(context, plugin, last[0], done.err)
    try:
        return _answered(json.loads(done.out), version, given)
    except (ValueError, TypeError, AttributeError) as error:
        raise _failed(context, plugin, str(error), done.err) from error


def _cluster_info(entry: Json) -> dict[str, Any]:
    """The cluster as a plugin is told of it: certificates always as data."""
    keys = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
    info = {key: entry[key] for key in (*keys, "disable-compression") if entry.get(key)}
    if ca := pem_of(entry, "certificate-authority"):
        info["certificate-authority-data"] = base64.b64encode(ca.encode()).decode("ascii")
    for extension in entry.get("extensions") or ():
        if extension.get("name") == f"{_EXEC_API}/exec":
            info["config"] = extension.get("extension")
    return info


def _answered(answer: Any, version: str, given: UserCredentials) -> UserCredentials:
    """A plugin's ExecCredential; ValueError says what is wrong with it."""
    if answer.get("apiVersion") != version or answer.get("kind") != "ExecCredential":
        got = f"{answer.get('kind')} of {answer.get('apiVersion')}"
        raise ValueError(f"it answered {got}, not ExecCredential of {version}")
    status = answer.get("status") or {}
    token = status.get("token")
    cert, key = status.get("clientCertificateData"), status.get("clientKeyData")
    if bool(cert) != bool(key):
        raise ValueError("it gave a certificate without its key, or a key alone")
    if not token and not cert:
        raise ValueError("it gave neither a token nor a certificate")
    expires = status.get("expirationTimestamp")
    return UserCredentials(
        authorization=f"Bearer {token}" if token else "",
        cert=cert or given.cert,
        key=key or given.key,
        source="plugin",
        expires=dt.datetime.fromisoformat(expires).timestamp() if expires else None,
    )


def _failed(context: Context, plugin: Json, cause: str, detail: str = "") -> DevloopError:
    command, hint = plugin.get("command"), str(plugin.get("installHint") or "").strip()
    return DevloopError.of(
        Code.CLUSTER_UNAUTHORIZED,
        f"the credential plugin {command!r} of user {context.user_name!r} failed",
        cause=cause,
        suggestions=(
            hint.splitlines()[0] if hint else f"run `{command}` by hand, or log in again",
        ),
        detail=tuple(detail.splitlines()[:20]),
    )
