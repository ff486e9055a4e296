"""Say what an API server's refusal or a broken connection means.

Pure: takes what came back, gives the error to raise. No I/O and no retrying here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import urllib3.exceptions

from devloop.base.net_tls import CertificateError, TlsError
from devloop.base.sockets import UnknownHost
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from devloop.cluster.api.pod_view import Json


class ApiError(DevloopError):
    """A refusal by the API server. `status` is the HTTP status (or the code of a Status object in
    a stream), `reason` the Status' reason, `details` its details."""

    def __init__(
        self,
        diagnosis: Diagnosis,
        *,
        status: int,
        reason: str = "",
        details: Json | None = None,
        text: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(diagnosis)
        self.status = status
        self.reason = reason
        self.details = details or {}
        self.text = text
        self.retry_after = retry_after

    @property
    def causes(self) -> list[dict[str, Any]]:
        causes = self.details.get("causes")
        return [c for c in causes if isinstance(c, dict)] if isinstance(causes, list) else []

    @property
    def expired(self) -> bool:
        """The resource version asked for is gone: list again."""
        return self.status == 410 or self.reason in {"Expired", "Gone"}

    @property
    def passing(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.status == 429 or (self.status >= 500 and _TYPED not in self.text)

    @property
    def too_large(self) -> bool:
        """The server has not seen the resource version yet (it was restored, or we are ahead)."""
        named = any(c.get("reason") == "ResourceVersionTooLarge" for c in self.causes)
        return named or "Too large resource version" in self.text


class ApiTarget:
    """What a request is about, read from its path: used in words only."""

    __slots__ = ("group", "name", "namespace", "resource", "subresource")

    def __init__(
        self, group: str, namespace: str, resource: str, name: str, subresource: str
    ) -> None:
        self.group = group
        self.namespace = namespace
        self.resource = resource
        self.name = name
        self.subresource = subresource

    def __str__(self) -> str:
        text = f"{self.resource} {self.name!r}" if self.name else self.resource or "the API"
        return f"{text} in namespace {self.namespace!r}" if self.namespace else text


_PATH = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)"
    r"(?:/namespaces/(?P<ns>[^/]+)(?=/))?"
    r"(?:/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?)?$"
)


def target_of(path: str) -> ApiTarget:
    found = _PATH.match(path)
    if not found:
        return ApiTarget("", "", "", "", "")
    part = {k: v or "" for k, v in found.groupdict().items()}
    return ApiTarget(part["group"], part["ns"], part["resource"], part["name"], part["sub"])


# The server answers 500 to a server-side apply with a field that its schema does not have.
_TYPED = "typed patch object"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {"message": body.decode("utf-8", "replace").strip()}
    return value if isinstance(value, dict) else {}


def status_error(
    status: int,
    body: bytes | Json,
    *,
    method: str,
    path: str,
    server: str,
    user: str = "",
    retry_after: float | None = None,
) -> ApiError:
    """Turn an HTTP error answer into the error to raise; never fails itself."""
    value = _status_object(body) if isinstance(body, bytes) else dict(body)
    text = str(value.get("message") or "").strip()
    reason = str(value.get("reason") or "")
    details = value.get("details")
    details = details if isinstance(details, dict) else {}
    target = target_of(path)
    cause = _one_line(text) or None
    verb = _VERBS.get(method, "get" if target.name else "list")
    if status == 401:
        diagnosis = Diagnosis(
            code=Code.CLUSTER_UNAUTHORIZED,
            message=f"{server} does not accept the credentials of user {user!r}",
            cause=cause,
            suggestions=("log in again, then retry", "look at `kubectl config view --minify`"),
        )
    elif status == 403 and _by_rules(text):
        diagnosis = _forbidden(cause, verb, target, user)
    elif status == 404:
        diagnosis = Diagnosis(
            code=Code.CLUSTER_NOT_FOUND, message=f"{target} does not exist", cause=cause
        )
    elif status == 409:
        diagnosis = Diagnosis(
            code=Code.CLUSTER_CONFLICT, message=f"cannot {verb} {target}: conflict", cause=cause
        )
    elif "webhook" not in text and (status == 429 or (status >= 500 and _TYPED not in text)):
        diagnosis = Diagnosis(
            code=Code.CLUSTER_UNREACHABLE,
            message=f"{server} cannot answer now (HTTP {status})",
            cause=cause,
            suggestions=("wait for the API server, then retry",),
        )
    else:
        diagnosis = Diagnosis(
            code=Code.CLUSTER_REJECTED,
            message=f"the cluster refused to {verb} {target}",
            cause=cause or reason or f"HTTP {status}",
            suggestions=_rejected_hint(text, reason),
            detail=_fields(details),
        )
    return ApiError(
        diagnosis, status=status, reason=reason, details=details, text=text, retry_after=retry_after
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]


