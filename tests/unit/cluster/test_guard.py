from __future__ import annotations

import pytest

from devloop.cluster.deploy.guard import check_context, check_namespace, local_reason
from devloop.errors import DevloopError


@pytest.mark.parametrize(
    ("context", "server"),
    [
        ("kind-dev", "https://127.0.0.1:6443"),
        ("prod", "https://127.0.0.1:6443"),
        ("whatever", "https://localhost:1"),
        ("x", "https://[::1]:6443"),
        ("x", "https://k8s.localhost"),
        ("x", "https://host.docker.internal:6443"),
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
