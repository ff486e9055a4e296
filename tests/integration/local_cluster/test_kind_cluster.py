"""`devloop cluster` with real docker and kind: one cluster, damaged and repaired, then removed.

The tests build on each other, in the order of the file: a cluster each would cost 20 s more.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.kind, pytest.mark.docker]

COMMAND = """
import sys
from devloop.cli.cluster import command
from devloop.errors import DevloopError
try:
    command(sys.argv[1:], standalone_mode=False)
except DevloopError as error:
    print(error, error.diagnosis.cause, *error.diagnosis.suggestions)
    sys.exit(error.exit_status)
"""


def sh(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


class Local:
    """A cluster of a name that nobody else has, with a kubeconfig of its own."""

    def __init__(self, directory: Path) -> None:
        self.name = f"devloop-prov-{secrets.token_hex(3)}"
        self.node = f"{self.name}-control-plane"
        self.registry = f"{self.name}-registry"
        self.kubeconfig = directory / "kubeconfig"
        self.env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PYTHONWARNINGS": "error"}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-c", COMMAND, *args, "--name", self.name]

    def devloop(self, *args: str) -> tuple[int, str]:
        done = subprocess.run(
            self.argv(*args),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=250,
            check=False,
        )
        return done.returncode, done.stdout

    def up(self, *args: str) -> str:
        images = (
            *("--node-image", os.environ["DEVLOOP_TEST_NODE_IMAGE"]),
            *("--registry-image", os.environ["DEVLOOP_TEST_REGISTRY_IMAGE"]),
        )
        code, output = self.devloop("up", *images, *args)
        assert code == 0, output
        return output

    def status(self) -> dict[str, Any]:
        code, output = self.devloop("status", "-o", "json")
        seen: dict[str, Any] = json.loads(output)
        assert code == (0 if seen["ok"] else 3)
        return seen

    def kubectl(self, *args: str) -> str:
        return sh(
            *("docker", "exec", self.node, "kubectl"),
            *("--kubeconfig=/etc/kubernetes/admin.conf", *args),
        )

    def left(self) -> list[str]:
        """Whatever of ours Docker still has."""
        found = [
            *sh("docker", "ps", "--all", "--format", "{{.Names}}").split(),
            *sh("docker", "volume", "ls", "--format", "{{.Name}}").split(),
        ]
        return [name for name in found if self.name in name]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    local = Local(tmp_path_factory.mktemp("cluster"))
    yield local
    local.devloop("down", "--yes")
    for container in local.left():
        sh("docker", "rm", "--force", container, check=False)
        sh("docker", "volume", "rm", "--force", container, check=False)


def test_up_makes_a_cluster_that_pulls_what_is_pushed(local: Local) -> None:
    output = local.up("--registry-port", str(local.port))
    assert f"context kind-{local.name}, registry localhost:{local.port}" in output
    assert local.status()["ok"]
    image = f"localhost:{local.port}/made/here:1"
    sh("docker", "tag", os.environ["DEVLOOP_TEST_REGISTRY_IMAGE"], image)
    try:
        sh("docker", "push", "--quiet", image)
    finally:
        sh("docker", "rmi", image)
    local.kubectl("run", "pulled", f"--image={image}")
    local.kubectl("wait", "--for=condition=Ready", "pod/pulled", "--timeout=60s")
    hosting = json.loads(
        local.kubectl("get", "configmap", "-n=kube-public", "local-registry-hosting", "-o=json")
    )
    assert f"localhost:{local.port}" in hosting["data"]["localRegistryHosting.v1"]


def test_the_registry_listens_on_loopback_only(local: Local) -> None:
    published = sh("docker", "port", local.registry).split()
    assert [p for p in published if ":" in p] == [f"127.0.0.1:{local.port}"]


def test_a_second_up_changes_nothing(local: Local) -> None:
    assert "in place" in local.up()


def _stop_registry(local: Local) -> None:
    sh("docker", "stop", "--time", "0", local.registry)


def _remove_registry(local: Local) -> None:
    sh("docker", "rm", "--force", local.registry)


def _leave_network(local: Local) -> None:
    sh("docker", "network", "disconnect", "kind", local.registry)


def _lose_hosts(local: Local) -> None:
    sh("docker", "exec", local.node, "rm", "-r", f"/etc/containerd/certs.d/localhost:{local.port}")


def _lose_config_map(local: Local) -> None:
    local.kubectl("delete", "configmap", "-n=kube-public", "local-registry-hosting")


def _lose_context(local: Local) -> None:
    local.kubeconfig.unlink()


def _leave_no_context_current(local: Local) -> None:
    sh("kubectl", f"--kubeconfig={local.kubeconfig}", "config", "unset", "current-context")


def _pause_node(local: Local) -> None:
    sh("docker", "pause", local.node)


def _stop_node(local: Local) -> None:
    sh("docker", "stop", "--time", "0", local.node)


@pytest.mark.parametrize(
    "damage",
    [
        _stop_registry,
        _remove_registry,
        _leave_network,
        _lose_hosts,
        _lose_config_map,
        _lose_context,
        _leave_no_context_current,
        _pause_node,
        _stop_node,
    ],
)
def test_up_repairs(local: Local, damage: Callable[[Local], None]) -> None:
    damage(local)
    assert not local.status()["ok"]
    local.up()
    seen = local.status()
    assert seen["ok"], seen
    assert seen["created_by_devloop"]


def test_a_port_that_is_taken_is_named_with_its_owner(local: Local) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = local.devloop("up", "--registry-port", str(port))
    assert code == 3
    assert f"port {port} on 127.0.0.1 is in use held by" in output
    assert f"(pid {os.getpid()})" in output
    assert local.status()["ok"]


def test_down_leaves_nothing(local: Local) -> None:
    code, output = local.devloop("down")
    assert code == 0, output
    assert local.left() == []
    assert local.name not in local.kubeconfig.read_text()
    assert not local.status()["exists"]
    code, output = local.devloop("down")
    assert (code, output) == (0, "nothing to remove\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_no_half_made_cluster(local: Local, number: int) -> None:
    images = ("--node-image", os.environ["DEVLOOP_TEST_NODE_IMAGE"])
    registry = ("--registry-image", os.environ["DEVLOOP_TEST_REGISTRY_IMAGE"])
    argv = local.argv("up", *images, *registry, "--registry-port", str(local.port))
    with subprocess.Popen(
        argv, env=local.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while local.node not in local.left() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143), output
    assert local.node not in local.left()
    local.devloop("down")
    assert local.left() == []
