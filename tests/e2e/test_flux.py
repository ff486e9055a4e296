"""What is handed over to Flux's real controllers runs, and what they own is left to them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.e2e import flux as installed
from tests.e2e.flux import Flux, host_inside, registry_inside
from tests.e2e.session import stage
from tests.support.git_server import GitServer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event, Workspace

    Start = Callable[..., Devloop]

MARKS = ("devloop.dev/", "deployment.kubernetes.io/revision")

pytestmark = pytest.mark.skipif(not installed.MADE, reason="no Go that builds Flux's controllers")


@pytest.fixture(scope="module")
def controllers() -> Iterator[None]:
    try:
        installed.install()
        yield
    finally:
        installed.remove()


@pytest.fixture
def flux(controllers: None, cluster: Cluster) -> Flux:
    return Flux(cluster)


@pytest.fixture
def repository(workspace: Workspace) -> Iterator[GitServer]:
    root = workspace.root.parent / "repository"
    root.mkdir()
    server = GitServer(root, host_inside())
    server.start()
    yield server
    server.close()


def built(cluster: Cluster, workspace: Workspace, version: str) -> str:
    """The digest of the app's image, pushed."""
    workspace.version(version)
    file = "../images.json"
    stage(workspace, cluster.namespace, "build", "--push", "--file-output", file)
    (build,) = json.loads((workspace.root / file).read_text())["builds"]
    digest: str = build["digest"]
    return digest


def rendered(cluster: Cluster, workspace: Workspace, *argv: str) -> str:
    return stage(workspace, cluster.namespace, "render", "--images", "../images.json", *argv)


def runs(cluster: Cluster, version: str, digest: str) -> None:
    cluster.serves(version, within=30)
    until(lambda: cluster.image_ids() == {digest}, 30)


def decided(cluster: Cluster) -> list[object]:
    """The workload, but for what Kubernetes and devloop say of it."""
    found = cluster.get("deployment", "web")
    meta = found["metadata"]
    marks = {k: v for k, v in meta["annotations"].items() if not k.startswith(MARKS)}
    return [meta["labels"], marks, found["spec"]]


def managers(cluster: Cluster) -> set[str]:
    """Who owns fields of the workload and its Service."""
    kinds = ("get", "deployment,service", "--show-managed-fields", "-o", "json")
    found = json.loads(cluster.kubectl(*kinds))["items"]
    return {entry["manager"] for each in found for entry in each["metadata"]["managedFields"]}


def held(event: Event) -> bool:
    is_hold: bool = event["type"] == "hold" and event.get("code") == "safety/gitops-owned"
    return is_hold


def test_flux_applies_what_is_handed_over_and_keeps_it(
    devloop: Start, cluster: Cluster, workspace: Workspace, flux: Flux, repository: GitServer
) -> None:
    # An artifact.
    first = built(cluster, workspace, "v1")
    name = f"{cluster.namespace}/manifests"
    reference = f"oci://{os.environ['DEVLOOP_TEST_REGISTRY']}/{name}:main"
    pushed = rendered(cluster, workspace, "--push", reference).rpartition("@")[2].strip()
    url = f"oci://{registry_inside()}/{name}"
    flux.hand_over("OCIRepository", url=url, insecure=True)
    flux.applied(f"main@{pushed}")
    runs(cluster, "v1", first)

    # A repository.
    second = built(cluster, workspace, "v2")
    rendered(cluster, workspace, "-o", "../repository/rendered/")
    commit = repository.commit()
    flux.hand_over("GitRepository", url=repository.url)
    flux.applied(f"main@sha1:{commit}")
    runs(cluster, "v2", second)
    theirs, before = decided(cluster), flux.owner()

    # It is theirs: a session holds, until somebody suspends the owner.
    workspace.version("v3")
    session = devloop("dev")
    hold = session.wait(held, "hold", 60)
    assert hold["reason"] == (
        "Flux's Kustomization flux-system/shop owns deployment/web and would put back what "
        "devloop writes"
    )
    (warning,) = (each for each in session.of("diagnostic") if each["code"] == hold["code"])
    assert warning["message"] == hold["reason"]
    assert warning["suggestions"] == [
        "add --suspend-gitops to `dev` or `run`: it is suspended until the session ends",
        "or suspend it yourself: flux suspend kustomization shop -n flux-system",
        "or work in another namespace: --namespace NAME",
    ]
    assert decided(cluster) == theirs
    flux.suspend(wanted=True)
    session.ready_at_last(60)
    cluster.serves("v3")
    session.interrupt()
    assert flux.owner()["spec"]["suspend"] is True
    flux.suspend(wanted=None)
    runs(cluster, "v2", second)
    assert decided(cluster) == theirs

    # It is suspended for the session alone.
    session = devloop("dev", "--suspend-gitops")
    session.ready_at_last(60)
    cluster.serves("v3")
    assert flux.owner()["spec"]["suspend"] is True
    assert "devloop" in managers(cluster)
    session.interrupt()
    after = flux.owner()
    assert after["spec"] == before["spec"]
    assert after["metadata"].get("annotations") == before["metadata"].get("annotations")
    runs(cluster, "v2", second)
    # Nor does anything of it stay because devloop has it, too.
    assert managers(cluster) == {"kustomize-controller", "kube-controller-manager"}

    # After a kill it goes on as soon as any command looks.
    session = devloop("dev", "--suspend-gitops")
    session.ready_at_last(60)
    cluster.serves("v3")
    session.kill()
    assert flux.owner()["spec"]["suspend"] is True
    again = devloop("run")
    assert again.join(60) == 4, again.story()
    assert "safety/gitops-owned" in [said["code"] for said in again.of("diagnostic")]
    assert flux.owner()["spec"] == before["spec"]
    runs(cluster, "v2", second)
    assert decided(cluster) == theirs
    assert "devloop" not in managers(cluster)
