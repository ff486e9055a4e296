"""What a session survives, and how it ends: faults from outside, Ctrl-C, and `run`'s statuses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster, RegistryContainer
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]


def test_run_ends_with_the_result(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    session = devloop("run")
    assert session.join(120) == 0
    assert session.events[-2]["type"] != "log" or session.of("iteration.finished")
    assert session.of("iteration.finished")[-1]["outcome"] == "ready"
    cluster.serves("v0")


def test_run_fails_with_the_build(devloop: Start, workspace: Workspace) -> None:
    workspace.replace("Dockerfile", "COPY . .", "COPY . .\nRUN exit 7")
    session = devloop("run")
    assert session.join(120) == 1
    assert session.of("diagnostic")[-1]["code"] == "build/run-failed"


def test_run_fails_with_the_rollout_and_rolls_back(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    assert devloop("run").join(120) == 0
    image = _image(cluster)
    good = workspace.read("app.py")
    workspace.save("app.py", "raise SystemExit('never starts')\n" + good)
    session = devloop("run")
    assert session.join(120) == 1
    assert session.of("diagnostic")[-1]["code"] == "pod/crash-loop"
    assert _image(cluster) == image
    cluster.serves("v0")


def _image(cluster: Cluster) -> str:
    spec = cluster.get("deployment", "web")["spec"]["template"]["spec"]
    image: str = spec["containers"][0]["image"]
    return image


def test_patch_only(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    assert devloop("run").join(120) == 0
    cluster.kubectl("label", "deployment/web", "mine=1")
    workspace.replace("devloop.yaml", "      manifests: [k8s.yaml]\n", "")
    workspace.version("v1")
    session = devloop("dev")
    session.finished("ready", seconds=90)
    cluster.serves("v1")
    workspace.version("v2")
    session.finished("ready")
    cluster.serves("v2")
    assert cluster.get("deployment", "web")["metadata"]["labels"]["mine"] == "1"
    assert "@sha256:" in _image(cluster)


def test_patch_only_without_the_deployment(devloop: Start, workspace: Workspace) -> None:
    workspace.replace("devloop.yaml", "      manifests: [k8s.yaml]\n", "")
    session = devloop("run")
    assert session.join(90) == 3
    problem = session.of("diagnostic")[-1]
    assert problem["code"] == "cluster/not-found"


def test_two_services(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    other = (workspace.root / "k8s.yaml").read_text().replace("web", "api")
    workspace.save("api/k8s.yaml", other)
    for name in ("app.py", "Dockerfile"):
        workspace.save(f"api/{name}", workspace.read(name))
    workspace.save(".dockerignore", "api\n*.yaml\n")
    workspace.save(
        "devloop.yaml",
        workspace.read("devloop.yaml")
        + """
  api:
    image: ${IMAGE}/api
    build: {context: api, args: {BASE: "${BASE}"}}
    deploy: {manifests: [api/k8s.yaml], timeout: 60s}
""",
    )
    session = devloop("dev")
    session.finished("ready", seconds=120)
    session.finished("ready", seconds=120)
    cluster.serves("v0", service="web")
    cluster.serves("v0", service="api")
    workspace.version("v1", "api/app.py")
    session.finished("ready", service="api")
    cluster.serves("v1", service="api")
    cluster.serves("v0", service="web")
    workspace.version("v2")
    session.finished("ready", service="web")
    cluster.serves("v2", service="web")
    by_service = [e["service"] for e in session.of("iteration.started")]
    assert sorted(by_service) == ["api", "api", "web", "web"]


@pytest.mark.exclusive
def test_registry_down_and_back(
    devloop: Start, workspace: Workspace, cluster: Cluster, registry: RegistryContainer
) -> None:
    """Held, not failed, and resumed without anyone touching a file."""
    session = devloop("dev")
    session.finished("ready", seconds=120)
    registry.stop()
    try:
        workspace.version("v1")
        hold = session.wait(lambda e: e["type"] == "hold", "hold")
        assert hold["code"] == "registry/unreachable"
        cluster.serves("v0")
    finally:
        registry.start()
    session.finished("ready")
    cluster.serves("v1")


@pytest.mark.parametrize("phase", ["start", "build", "push", "rollout", "idle"])
def test_ctrl_c_in_each_phase(
    devloop: Start, workspace: Workspace, cluster: Cluster, phase: str
) -> None:
    if phase == "build":
        workspace.replace("Dockerfile", "COPY . .", "COPY . .\nRUN sleep 60")
    if phase == "rollout":
        workspace.replace("k8s.yaml", "path: /,", "path: /never-ready-404,")
        workspace.replace("app.py", 'body = "', 'body = self.send_error(404) or "')
    session = devloop("dev")
    if phase == "start":
        time.sleep(0.5)
    elif phase == "idle":
        session.finished("ready", seconds=120)
    else:
        session.started(phase, seconds=120)
        time.sleep(0.3)
    session.interrupt()
    assert session.process.returncode == 130
    if phase != "start":
        assert session.events[-1]["type"] == "session.ended"
    left = subprocess.run(
        ["pgrep", "-g", str(session.process.pid)], capture_output=True, text=True, check=False
    )
    assert left.stdout == ""


def test_run_with_tail_stays(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    port = free_port()
    session = devloop("run", "--tail", PORT=str(port))
    session.finished("ready", seconds=120)
    session.logged("serving v0")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        assert response.read() == b"v0"
    assert session.process.poll() is None
    session.interrupt()
    assert session.process.returncode == 130


def test_the_local_port_outlives_the_pods(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    port = free_port()
    session = devloop("dev", PORT=str(port))
    session.wait(lambda e: e["type"] == "forward.changed", "open port")

    def answer() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
            text: str = response.read().decode()
        return text

    # Held until there is a pod, never refused.
    assert answer() == "v0"
    session.finished("ready", seconds=120)
    for version in ("v1", "v2"):
        workspace.version(version)
        session.finished("ready")
        assert answer() == version


def test_a_busy_port_is_an_error_at_the_start(workspace: Workspace, cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = _devloop(workspace.root, "dev", "-n", cluster.namespace, PORT=str(port))
    assert done.returncode == 3, done
    assert "env/port-busy" in done.stdout
    assert str(os.getpid()) in done.stdout
    assert cluster.get("deployments")["items"] == []


def test_kind_load_where_there_is_no_registry(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    """The nodes get the image from Docker itself; what runs is told by the content's tag."""
    name = "local-registry-hosting"
    hosting = cluster.kubectl("get", "configmap", name, "-n", "kube-public", "-o", "json")
    cluster.kubectl("delete", "configmap", name, "-n", "kube-public")
    try:
        workspace.replace("devloop.yaml", "registry: ${DEVLOOP_TEST_REGISTRY}\n", "")
        session = devloop("dev")
        session.finished("ready", seconds=120)
        cluster.serves("v0")
        workspace.version("v1")
        session.finished("ready")
        cluster.serves("v1")
        assert _image(cluster).startswith(f"{cluster.namespace}/web:devloop-")
    finally:
        body = json.loads(hosting)
        body["metadata"] = {"name": name, "namespace": "kube-public"}
        cluster.kubectl("apply", "-n", "kube-public", "-f", "-", stdin=json.dumps(body))


