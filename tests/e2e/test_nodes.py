"""A cluster of two nodes of its own: images without a registry and with one, replacements in pods
of each node, and a node that is drained while a session runs."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Cluster, free_port
from tests.e2e.session import Devloop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.session import Workspace

_KIND = """kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}]
"""
_MATCH = "selector: {matchLabels"
_CONSTRAINT = """topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          nodeTaintsPolicy: Honor
          labelSelector: {matchLabels: {app: web}}
          matchLabelKeys: [pod-template-hash]
      terminationGracePeriodSeconds"""
_ASK = "import urllib.request as r; print(r.urlopen('http://localhost:8080').read().decode())"


def sh(*argv: str, stdin: str = "", check: bool = True) -> str:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=180, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Nodes(Cluster):
    """The cluster, asked through kubectl; its pods by way of their nodes."""

    def __init__(self, name: str) -> None:
        super().__init__("default", "")
        self.name = name

    def pods(self) -> dict[str, str]:
        """Of the pods that are to stay: name -> node."""
        return {
            pod["metadata"]["name"]: pod["spec"].get("nodeName", "")
            for pod in self.get("pods")["items"]
            if "deletionTimestamp" not in pod["metadata"]
        }

    def all_serve(self, wanted: str, nodes: set[str]) -> None:
        """Wait until two pods serve it, which are on these nodes."""
        deadline = time.monotonic() + 60
        while True:
            pods = self.pods()
            said = {self._said(name) for name in pods}
            if len(pods) == 2 and set(pods.values()) == nodes and said == {wanted}:
                return
            assert time.monotonic() < deadline, (pods, said)
            time.sleep(0.1)

    def _said(self, pod: str) -> str:
        try:
            return self.kubectl("exec", pod, "--", "python3", "-c", _ASK).strip()
        except AssertionError as error:
            return str(error)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    name = f"devloop-nodes-{secrets.token_hex(3)}"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("DEVLOOP_TRUST", "1")
    image = os.environ["DEVLOOP_TEST_NODE_IMAGE"]
    given = ("--image", image) if image else ()
    try:
        sh("kind", "create", "cluster", "--name", name, "--config", "-", *given, stdin=_KIND)
        # Pods of users run there as well.
        plane = f"{name}-control-plane"
        sh("kubectl", "taint", "nodes", plane, "node-role.kubernetes.io/control-plane-")
        yield Nodes(name)
    finally:
        devloop_cluster("down", name, "--yes")
        sh("kind", "delete", "cluster", "--name", name, check=False)


def devloop_cluster(command: str, name: str, *argv: str) -> str:
    return sh(sys.executable, "-m", "devloop", "cluster", command, "--name", name, *argv)


@contextlib.contextmanager
def running(workspace: Workspace, *argv: str, **env: str) -> Iterator[Devloop]:
    env = {"BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"], "IMAGE": "nodes/web", **env}
    session = Devloop(*argv, cwd=workspace.root, env=env)
    try:
        yield session
        if session.process.poll() is None:
            session.interrupt()
        session.check_stream()
    finally:
        session.close()


def test_all_nodes_have_what_is_on_disk(nodes: Nodes, workspace: Workspace) -> None:
    workspace.replace("k8s.yaml", _MATCH, f"replicas: 2\n  {_MATCH}")
    workspace.replace("k8s.yaml", "terminationGracePeriodSeconds", _CONSTRAINT)
    workspace.replace("devloop.yaml", "registry: ${DEVLOOP_TEST_REGISTRY}\n", "")
    both = {f"{nodes.name}-control-plane", f"{nodes.name}-worker"}

    # Without a registry: whatever node a pod comes to has the image.
    with running(workspace, "run") as once:
        ready = once.finished("ready", seconds=150)
        assert once.step("push", ready)["detail"] == f"loaded into the nodes of {nodes.name}"
    nodes.all_serve("v0", both)

    registry = ("--registry-image", os.environ["DEVLOOP_TEST_REGISTRY_IMAGE"])
    devloop_cluster("up", nodes.name, *registry, "--registry-port", str(free_port()))
    port = free_port()
    with running(workspace, "dev", PORT=str(port)) as session:
        session.finished("ready", seconds=120)
        nodes.all_serve("v0", both)
        saved(session, workspace, "v1", step="deploy", how="in place")
        nodes.all_serve("v1", both)

        workspace.replace("devloop.yaml", "      replace: in-place\n", "")
        session.ready_at_last()
        saved(session, workspace, "v2", step="sync", how="2 containers")
        nodes.all_serve("v2", both)
        told = {event["pod"] for event in session.of("log") if event["text"] == "serving v2"}
        assert told == set(nodes.pods())

        # At once: no image may hold yet what the pods to come must serve.
        worker = f"{nodes.name}-worker"
        nodes.kubectl("drain", worker, "--ignore-daemonsets", "--force", "--timeout=60s")
        nodes.all_serve("v2", both - {worker})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert answer.read() == b"v2"
        saved(session, workspace, "v3", step="sync", how="2 containers")
        nodes.all_serve("v3", both - {worker})
    down = (sys.executable, "-m", "devloop", "down", "--yes")
    subprocess.run(down, cwd=workspace.root, env={**os.environ, "BASE": "any"}, check=True)
    assert nodes.get("deployments,services")["items"][1:] == []
    devloop_cluster("down", nodes.name, "--yes")
    listed = sh("docker", "ps", "--all", "--format", "{{.Names}}")
    assert nodes.name not in listed


def saved(session: Devloop, workspace: Workspace, version: str, *, step: str, how: str) -> None:
    """Save and see by which step, and how, it came to the pods."""
    workspace.version(version)
    ready = session.ready_at_last()
    assert how in session.step(step, ready)["detail"], session.story()
