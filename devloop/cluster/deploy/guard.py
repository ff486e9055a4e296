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
    from collections.abc import Callable, Collection, Iterable


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
# An address alone proves nothing: an office's or a cloud's clusters have private ones too, and a
# tunnel to any cluster ends at this computer's own.


def local_reason(
    context: str, server: str, local_tool: Callable[[], str] = lambda: ""
) -> str | None:
    """Why the cluster counts as local, or None. `server` is the API server's URL; `local_tool` is
    asked for the tool that made the nodes when the server is at this computer and the context has a
    name of its own.

    The name alone is not believed when the server has a public address or a real DNS name: a
    context can be called anything."""
    host = (urlsplit(server).hostname or "").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    loopback = address is not None and address.is_loopback
    here = loopback or host in _LOCAL_HOSTS or host.endswith(".localhost")
    if not any(fnmatch.fnmatchcase(context, pattern) for pattern in _LOCAL_NAMES):
        tool = local_tool() if here else ""
        return f"the server is {host} and its nodes are {tool}'s" if tool else None
    if here:
        return f"the context is called {context}"
    private = address is not None and (address.is_private or address.is_link_local)
    plain = address is None and "." not in host  # a container's name, as in `kind-control-plane`
    internal = host.endswith((".internal", ".local", ".orb.local"))
    return f"the context is called {context}" if private or plain or internal else None


def check_context(
    context: str,
    server: str,
    allowed: Iterable[str],
    local_tool: Callable[[], str] = lambda: "",
) -> None:
    """Raise safety/context unless the cluster is local (see `local_reason`) or `allowed` names the
    context exactly."""
    if context in set(allowed) or local_reason(context, server, local_tool) is not None:
        return
    raise DevloopError.of(
        Code.SAFETY_CONTEXT,
        f"context {context!r} ({server}) is not known to be a local cluster",
        cause="devloop writes only to local clusters and to those allowed by name; an address of "
        "this computer may be a tunnel's",
        suggestions=(
            f"add to devloop.yaml: allow_contexts: [{context}]",
            "or choose another with --context",
        ),
    )


# What others need to read the cluster's own configuration, as metrics-server's manifests have it.
_RULES = frozenset({"Role", "RoleBinding"})


def check_namespace(namespace: str, kind: str = "", allowed: Collection[str] = ()) -> None:
    """Raise safety/protected-namespace for the namespaces that a cluster needs to live.

    An object of `kind` that only gives rights may be written where `allowed` names the
    namespace."""
    if namespace not in PROTECTED_NAMESPACES or (kind in _RULES and namespace in allowed):
        return
    hint = "name another with --namespace or `namespace:` in devloop.yaml"
    if kind in _RULES:
        hint = f"say that it may: allow_namespaces: [{namespace}] in devloop.yaml"
    elif kind:
        hint = "name another namespace in the manifest"
    what = f"a {kind} in" if kind else "to"
    raise DevloopError.of(
        Code.SAFETY_PROTECTED_NAMESPACE,
        f"devloop does not write {what} namespace {namespace!r}",
        cause="it belongs to the cluster itself",
        suggestions=(hint,),
    )
