"""Say what an API server's refusal or a broken connection means.

Pure: takes what came back, gives the error to raise. No I/O and no retrying here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import urllib3.exceptions

from devloop.base.lazy_dataclass import dataclass
from devloop.base.net_tls import CertificateError, TlsError
from devloop.base.sockets import UnknownHost
from devloop.cluster.api.pod_view import items
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
        return items(self.details.get("causes"))

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


@dataclass(frozen=True, slots=True)
class ApiTarget:
    """What a request is about, read from its path: used in words only."""

    group: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        text = f"{self.resource} {self.name!r}" if self.name else self.resource or "the API"
        return f"{text} in namespace {self.namespace!r}" if self.namespace else text


_PATH = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"(?:/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>.+))?)?)?$"
)
# The server answers 500 to a server-side apply with a field that its schema does not have.
_TYPED = "typed patch object"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def status_object(body: bytes) -> dict[str, Any]:
    """A `metav1.Status` as it was sent; with its text as the message where it is none."""
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
    value = status_object(body) if isinstance(body, bytes) else dict(body)
    text = str(value.get("message") or "").strip()
    reason = str(value.get("reason") or "")
    details = value.get("details")
    details = details if isinstance(details, dict) else {}
    found = _PATH.match(path)
    target = ApiTarget(**found.groupdict("")) if found else ApiTarget()
    cause = _one_line(text) or None
    verb = _VERBS.get(method, "get" if target.name else "list")
    hints: tuple[str, ...] = ()
    detail: tuple[str, ...] = ()
    if status == 401:
        code = Code.CLUSTER_UNAUTHORIZED
        message = f"{server} does not accept the credentials of user {user!r}"
        hints = ("log in again, then retry", "look at `kubectl config view --minify`")
    elif status == 403 and _by_rules(text):
        named = re.search(r'User "([^"]+)"', text)
        subject = named[1] if named else user
        resource = target.resource + (f"/{target.subresource}" if target.subresource else "")
        where = f" in namespace {target.namespace!r}" if target.namespace else ""
        code = Code.CLUSTER_FORBIDDEN
        message = f"{subject!r} may not {verb} {resource or 'this'}{where}"
        hints = ("ask an administrator of the cluster to apply the rule below",)
        detail = _rule(verb, target, resource, subject)
    elif status == 404:
        code, message = Code.CLUSTER_NOT_FOUND, f"{target} does not exist"
    elif status == 409:
        code, message = Code.CLUSTER_CONFLICT, f"cannot {verb} {target}: conflict"
    elif "webhook" not in text and (status == 429 or (status >= 500 and _TYPED not in text)):
        code, message = Code.CLUSTER_UNREACHABLE, f"{server} cannot answer now (HTTP {status})"
        hints = ("wait for the API server, then retry",)
    else:
        code, message = Code.CLUSTER_REJECTED, f"the cluster refused to {verb} {target}"
        cause = cause or reason or f"HTTP {status}"
        hints = _rejected_hint(text, reason)
        causes = items(details.get("causes"))
        fields = ((c.get("field") or "", c.get("message") or "") for c in causes)
        detail = tuple(f"{field}: {said}".strip(": ") for field, said in fields)
    diagnosis = Diagnosis(code=code, message=message, cause=cause, suggestions=hints, detail=detail)
    return ApiError(
        diagnosis, status=status, reason=reason, details=details, text=text, retry_after=retry_after
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]


_ADMISSION = "an admission rule of the cluster refused it: change the manifest as it asks"
_REJECTED_HINTS = (
    (
        "immutable when `immutable` is set",
        "give it another name, there and where pods read it: nodes keep an immutable one",
    ),
    (_TYPED, "correct the field's name or place in the manifest"),
    ("admission webhook", _ADMISSION),
    ("ValidatingAdmissionPolicy", _ADMISSION),
    ("webhook", "a webhook of the cluster does not answer: look at the pods behind it"),
    ("exceeded quota", "free some of the namespace's quota, or ask for more"),
    ("being terminated", "the namespace is being deleted: wait until it is gone, or use another"),
    ("immutable", "delete the object (`kubectl delete`), then deploy again"),
)


def _rejected_hint(text: str, reason: str) -> tuple[str, ...]:
    for words, hint in _REJECTED_HINTS:
        if words in text:
            return (hint,)
    return ("correct the manifest",) if reason in {"Invalid", "BadRequest"} else ()


def _by_rules(text: str) -> bool:
    """403 is also what quotas, pod security and webhooks answer; only RBAC's has these words."""
    return " cannot " in text or not text


def _rule(verb: str, target: ApiTarget, resource: str, subject: str) -> tuple[str, ...]:
    """The manifests that allow it."""
    verbs = sorted({verb, "get", "list", "watch"} if verb in {"get", "list"} else {verb})
    kind = "Role" if target.namespace else "ClusterRole"
    scope = f", namespace: {target.namespace}" if target.namespace else ""
    return (
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


def connection_error(error: BaseException, server: str, *, context: str = "") -> DevloopError:
    """Turn a failure to connect, send or receive into cluster/unreachable, the cause in words."""
    cause, hint = _why(error)
    start = "start the cluster, or choose another with --context"
    if not context or context.startswith("kind-"):
        start = "devloop cluster up starts the local cluster"
    suggestions = (hint, start) if hint else (start,)
    return DevloopError.of(
        Code.CLUSTER_UNREACHABLE, f"{server} does not answer", cause=cause, suggestions=suggestions
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