def _fields(details: Json) -> tuple[str, ...]:
    causes = details.get("causes")
    return tuple(
        f"{c.get('field') or ''}: {c.get('message') or ''}".strip(": ")
        for c in (causes if isinstance(causes, list) else ())
        if isinstance(c, dict)
    )


def _rejected_hint(text: str, reason: str) -> tuple[str, ...]:
    if _TYPED in text:
        return ("correct the field's name or place in the manifest",)
    if "admission webhook" in text or "ValidatingAdmissionPolicy" in text:
        return ("an admission rule of the cluster refused it: change the manifest as it asks",)
    if "webhook" in text:
        return ("a webhook of the cluster does not answer: look at the pods behind it",)
    if "exceeded quota" in text:
        return ("free some of the namespace's quota, or ask for more",)
    if "being terminated" in text:
        return ("the namespace is being deleted: wait until it is gone, or use another",)
    if "immutable" in text:
        return ("delete the object (`kubectl delete`), then deploy again",)
    return ("correct the manifest",) if reason in {"Invalid", "BadRequest"} else ()


def _by_rules(text: str) -> bool:
    """403 is also what quotas, pod security and webhooks answer; only RBAC's has these words."""
    return " cannot " in text or not text


def _forbidden(cause: str | None, verb: str, target: ApiTarget, user: str) -> Diagnosis:
    resource = target.resource + (f"/{target.subresource}" if target.subresource else "")
    verbs = sorted({verb, "get", "list", "watch"} if verb in {"get", "list"} else {verb})
    kind, scope = ("Role", f", namespace: {target.namespace}")
    if not target.namespace:
        kind, scope = "ClusterRole", ""
    named = re.search(r'User "([^"]+)"', cause or "")
    subject = named.group(1) if named else user
    snippet = (
        "apiVersion: rbac.authorization.k8s.io/v1",
        f"kind: {kind}",
        f"metadata: {{name: devloop{scope}}}",
        "rules:",
        f'- apiGroups: ["{target.group}"]',
        f'  resources: ["{resource}"]',
        f"  verbs: {json.dumps(verbs)}",
        "---",
        "apiVersion: rbac.authorization.k8s.io/v1",
        f"kind: {kind}Binding",
        f"metadata: {{name: devloop{scope}}}",
        f"roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: devloop}}",
        f"subjects: [{{kind: User, apiGroup: rbac.authorization.k8s.io, name: {subject!r}}}]",
    )
    where = f" in namespace {target.namespace!r}" if target.namespace else ""
    return Diagnosis(
        code=Code.CLUSTER_FORBIDDEN,
        message=f"{subject!r} may not {verb} {resource or 'this'}{where}",
        cause=cause,
        suggestions=("ask an administrator of the cluster to apply the rule below",),
        detail=snippet,
    )


def connection_error(error: BaseException, server: str, *, context: str = "") -> DevloopError:
    """Turn a failure to connect, send or receive into cluster/unreachable, the cause in words."""
    cause, hint = _why(error)
    suggestions = [hint] if hint else []
    if not context or context.startswith("kind-"):
        suggestions.append("devloop cluster up starts the local cluster")
    else:
        suggestions.append("start the cluster, or choose another with --context")
    return DevloopError.of(
        Code.CLUSTER_UNREACHABLE,
        f"{server} does not answer",
        cause=cause,
        suggestions=tuple(suggestions),
    )


def _why(error: BaseException) -> tuple[str, str | None]:
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in chain:
        chain.append(seen)
        inner = getattr(seen, "reason", None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
    for link in chain:
        if isinstance(link, UnknownHost):
            return "DNS: the server's name is not known", "check the VPN or the kubeconfig's server"
        if isinstance(link, CertificateError):
            return (
                f"TLS: {link.verify_message or 'the certificate is not trusted'}",
                "the kubeconfig belongs to another (perhaps an earlier) cluster: renew it",
            )
        if isinstance(link, ConnectionRefusedError):
            return "connection refused: nothing listens there", None
    for link in chain:
        if isinstance(link, (TimeoutError, urllib3.exceptions.TimeoutError)):
            return "no answer in time", "check the network or the VPN"
        if isinstance(link, (TlsError, urllib3.exceptions.SSLError)):
            return f"TLS: {link}", None
    last = chain[-1]
    return _one_line(str(last)) or type(last).__name__, None
