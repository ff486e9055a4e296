"""What a checkout may run on this computer, and in which order: two services, one built from the
other, with hooks and a test that runs as a pod and then on Docker."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_needs import all_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

_CHECK = """import os
made = open("/made.txt").read()
print("tested", made, "on", "pod" if "KUBERNETES_SERVICE_HOST" in os.environ else "docker")
assert made != "bad"
"""
_PROJECT = """version: 1
name: trusted
registry: ${DEVLOOP_TEST_REGISTRY}
services:
  base:
    image: NAMESPACE/base
    build: {context: base, args: {BASE: "${BASE}"}}
    hooks:
      before_build: ["echo base before_build >> hooks.log; cp base/seed.txt base/made.txt"]
      after_build: ["echo base after_build >> hooks.log"]
  web:
    image: NAMESPACE/web
    needs: [base]
    build: web
    test: {command: [python3, check.py], on: pod}
    hooks:
      before_build: ["echo web before_build >> hooks.log"]
      after_build: ["echo web after_build >> hooks.log"]
      before_deploy: ["echo web before_deploy >> hooks.log"]
      after_deploy: ["echo web after_deploy >> hooks.log"]
    deploy: {manifests: [k8s.yaml], timeout: 60s}
"""
_BUILT = ["base before_build", "base after_build", "web before_build", "web after_build"]
_ALL = [*_BUILT, "web before_deploy", "web after_deploy"]

_SKAFFOLD = """apiVersion: skaffold/v4beta11
kind: Config
build:
  artifacts:
    - image: web
      context: web
      custom: {buildCommand: "touch ran-command"}
      hooks: {before: [{command: [touch, ran-before]}]}
      sync:
        manual: [{src: "*.txt", dest: .}]
        hooks: {after: [{host: {command: [touch, ran-sync]}}]}
test: [{image: web, custom: [{command: "touch ran-test"}]}]
manifests: {rawYaml: [k8s.yaml]}
deploy: {kubectl: {hooks: {after: [{host: {command: [touch, ran-deploy]}}]}}}
"""


@pytest.fixture
def project(cluster: Cluster, workspace: Workspace) -> Workspace:
    source = workspace.read("app.py").replace(
        'VERSION = "v0"', 'VERSION = open("/made.txt").read()'
    )
    workspace.save("web/app.py", source)
    workspace.save("web/check.py", _CHECK)
    copied = "WORKDIR /app\nCOPY . .\n"
    workspace.save("web/Dockerfile", f'FROM base\n{copied}CMD ["python3", "app.py"]\n')
    workspace.save("base/Dockerfile", "ARG BASE\nFROM ${BASE}\nCOPY made.txt /\n")
    workspace.save("base/seed.txt", "one")
    workspace.save("devloop.yaml", _PROJECT.replace("NAMESPACE", cluster.namespace))
    return workspace


def trust(workspace: Workspace, *argv: str) -> list[str]:
    """The lines of `devloop trust ARGV`."""
    done = subprocess.run(
        [sys.executable, "-m", "devloop", "trust", *argv],
        cwd=workspace.root,
        env={**os.environ, "BASE": "any"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.splitlines()


def refused(devloop: Start, command: str, **env: str) -> list[str]:
    """What devloop lists of what it does not run."""
    session = devloop(command, DEVLOOP_TRUST="", **env)
    session.wait(lambda e: e["type"] == "session.ended", "end")
    assert session.process.wait(10) == 4, session.story()
    (wrong,) = (e for e in session.of("diagnostic") if e["severity"] == "error")
    assert wrong["code"] == "safety/untrusted"
    return [line.partition("  ")[2] for line in wrong["detail"]]


def hooks(project: Workspace) -> list[str]:
    lines = project.read("hooks.log").splitlines()
    (project.root / "hooks.log").unlink()
    return lines


def test_what_is_trusted_runs_in_its_order_and_nothing_before(
    cluster: Cluster, project: Workspace, devloop: Start
) -> None:
    listed = refused(devloop, "dev")
    assert [line.partition(":")[0] for line in listed] == [
        *("base.hooks.before_build", "base.hooks.after_build"),
        *(f"web.hooks.{when}" for when in ("before_build", "after_build")),
        *(f"web.hooks.{when}" for when in ("before_deploy", "after_deploy")),
    ]
    assert refused(devloop, "run") == listed
    assert not (project.root / "hooks.log").exists()
    assert cluster.get("deployments")["items"] == []

    assert len(trust(project)) == 6
    session = devloop("dev", DEVLOOP_TRUST="")
    all_ready(session, "base", "web")
    assert hooks(project) == _ALL
    session.logged("tested one on pod")
    cluster.serves("one")
    assert cluster.kubectl("get", "pods", "-l", "devloop.dev/test-of", "-o", "name") == ""

    # A save of what a hook reads: its service first, then the one that is built from it.
    project.save("base/seed.txt", "bad")
    session.finished("ready", "base")
    failed = session.finished("failed", "web")
    session.logged("tested bad on pod")
    assert failed["failed_step"] == "test"
    assert hooks(project) == _BUILT
    cluster.serves("one")

    project.replace("devloop.yaml", "on: pod", "on: docker")
    session.finished("failed", "web")
    session.logged("tested bad on docker")
    hooks(project)
    project.save("base/seed.txt", "two")
    all_ready(session, "base", "web")
    session.logged("tested two on docker")
    assert hooks(project) == _ALL
    cluster.serves("two")

    # A command that comes while it runs.
    project.replace("devloop.yaml", "echo web after_deploy", "touch came; echo")
    session.wait(lambda e: e.get("code") == "safety/untrusted", "refusal")
    project.save("web/other.txt", "")
    session.finished("ready", "web")
    assert hooks(project) == _ALL[2:]
    assert [line for line in trust(project) if "trusted now" in line] != []
    project.save("web/other.txt", "1")
    session.ready_at_last()
    assert (project.root / "came").exists()


def test_a_skaffold_yaml_runs_nothing_that_nobody_trusted(
    workspace: Workspace, devloop: Start
) -> None:
    (workspace.root / "devloop.yaml").unlink()
    workspace.save("web/Dockerfile", "FROM scratch\n")
    workspace.save("skaffold.yaml", _SKAFFOLD)
    listed = refused(devloop, "run", DEVLOOP_REGISTRY=os.environ["DEVLOOP_TEST_REGISTRY"])
    for word in ("command", "before", "sync", "test", "deploy"):
        assert any(f"touch ran-{word}" in line for line in listed), (word, listed)
    assert len(listed) == 5
    assert list(workspace.root.rglob("ran-*")) == []