def test_term_ends_with_143(devloop: Start) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=120)
    session.process.terminate()
    assert session.join(3) == 143


def test_sources_that_vanish_and_come_back(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=120)
    text = workspace.read("Dockerfile")
    (workspace.root / "Dockerfile").unlink()
    session.finished("failed")
    assert session.of("diagnostic")[-1]["code"] == "config/dockerfile-missing"
    workspace.version("v1")
    workspace.save("Dockerfile", text)
    session.finished("ready")
    cluster.serves("v1")


# --- bad input, before anything is touched ----------------------------------------------------


def _devloop(cwd: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devloop", *argv],
        cwd=cwd,
        env={
            **os.environ,
            "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
            "PORT": str(free_port()),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["dev", "run"])
def test_no_docker_daemon(workspace: Workspace, command: str) -> None:
    # Without a RUN the image could be made without Docker.
    workspace.replace("Dockerfile", "COPY . .", "COPY . .\nRUN true")
    done = _devloop(workspace.root, command, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 3, done
    assert "env/docker-unreachable" in done.stdout
    assert "try" in done.stdout


def test_no_cluster(workspace: Workspace, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "kind-gone",
                "contexts": [{"name": "kind-gone", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    done = _devloop(workspace.root, "run", KUBECONFIG=str(kubeconfig))
    assert done.returncode == 3, done
    assert "cluster/unreachable" in done.stdout
    assert "127.0.0.1:9" in done.stdout


def test_a_foreign_context_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "prod",
                "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://prod.example:6443"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    done = _devloop(workspace.root, "run", KUBECONFIG=str(kubeconfig))
    assert done.returncode == 4, done
    assert "safety/context" in done.stdout
    assert "allow_contexts" in done.stdout


def test_no_registry(workspace: Workspace, cluster: Cluster) -> None:
    done = _devloop(workspace.root, "run", DEVLOOP_TEST_REGISTRY="localhost:9")
    assert done.returncode == 3, done
    assert "registry/unreachable" in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "code", "place"),
    [
        ("devloop.yaml", "version: 1", "version: [", "config/parse", "devloop.yaml:"),
        (
            "devloop.yaml",
            "image: ",
            "image: Not/An/Image # ",
            "config/image-name",
            "devloop.yaml:6:",
        ),
        (
            "devloop.yaml",
            "context: .",
            "context: .\n      dockerfil: x",
            "config/unknown-key",
            ":9:",
        ),
        (
            "devloop.yaml",
            "context: .",
            "context: .\n      dockerfile: Nope",
            "config/dockerfile-missing",
            "devloop.yaml:9:",
        ),
        ("devloop.yaml", "[k8s.yaml]", "[nope.yaml]", "config/manifest-missing", "devloop.yaml:"),
        (
            "devloop.yaml",
            "timeout:",
            "container: nope\n      timeout:",
            "config/container-not-found",
            "",
        ),
        ("k8s.yaml", "kind: Service", "kind: [", "config/manifest", "k8s.yaml:"),
        ("k8s.yaml", "image: web", "image: another", "config/image-not-used", "k8s.yaml:"),
    ],
)
def test_bad_input_is_refused_with_its_place(
    workspace: Workspace,
    cluster: Cluster,
    file: str,
    old: str,
    new: str,
    code: str,
    place: str,
) -> None:
    workspace.replace(file, old, new)
    done = _devloop(
        workspace.root, "run", "--output", "lines", "-n", cluster.namespace, IMAGE="e2e/web"
    )
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert f"error[{code}]" in output, output
    assert place in output, output
    assert cluster.get("deployments")["items"] == []
