"""Flux's real controllers in the test cluster, and what is asked of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.docs import markdown

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/ci.md"
CONTROLLERS = ROOT / "tests/support/flux/controllers.yaml"
# Of `script/env`: an archive of their image, its name, and the definitions of their kinds.
MADE = os.environ.get("DEVLOOP_TEST_FLUX", "")

SOURCES = "source.toolkit.fluxcd.io"
KUSTOMIZATIONS = "kustomizations.kustomize.toolkit.fluxcd.io"
KINDS = f"{KUSTOMIZATIONS},ocirepositories.{SOURCES},gitrepositories.{SOURCES}"
SHOP = (KUSTOMIZATIONS, "shop", "-n", "flux-system")


def kubectl(*argv: str, stdin: str | None = None, timeout: float = 90) -> str:
    return subprocess.run(
        ["kubectl", *argv],
        input=stdin,
        text=True,
        timeout=timeout,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def install() -> None:
    """Have the controllers run. The node keeps their image from one run to the next."""
    made = Path(MADE)
    image = (made / "image").read_text()
    node = os.environ["DEVLOOP_TEST_CONTEXT"].removeprefix("kind-") + "-control-plane"
    images = ["docker", "exec", "-i", node, "ctr", "--namespace", "k8s.io", "images"]
    there = subprocess.run(
        [*images, "ls", "-q", f"name=={image}"], check=True, timeout=30, stdout=subprocess.PIPE
    )
    if not there.stdout.strip():
        with (made / "image.tar").open("rb") as archive:
            subprocess.run([*images, "import", "-"], stdin=archive, check=True, timeout=120)
    # Server-side: the annotation of a client-side apply is too long for these definitions.
    apply = ("apply", "--server-side", "--force-conflicts", "-f")
    kubectl(*apply, str(made / "definitions.yaml"))
    kubectl("wait", "--for=condition=Established", "-f", str(made / "definitions.yaml"))
    kubectl(*apply, "-", stdin=CONTROLLERS.read_text().replace("IMAGE", image))
    for name in ("source-controller", "kustomize-controller"):
        kubectl("rollout", "status", f"deployment/{name}", "-n", "flux-system", "--timeout=90s")


def remove() -> None:
    """Objects first: their finalizers are the controllers' to take away."""
    kubectl("delete", KINDS, "--all", "--all-namespaces", "--timeout=60s")
    kubectl("delete", "--wait=false", "-f", "-", stdin=CONTROLLERS.read_text())
    kubectl("delete", "--wait=false", "-f", str(Path(MADE) / "definitions.yaml"))


class Flux:
    """The Kustomization `flux-system/shop` and its source, as docs/ci.md has them, for the objects
    of a test's namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._target = cluster.namespace

    def hand_over(self, kind: str, **own: Any) -> None:
        """Apply the page's objects for this kind of source. `own` is what is the test's own in the
        source's spec."""
        source, kustomization = _of_the_page(kind)
        source["spec"].update(own)
        kustomization["spec"]["targetNamespace"] = self._target
        for each in (source, kustomization):
            kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(each))

    def owner(self) -> dict[str, Any]:
        """The Kustomization, as it is now."""
        found: dict[str, Any] = json.loads(kubectl("get", *SHOP, "-o", "json"))
        return found

    def suspend(self, *, wanted: bool | None) -> None:
        """What `flux suspend` writes; None to take the field away."""
        change = {"spec": {"suspend": wanted}}
        kubectl("patch", *SHOP, "--type=merge", "-p", json.dumps(change))

    def applied(self, revision: str) -> None:
        """Wait until what the source has as this revision is applied."""
        wanted = f"--for=jsonpath={{.status.lastAppliedRevision}}={revision}"
        kubectl("wait", *SHOP, wanted, "--timeout=50s")


def _of_the_page(source: str) -> list[dict[str, Any]]:
    """The source and the Kustomization of docs/ci.md for this kind of source."""
    (found,) = (
        list(yaml.safe_load_all(block.text))
        for block in markdown.split(PAGE.read_text())[1]
        if block.language == "yaml" and f"kind: {source}\n" in block.text
    )
    return found


def registry_inside() -> str:
    """The registry as pods call it, by the cluster's own word for it (KEP-1755)."""
    hosting = kubectl(
        "get", "configmap", "local-registry-hosting", "-n", "kube-public", "-o", "json"
    )
    found = yaml.safe_load(json.loads(hosting)["data"]["localRegistryHosting.v1"])
    host: str = found["hostFromClusterNetwork"]
    return host


def host_inside() -> str:
    """This machine's address as the nodes see it."""
    form = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    addresses = subprocess.run(
        ["docker", "network", "inspect", "kind", "-f", form],
        check=True,
        timeout=30,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return next(each for each in addresses.split() if "." in each)
