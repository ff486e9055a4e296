"""Which tool for local clusters made a cluster's nodes, by the marks that it leaves on them. Pure.

A context can be called anything and a tunnel to production has an address of this computer, but
what a node is called and who provides it is written by whoever made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import dig, labels, name_of, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.cluster.api.pod_view import Json


# What `spec.providerID` begins with. k3s alone is no mark: it runs in production as well.
_PROVIDERS = {"kind://": "kind", "k3s://k3d-": "k3d"}
_LABELS = {"minikube.k8s.io/name": "minikube", "microk8s.io/cluster": "MicroK8s"}
_NAMES = {
    "docker-desktop": "Docker Desktop",
    "lima-rancher-desktop": "Rancher Desktop",
    "orbstack": "OrbStack",
    "colima": "Colima",
}


def local_tool(nodes: Iterable[Json]) -> str:
    """The tool that made all of `nodes`; "" when one of them has no mark, or there is none."""
    found = {_tool(node) for node in nodes}
    return found.pop() if len(found) == 1 else ""


def _tool(node: Json) -> str:
    provider = text(dig(node, "spec", "providerID"))
    by_provider = (tool for mark, tool in _PROVIDERS.items() if provider.startswith(mark))
    by_label = (tool for label, tool in _LABELS.items() if label in labels(node))
    return next(by_provider, "") or next(by_label, "") or _NAMES.get(name_of(node), "")
