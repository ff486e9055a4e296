"""Which tool for local clusters made a cluster's nodes, by the marks that it leaves on them. Pure.

A context can be called anything and a tunnel to production has an address of this computer, but
what a node is called and who provides it is written by whoever made it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import dig, labels, name_of, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.cluster.api.pod_view import Json


# What `spec.providerID` begins with. k3s alone is no mark: it runs in production as well.
_PROVIDERS = {"kind://": "kind", "k3s://k3d-": "k3d"}
# What it goes on with, up to the cluster's name.
_CLUSTERS = {
    "kind": re.compile(r"kind://[^/]*/([^/]+)/"),
    "k3d": re.compile(r"k3s://k3d-(.+)-(?:server|agent)-\d+$"),
}
_LABELS = {"minikube.k8s.io/name": "minikube", "microk8s.io/cluster": "MicroK8s"}
_NAMES = {
    "docker-desktop": "Docker Desktop",
    "lima-rancher-desktop": "Rancher Desktop",
    "orbstack": "OrbStack",
    "colima": "Colima",
}


def made_by(nodes: Iterable[Json]) -> tuple[str, str]:
    """The tool that made all of `nodes`, "" when one of them has no mark or there is none; and its
    name for their cluster, as far as that can be told."""
    nodes = tuple(nodes)
    tools = {_tool(node) for node in nodes}
    tool = tools.pop() if len(tools) == 1 else ""
    names = {_cluster(tool, node) for node in nodes} if tool else set()
    return tool, names.pop() if len(names) == 1 else ""


def _cluster(tool: str, node: Json) -> str:
    provider = text(dig(node, "spec", "providerID"))
    if tool == "minikube":
        return text(labels(node).get("minikube.k8s.io/name"))
    found = _CLUSTERS[tool].match(provider) if tool in _CLUSTERS else None
    return found[1] if found else tool.lower()


def _tool(node: Json) -> str:
    provider = text(dig(node, "spec", "providerID"))
    by_provider = (tool for mark, tool in _PROVIDERS.items() if provider.startswith(mark))
    by_label = (tool for label, tool in _LABELS.items() if label in labels(node))
    return next(by_provider, "") or next(by_label, "") or _NAMES.get(name_of(node), "")
