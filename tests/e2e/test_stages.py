"""The stages of `run` one by one: images without a cluster, manifests without a cluster, a deploy
without a builder; and what is rendered is what runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.session import stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

KINDS = (
    "configmaps,secrets,serviceaccounts,services,deployments,replicationcontrollers,statefulsets,"
    "daemonsets,jobs,cronjobs,ingresses,persistentvolumeclaims,roles,rolebindings"
)
# What every namespace has.
KUBERNETES = ("ConfigMap/kube-root-ca.crt", "ServiceAccount/default")
MARKS = ("devloop.dev/", "deployment.kubernetes.io/revision")

READS = "          image: web\n          envFrom: [{configMapRef: {name: greeting}}]\n"
READ = """---
apiVersion: v1
kind: ConfigMap
metadata:
  name: greeting
  labels: {app: web}
  annotations: {team: shop}
data: {GREETING: hello}
"""


def _as_created(cluster: Cluster, manifests: str) -> dict[str, Any]:
    """The objects as the API server would have them where there are none yet, by kind and name."""
    # With one object kubectl prints no List.
    texts = manifests.split("---\n")[1:]
    argv = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    found = [json.loads(cluster.kubectl(*argv, stdin=text)) for text in texts]
    return {_name(each): _decided(each) for each in found}


def _live(cluster: Cluster) -> dict[str, Any]:
    """All objects of the namespace that somebody decides on, by kind and name."""
    found = cluster.get(KINDS)["items"]
    return {_name(each): _decided(each) for each in found if _name(each) not in KUBERNETES}


def _name(thing: dict[str, Any]) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


def _decided(thing: dict[str, Any]) -> dict[str, Any]:
    """What a user decides of an object: not what the server gives each one, nor what marks it as
    devloop's."""
    found: dict[str, Any] = json.loads(json.dumps(thing))
    found.pop("status", None)
    meta = found["metadata"]
    found["metadata"] = {
        part: {k: v for k, v in meta.get(part, {}).items() if not k.startswith(MARKS)}
        for part in ("labels", "annotations")
    }
    for own in ("clusterIP", "clusterIPs"):
        found.get("spec", {}).pop(own, None)
    return found


def _image(file: Path) -> str:
    (build,) = json.loads(file.read_text())["builds"]
    ref: str = build["ref"]
    return ref


def test_build_render_and_deploy_give_what_dev_runs(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.version("v1")
    workspace.replace("k8s.yaml", "          image: web\n", READS)
    workspace.save("k8s.yaml", workspace.read("k8s.yaml") + READ)
    stage(workspace, cluster.namespace, "build", "--push", "--file-output", "../images.json")
    ref = _image(workspace.root / "../images.json")
    render = ("render", "--images", "../images.json")
    printed = stage(workspace, cluster.namespace, *render)
    assert printed == stage(workspace, cluster.namespace, "render")
    rendered = _as_created(cluster, printed)
    template = rendered["Deployment/web"]["spec"]["template"]
    assert list(template["metadata"]["annotations"]) == ["devloop.dev/reads"]

    session = devloop("deploy", "--images", "../images.json")
    assert session.join(90) == 0, session.story()
    cluster.serves("v1")
    assert not [e for e in session.events if e.get("step") in ("build", "push")]
    assert _live(cluster) == rendered
    # What is on disk is what was pushed, so no file is needed to find it.
    session = devloop("deploy")
    assert session.join(60) == 0, session.story()
    assert session.of("iteration.finished")[-1]["outcome"] == "unchanged"

    session = devloop("dev")
    session.ready_at_last(seconds=90)
    cluster.serves("v1")
    live = _live(cluster)
    (container,) = live["Deployment/web"]["spec"]["template"]["spec"]["containers"]
    # But for the supervisor, which is in the image of `dev`.
    assert container["image"].partition("@")[0] == ref.partition("@")[0]
    assert container["image"] != ref
    container["image"] = ref
    assert live == rendered
