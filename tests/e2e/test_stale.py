"""What makes pods stale besides the image: what they read, what is there no more, their base."""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]


_CONFIG = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {COLOUR: red}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: old}
data: {a: b}
"""


class Base:
    """An image that only the local Docker has."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, text: str) -> None:
        script = f"FROM {os.environ['DEVLOOP_TEST_BASE_IMAGE']}\nRUN echo {text} > /base.txt\n"
        subprocess.run(
            ["docker", "build", "-q", "-t", self.name, "-"],
            input=script.encode(),
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )


@pytest.fixture
def base() -> Iterator[Base]:
    made = Base(f"devloop-e2e-base:{secrets.token_hex(4)}")
    yield made
    subprocess.run(["docker", "image", "rm", "-f", made.name], check=False, timeout=60)


def test_what_pods_read_and_what_is_gone_and_their_base(
    devloop: Start, workspace: Workspace, cluster: Cluster, base: Base
) -> None:
    def inside(*command: str) -> str:
        return cluster.kubectl("exec", "deployment/web", "--", *command).strip()

    base.build("one")
    workspace.replace("Dockerfile", "FROM ${BASE}", f"FROM {base.name}")
    workspace.replace(
        "k8s.yaml",
        "          image: web\n",
        "          image: web\n          envFrom: [{configMapRef: {name: settings}}]\n",
    )
    manifests = workspace.read("k8s.yaml") + _CONFIG
    workspace.save("k8s.yaml", manifests)
    session = devloop("dev")
    session.finished("ready", seconds=120)
    assert inside("printenv", "COLOUR") == "red"

    workspace.save("k8s.yaml", manifests.replace("red", "blue").replace("name: old", "name: new"))
    done = session.finished("ready")
    assert inside("printenv", "COLOUR") == "blue"
    assert "ConfigMap settings changed: new pods" in session.step("deploy", done)["detail"]
    assert session.of("diagnostic")[-1]["message"] == (
        "ConfigMap old deleted: the manifests have it no more"
    )
    names = {each["metadata"]["name"] for each in cluster.get("configmap")["items"]}
    assert {"settings", "new"} <= names
    assert "old" not in names
    session.interrupt()

    base.build("two")
    session = devloop("run")
    session.finished("ready", seconds=120)
    assert session.join(30) == 0
    assert [e["message"] for e in session.of("diagnostic") if e["code"] == "build/base-moved"]
    assert inside("cat", "/base.txt") == "two"

    base.build("three")
    session = devloop("dev")
    # The first iteration, or the second where Docker has answered too late for that.
    session.wait(
        lambda e: e["type"] == "iteration.finished" and e["outcome"] == "ready", "new base", 120
    )
    assert inside("cat", "/base.txt") == "three"
