"""Workloads that Argo CD owns. The Application is real, of a small definition that this file makes
where the cluster has none; no controller acts on it. Flux's own controllers are in test_flux.py."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

AUTOMATED = {"prune": True, "selfHeal": True}


DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "applications.argoproj.io"},
    "spec": {
        "group": "argoproj.io",
        "scope": "Namespaced",
        "names": {"plural": "applications", "kind": "Application", "singular": "application"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module", autouse=True)
def applications() -> Iterator[None]:
    name = "applications.argoproj.io"
    there = subprocess.run(
        ["kubectl", "get", "crd", name], capture_output=True, timeout=60, check=False
    )
    if there.returncode:
        text = json.dumps(DEFINITION)
        subprocess.run(
            ["kubectl", "create", "-f", "-"], input=text, text=True, timeout=60, check=True
        )
    subprocess.run(
        ["kubectl", "wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s"],
        timeout=90,
        check=True,
    )
    yield
    if there.returncode:
        subprocess.run(["kubectl", "delete", "--wait=false", f"crd/{name}"], timeout=60, check=True)


def test_an_applications_automation_comes_back_as_it_was(
    devloop: Start, cluster: Cluster, workspace: Workspace
) -> None:
    assert devloop("run").join(120) == 0
    policy = {"automated": AUTOMATED, "syncOptions": ["ServerSideApply=true"]}
    app = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": "shop"},
        "spec": {"project": "default", "syncPolicy": policy},
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(app))
    where = f"{cluster.namespace}_shop:apps/Deployment:{cluster.namespace}/web"
    mark = f"argocd.argoproj.io/tracking-id={where}"
    cluster.kubectl("annotate", "deployment/web", mark)
    workspace.version("v1")
    assert devloop("run", "--suspend-gitops").join(120) == 0
    cluster.serves("v1")
    now = cluster.get("application.argoproj.io", "shop")
    assert now["spec"] == app["spec"]
    assert not now["metadata"].get("annotations")
    assert now["metadata"]["generation"] > 2
