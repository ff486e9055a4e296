from __future__ import annotations

from typing import Any

import pytest

from devloop.cluster.api.local_nodes import made_by
from devloop.cluster.deploy.guard import check_context, check_namespace, local_reason
from devloop.errors import DevloopError


@pytest.mark.parametrize(
    ("context", "server"),
    [
        ("kind-dev", "https://127.0.0.1:6443"),
        ("minikube", "https://localhost:1"),
        ("k3d-x", "https://[::1]:6443"),
        ("kind-x", "https://k8s.localhost"),
        ("docker-desktop", "https://host.docker.internal:6443"),
        ("docker-desktop", "https://kubernetes.docker.internal:6443"),
        ("kind-dev", "https://kind-dev-control-plane:6443"),
        ("minikube", "https://192.168.49.2:8443"),
        ("k3d-x", "https://10.0.0.4:6443"),
        ("orbstack", "https://k8s.orb.local"),
        ("rancher-desktop", "https://127.0.0.1:6443"),
        ("colima-work", "https://127.0.0.1:4"),
        ("microk8s", "https://10.1.2.3:16443"),
    ],
)
def test_local(context: str, server: str) -> None:
    assert local_reason(context, server)
    check_context(context, server, ())


@pytest.mark.parametrize(
    ("context", "server"),
    [
        ("prod", "https://10.0.0.4:6443"),
        ("gke_x", "https://34.90.1.2"),
        ("kind-prod", "https://34.90.1.2"),
        ("minikube", "https://k8s.example.com"),
        ("prod", "https://localhost.example.com"),
        ("prod", ""),
        ("kindergarten", "https://10.0.0.4"),
        # A tunnel to any cluster ends here.
        ("prod-eu", "https://127.0.0.1:6443"),
        ("prod-eu", "https://[::1]:6443"),
        ("prod-eu", "https://localhost:6443"),
        ("prod-eu", "https://host.docker.internal:6443"),
    ],
)
def test_not_local(context: str, server: str) -> None:
    with pytest.raises(DevloopError) as caught:
        check_context(context, server, ("other",))
    assert caught.value.code == "safety/context"
    assert caught.value.exit_status == 4
    assert f"allow_contexts: [{context}]" in caught.value.diagnosis.suggestions[0]
    check_context(context, server, (context,))


@pytest.mark.parametrize("name", ["kube-system", "kube-public", "kube-node-lease"])
def test_protected_namespaces(name: str) -> None:
    with pytest.raises(DevloopError) as caught:
        check_namespace(name)
    assert caught.value.code == "safety/protected-namespace"


def test_other_namespaces() -> None:
    check_namespace("default")


@pytest.mark.parametrize(
    ("kind", "allowed", "hint"),
    [
        ("RoleBinding", (), "allow_namespaces: [kube-system]"),
        ("RoleBinding", ("kube-public",), "allow_namespaces: [kube-system]"),
        ("Deployment", ("kube-system",), "name another namespace in the manifest"),
        ("ServiceAccount", ("kube-system",), "name another namespace in the manifest"),
    ],
)
def test_what_runs_is_never_written_to_the_clusters_own_namespaces_and_rights_if_allowed(
    kind: str, allowed: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(DevloopError) as caught:
        check_namespace("kube-system", kind, allowed)
    assert caught.value.code == "safety/protected-namespace"
    assert hint in caught.value.diagnosis.suggestions[0]
    check_namespace("kube-system", "Role", ("kube-system",))
    check_namespace("default", "Deployment")


def test_a_local_tools_nodes_prove_what_a_name_does_not() -> None:
    asked: list[str] = []

    def tool() -> str:
        asked.append("nodes")
        return "kind"

    assert local_reason("mine", "https://127.0.0.1:1", tool) is not None
    assert local_reason("kind-x", "https://127.0.0.1:1", tool) is not None
    assert local_reason("mine", "https://10.0.0.4", tool) is None
    assert local_reason("mine", "https://34.90.1.2", tool) is None
    assert asked == ["nodes"]


@pytest.mark.parametrize(
    ("nodes", "tool"),
    [
        ([{"spec": {"providerID": "kind://docker/a/a-control-plane"}}], "kind"),
        ([{"spec": {"providerID": "k3s://k3d-a-server-0"}}], "k3d"),
        ([{"spec": {"providerID": "k3s://web-1"}}], ""),
        ([{"spec": {"providerID": "aws:///eu-west-1a/i-0"}}], ""),
        ([{"metadata": {"labels": {"minikube.k8s.io/name": "minikube"}}}], "minikube"),
        ([{"metadata": {"name": "docker-desktop"}}], "Docker Desktop"),
        ([{"spec": {"providerID": "kind://docker/a/a"}}, {"metadata": {"name": "b"}}], ""),
        ([], ""),
    ],
)
def test_nodes_tell_who_made_them(nodes: list[dict[str, Any]], tool: str) -> None:
    assert made_by(nodes)[0] == tool


@pytest.mark.parametrize(
    ("nodes", "cluster"),
    [
        ([{"spec": {"providerID": "kind://docker/a/a-control-plane"}}], "a"),
        ([{"spec": {"providerID": f"kind://podman/a-b/{n}"}} for n in ("x", "y")], "a-b"),
        ([{"spec": {"providerID": "k3s://k3d-server-1-server-0"}}], "server-1"),
        ([{"spec": {"providerID": "k3s://k3d-a-agent-12"}}], "a"),
        ([{"metadata": {"labels": {"minikube.k8s.io/name": "mine"}}}], "mine"),
        ([{"metadata": {"labels": {"microk8s.io/cluster": "true"}}}], "microk8s"),
        ([{"spec": {"providerID": f"kind://docker/{c}/n"}} for c in "ab"], ""),
        ([], ""),
    ],
)
def test_nodes_tell_what_their_cluster_is_called(nodes: list[dict[str, Any]], cluster: str) -> None:
    assert made_by(nodes)[1] == cluster
