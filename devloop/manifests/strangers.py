"""Files that lie among manifests and are none: what kustomize, Helm, Compose and other tools read.

A directory or a wildcard brings them along, as `kubectl apply -f k8s/` meets them. Must not read
files: it is given names and what is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


_KUSTOMIZATIONS = frozenset({"kustomization.yaml", "kustomization.yml"})
_KUSTOMIZATION = (
    "this directory is a kustomization, of which devloop applies the files as they stand"
)
# API groups that no cluster serves: configuration in the shape of an object.
_TOOLS = {
    "kustomize.config.k8s.io": _KUSTOMIZATION,
    "skaffold": "it configures Skaffold",
    "kind.x-k8s.io": "it configures kind",
    "k3d.io": "it configures k3d",
    "ctlptl.dev": "it configures ctlptl",
    "kubeadm.k8s.io": "it configures kubeadm",
    "eksctl.io": "it configures eksctl",
    "kuttl.dev": "it is a test of kuttl",
    "client.authentication.k8s.io": "it holds credentials",
}
# Files by their name that hold nothing with a kind, and why they are there.
_NAMED = {
    "chart.yaml": "it describes a Helm chart",
    "values.yaml": "it holds a Helm chart's values",
    "devloop.yaml": "it configures devloop",
    "compose.yaml": "it is for Docker Compose",
    "docker-compose.yaml": "it is for Docker Compose",
    "docker-compose.yml": "it is for Docker Compose",
}


def kustomization(name: str) -> bool:
    """Whether a file of this name is what kustomize reads first."""
    return name.lower() in _KUSTOMIZATIONS


def what_else(name: str, documents: Sequence[Any]) -> str:
    """What a file is, in words, that none of the cluster's objects is in; "" for manifests.

    `documents` are the values of its documents. One that holds any object, or something that may
    be an object with a mistake in it, is no stranger."""
    if kustomization(name):
        return _KUSTOMIZATION
    if not documents or not all(isinstance(each, dict) for each in documents):
        return ""
    groups = {str(each.get("apiVersion") or "").rpartition("/")[0] for each in documents}
    if len(groups) == 1 and (words := _TOOLS.get(groups.pop())):
        return words
    if any("kind" in each or ("apiVersion" in each and "metadata" in each) for each in documents):
        return ""
    if words := _NAMED.get(name.lower()):
        return words
    if any("apiVersion" in each or "metadata" in each or "spec" in each for each in documents):
        return ""
    return "nothing in it has an apiVersion or a kind"
