"""The stages of `run` one by one: images without a cluster, manifests without a cluster, a deploy
without a builder; and what is rendered is what runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]


def _without_cluster(cluster: Cluster, workspace: Workspace, *argv: str) -> str:
    """What `devloop ARGV` prints where there is no kubeconfig."""
    done = subprocess.run(
        [sys.executable, "-m", "devloop", *argv],
        cwd=workspace.root,
        env={
            **os.environ,
            "KUBECONFIG": str(workspace.root / "none"),
            "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
            "IMAGE": f"{cluster.namespace}/web",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _as_created(cluster: Cluster, manifests: str) -> dict[str, Any]:
    """The objects as the API server would have them, by kind."""
    argv = ["create", "--dry-run=server", "-o", "json", "-f", "-"]
    # With one object kubectl prints no List.
    texts = manifests.split("---\n")[1:]
    found = [json.loads(cluster.kubectl(*argv, stdin=_elsewhere(text))) for text in texts]
    return {each["kind"]: each for each in found}


def _elsewhere(manifest: str) -> str:
    return manifest.replace("\n  name: web\n", "\n  name: web-rendered\n", 1)


def _spec(thing: dict[str, Any]) -> dict[str, Any]:
    """What a user decides of an object: not what the server gives each one."""
    spec: dict[str, Any] = json.loads(json.dumps(thing["spec"]))
    for own in ("clusterIP", "clusterIPs"):
        spec.pop(own, None)
    return spec


def _images(file: Path) -> str:
    (build,) = json.loads(file.read_text())["builds"]
    ref: str = build["ref"]
    return ref


def test_build_render_and_deploy_give_what_dev_runs(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.version("v1")
    _without_cluster(cluster, workspace, "build", "--push", "--file-output", "../images.json")
    ref = _images(workspace.root / "../images.json")
    render = ("render", "--images", "../images.json")
    printed = _without_cluster(cluster, workspace, *render)
    assert printed == _without_cluster(cluster, workspace, "render")
    rendered = _as_created(cluster, printed)

    session = devloop("deploy", "--images", "../images.json")
    assert session.join(90) == 0, session.story()
    cluster.serves("v1")
    assert not [e for e in session.events if e.get("step") in ("build", "push")]
    live = {kind: cluster.get(kind, "web") for kind in rendered}
    assert {k: _spec(v) for k, v in live.items()} == {k: _spec(v) for k, v in rendered.items()}
    # What is on disk is what was pushed, so no file is needed to find it.
    session = devloop("deploy")
    assert session.join(60) == 0, session.story()
    assert session.of("iteration.finished")[-1]["outcome"] == "unchanged"

    session = devloop("dev")
    session.ready_at_last(seconds=90)
    cluster.serves("v1")
    live = {kind: cluster.get(kind, "web") for kind in rendered}
    (container,) = live["Deployment"]["spec"]["template"]["spec"]["containers"]
    # But for the supervisor, which is in the image of `dev`.
    assert container["image"].partition("@")[0] == ref.partition("@")[0]
    container["image"] = ref
    assert {k: _spec(v) for k, v in live.items()} == {k: _spec(v) for k, v in rendered.items()}
