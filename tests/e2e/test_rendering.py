"""Manifests that kustomize and Helm render, by the real programs on the real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

CHART = """\
apiVersion: v2
name: shop
version: 0.1.0
dependencies: [{name: settings, version: 0.1.0, repository: "file://../settings"}]
"""
SETTINGS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: web-settings}
data: {GREETING: {{ .Values.greeting | quote }}}
"""
HOOK = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
  annotations: {helm.sh/hook: "pre-install,pre-upgrade"}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - {name: migrate, image: "{{ .Values.image }}", command: [python3, -c, "print('done')"]}
"""


def deployment(workspace: Workspace, image: str, config: str) -> str:
    text = workspace.read("k8s.yaml").replace("image: web", f"image: {image}")
    reads = f"          envFrom: [{{configMapRef: {{name: {config}}}}}]\n          ports:"
    return text.replace("          ports:", reads, 1)


def deploys(workspace: Workspace, how: str) -> None:
    """The app answers its version and the greeting that its configuration has."""
    workspace.replace("app.py", "else VERSION", "else f'{VERSION} {os.environ[\"GREETING\"]}'")
    workspace.replace("devloop.yaml", "manifests: [k8s.yaml]", how)
    workspace.save(".dockerignore", "*\n!app.py\n!run.txt\n")


def with_chart(workspace: Workspace, mode: str) -> None:
    deploys(workspace, f'helm: {{chart: ./chart, set: {{image: "${{IMAGE}}"}}, mode: {mode}}}')
    web = deployment(workspace, '"{{ .Values.image }}:{{ .Values.tag }}"', "web-settings")
    files = {
        "chart/Chart.yaml": CHART,
        "chart/values.yaml": "image: example/shop\ntag: latest\nsettings: {greeting: hello}\n",
        "chart/templates/web.yaml": web,
        "settings/Chart.yaml": "apiVersion: v2\nname: settings\nversion: 0.1.0\n",
        "settings/templates/settings.yaml": SETTINGS,
    }
    if mode == "template":
        files["chart/templates/migrate.yaml"] = HOOK
    for name, text in files.items():
        workspace.save(name, text)


def test_an_overlay_is_served_and_so_is_an_edit_of_what_it_generates_from(
    cluster: Cluster, workspace: Workspace, devloop: Callable[..., Devloop]
) -> None:
    deploys(workspace, "kustomize: k8s/dev")
    workspace.save("k8s/base/web.yaml", deployment(workspace, "web", "web"))
    workspace.save("k8s/base/kustomization.yaml", "resources: [web.yaml]\n")
    overlay = "resources: [../base]\nconfigMapGenerator: [{name: web, envs: [web.env]}]\n"
    workspace.save("k8s/dev/kustomization.yaml", overlay)
    workspace.save("k8s/dev/web.env", "GREETING=hello\n")
    session = devloop("dev")
    session.finished("ready", seconds=120)
    cluster.serves("v0 hello")

    workspace.version("v1")
    session.ready_at_last()
    cluster.serves("v1 hello")

    workspace.save("k8s/dev/web.env", "GREETING=hi\n")
    session.ready_at_last()
    cluster.serves("v1 hi")

    # What is wrong has its place, and the next save goes on.
    workspace.save("k8s/dev/kustomization.yaml", overlay.replace("../base", "../bass"))
    found = session.wait(
        lambda e: e["type"] == "diagnostic" and e["code"] == "manifests/render-failed", "its error"
    )
    assert (found["location"]["path"], found["location"]["line"]) == (
        "k8s/dev/kustomization.yaml",
        1,
    )
    session.finished("failed")
    mended = overlay.replace("envs: [web.env]", "literals: [GREETING=hey]")
    workspace.save("k8s/dev/kustomization.yaml", mended)
    session.ready_at_last()
    cluster.serves("v1 hey")
    session.interrupt()
    # The ConfigMap of before has another name, and nobody reads it any more.
    configs = [each["metadata"]["name"] for each in cluster.get("configmaps")["items"]]
    assert len([name for name in configs if name.startswith("web-")]) == 1


def test_a_chart_is_served_with_its_dependency_after_its_hook(
    cluster: Cluster, workspace: Workspace, devloop: Callable[..., Devloop]
) -> None:
    with_chart(workspace, "template")
    workspace.replace("settings/templates/settings.yaml", "{{ .Values", "{{ $.Values")
    session = devloop("dev")
    session.finished("ready", seconds=120)
    cluster.serves("v0 hello")
    assert cluster.get("job", "migrate")["status"]["succeeded"] == 1
    assert (workspace.root / "chart/charts/settings-0.1.0.tgz").exists()

    workspace.replace("chart/values.yaml", "hello", "hi")
    session.ready_at_last()
    cluster.serves("v0 hi")

    # A dependency's own files count, and its archive is made anew.
    workspace.replace("settings/templates/settings.yaml", "| quote", '| printf "%s!" | quote')
    session.ready_at_last()
    cluster.serves("v0 hi!")
    session.interrupt()
    assert helm(cluster, "list", "--short") == ""


def helm(cluster: Cluster, *argv: str) -> str:
    where = ("--namespace", cluster.namespace, "--kube-context", os.environ["DEVLOOP_TEST_CONTEXT"])
    done = subprocess.run(
        ["helm", *argv, *where], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_a_release_is_helm_s_and_down_uninstalls_it(
    cluster: Cluster, workspace: Workspace, devloop: Callable[..., Devloop]
) -> None:
    with_chart(workspace, "release")
    session = devloop("dev")
    session.finished("ready", seconds=120)
    cluster.serves("v0 hello")
    assert helm(cluster, "list", "--short") == "web"

    workspace.version("v1")
    session.ready_at_last()
    cluster.serves("v1 hello")
    workspace.replace("chart/values.yaml", "hello", "hi")
    session.ready_at_last()
    cluster.serves("v1 hi")
    session.interrupt()

    (release,) = json.loads(helm(cluster, "list", "--output", "json"))
    assert release["chart"] == "shop-0.1.0"
    down = subprocess.run(
        [sys.executable, "-m", "devloop", "down", "--yes", "--namespace", cluster.namespace],
        cwd=workspace.root,
        env={**os.environ, "BASE": "x", "IMAGE": f"{cluster.namespace}/web", "PORT": "18080"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "deleted  release web" in down.stdout, down.stderr
    assert helm(cluster, "list", "--short") == ""
    assert "web" not in {d["metadata"]["name"] for d in cluster.get("deployments")["items"]}
