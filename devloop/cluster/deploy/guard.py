"""Refuse clusters and namespaces that nobody said devloop may write to.

Pure. Called once with the pinned connection's facts before the first write; nothing else in
devloop decides this, and nothing here asks the cluster.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable


PROTECTED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})

# The names that the tools for local clusters give their contexts.
_LOCAL_NAMES = (
    "kind-*",
    "k3d-*",
    "minikube",
    "docker-desktop",
    "docker-for-desktop",
    "rancher-desktop",
    "colima",
    "colima-*",
    "orbstack",
    "microk8s",
)
_LOCAL_HOSTS = frozenset(
    {
        "localhost",
        "host.docker.internal",
        "host.containers.internal",
        "gateway.docker.internal",
        "kubernetes.docker.internal",
        "host.lima.internal",
        "host.minikube.internal",
    }
)
# Private addresses are local only together with a local tool's name: an office's or a cloud's
# clusters have them too, so an address alone proves nothing unless it is loopback.


def local_reason(context: str, server: str) -> str | None:
    """Why the cluster counts as local, or None. `server` is the API server's URL.

    The name alone is not believed when the server has a public address or a real DNS name: a
    context can be called anything."""
    host = (urlsplit(server).hostname or "").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    loopback = address is not None and address.is_loopback
    if loopback or host in _LOCAL_HOSTS or host.endswith(".localhost"):
        return f"the server is {host}"
    if not any(fnmatch.fnmatchcase(context, pattern) for pattern in _LOCAL_NAMES):
        return None
    private = address is not None and (address.is_private or address.is_link_local)
    plain = address is None and "." not in host  # a container's name, as in `kind-control-plane`
    internal = host.endswith((".internal", ".local", ".orb.local"))
    return f"the context is called {context}" if private or plain or internal else None


def check_context(context: str, server: str, allowed: Iterable[str]) -> None:
    """Raise safety/context unless the cluster is local or `allowed` names the context exactly."""
    if context in set(allowed) or local_reason(context, server) is not None:
        return
    raise DevloopError.of(
        Code.SAFETY_CONTEXT,
        f"context {context!r} ({server}) is not known to be a local cluster",
        cause="devloop writes only to local clusters and to those allowed by name",
        suggestions=(
            f"add to devloop.yaml: allow_contexts: [{context}]",
            "or choose another with --context",
        ),
    )


def check_namespace(namespace: str) -> None:
    """Raise safety/protected-namespace for the namespaces that a cluster needs to live."""
    if namespace in PROTECTED_NAMESPACES:
        raise DevloopError.of(
            Code.SAFETY_PROTECTED_NAMESPACE,
            f"devloop does not write to namespace {namespace!r}",
            cause="it belongs to the cluster itself",
            suggestions=("name another with --namespace or `namespace:` in devloop.yaml",),
        )
