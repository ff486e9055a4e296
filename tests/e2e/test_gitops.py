"""Workloads that Flux or Argo CD owns. Their objects are real, of small definitions that this file
makes where the cluster has none; no controller acts on them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event, Workspace

    Start = Callable[..., Devloop]

AUTOMATED = {"prune": True, "selfHeal": True}


def definition(group: str, version: str, plural: str, kind: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


@pytest.fixture(scope="module", autouse=True)
def definitions() -> Iterator[None]:
    made = []
    for group, version, plural, kind in (
        ("kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization"),
        ("argoproj.io", "v1alpha1", "applications", "Application"),
    ):
        name = f"{plural}.{group}"
        there = subprocess.run(
            ["kubectl", "get", "crd", name], capture_output=True, timeout=60, check=False
        )
        if there.returncode:
            text = json.dumps(definition(group, version, plural, kind))
            subprocess.run(
                ["kubectl", "create", "-f", "-"], input=text, text=True, timeout=60, check=True
            )
            made.append(f"crd/{name}")
        subprocess.run(
            ["kubectl", "wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s"],
            timeout=90,
            check=True,
        )
    yield
    if made:
        subprocess.run(["kubectl", "delete", "--wait=false", *made], timeout=60, check=True)


def kustomization(cluster: Cluster) -> dict[str, Any]:
    """The owner, as it is now."""
    return cluster.get("kustomization.kustomize.toolkit.fluxcd.io", "shop")


def deployed(devloop: Start, cluster: Cluster) -> None:
    """The app runs, as if Flux had applied it."""
    run = devloop("run")
    assert run.join(120) == 0, run.story()
    owner = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": "shop"},
        "spec": {"interval": "10m", "prune": True},
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(owner))
    cluster.kubectl(
        "label",
        "deployment/web",
        "kustomize.toolkit.fluxcd.io/name=shop",
        f"kustomize.toolkit.fluxcd.io/namespace={cluster.namespace}",
    )


def test_flux_is_held_for_or_suspended_and_resumed_even_after_a_kill(
    devloop: Start, cluster: Cluster, workspace: Workspace
) -> None:
    deployed(devloop, cluster)
    workspace.version("v1")
    # It holds, until somebody suspends the owner.
    session = devloop("dev")

    def held(event: Event) -> bool:
        is_hold: bool = event["type"] == "hold" and event.get("code") == "safety/gitops-owned"
        return is_hold

    assert f"Kustomization {cluster.namespace}/shop" in session.wait(held, "hold", 120)["reason"]
    cluster.serves("v0")
    suspend = '{"spec":{"suspend":true}}'
    kind = "kustomization.kustomize.toolkit.fluxcd.io/shop"
    cluster.kubectl("patch", kind, "--type=merge", "-p", suspend)
    session.ready_at_last(120)
    cluster.serves("v1")
    session.interrupt()
    assert kustomization(cluster)["spec"]["suspend"] is True
    cluster.kubectl("patch", kind, "--type=merge", "-p", '{"spec":{"suspend":null}}')
    before = kustomization(cluster)

    # It is suspended for the session alone.
    workspace.version("v2")
    session = devloop("dev", "--suspend-gitops")
    session.ready_at_last(120)
    assert kustomization(cluster)["spec"]["suspend"] is True
    cluster.serves("v2")
    session.interrupt()
    after = kustomization(cluster)
    assert after["spec"] == before["spec"]
    assert not after["metadata"].get("annotations")

    session = devloop("dev", "--suspend-gitops")
    until(lambda: kustomization(cluster)["spec"].get("suspend") is True, 120)
    session.kill()
    assert kustomization(cluster)["spec"]["suspend"] is True
    again = devloop("run")
    assert again.join(120) == 4, again.story()
    codes = [said["code"] for said in again.of("diagnostic")]
    assert "safety/gitops-owned" in codes
    assert kustomization(cluster)["spec"] == before["spec"]


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
