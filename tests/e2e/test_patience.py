"""What waiting cures is waited for, and what somebody mended outside is tried again."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

DB = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: db
          image: IMAGE
          command:
            - sh
            - -c
            - until test -e /tmp/go; do sleep 0.2; done; exec python3 -m http.server 5432
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  selector: {app: db}
  ports: [{port: 5432}]
"""
CONNECT = """
import urllib.request
try:  # an answer: before the Service's rules are in place anybody may take the connection
    urllib.request.urlopen("http://db:5432", timeout=2).read()
except OSError as error:
    sys.exit(f"no database: {error}")
print("serving"""
ENV = """          image: web
          env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: login, key: token}}}]
"""


def _push(image: str) -> None:
    for argv in (["tag", os.environ["DEVLOOP_TEST_BASE_IMAGE"], image], ["push", "-q", image]):
        subprocess.run(["docker", *argv], check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_a_program_that_exits_until_its_database_serves_is_waited_for(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    image = f"{os.environ['DEVLOOP_TEST_REGISTRY']}/{cluster.namespace}/db:1"
    _push(image)
    workspace.save("k8s.yaml", workspace.read("k8s.yaml") + DB.replace("IMAGE", image))
    workspace.replace("app.py", '\nprint("serving', CONNECT)
    workspace.replace("devloop.yaml", "timeout: 60s", "timeout: 90s")
    session = devloop("run")
    session.wait(lambda event: event.get("code") == "pod/crash-loop", "crash-loop")
    cluster.kubectl("exec", "deploy/db", "--", "touch", "/tmp/go")
    assert session.join(150) == 0, session.story()
    (warning,) = [e for e in session.of("diagnostic") if e["code"] == "pod/crash-loop"]
    assert warning["severity"] == "warning"
    assert warning["message"].endswith("; waits for deployment/db")
    cluster.serves("v0")


def test_a_secret_that_comes_after_the_failure_makes_it_ready_by_itself(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace("k8s.yaml", "          image: web\n", ENV)
    workspace.replace("devloop.yaml", "timeout: 60s", "timeout: 8s")
    session = devloop("dev")
    failed = session.finished("failed", seconds=90)
    told = [(e["severity"], e["code"]) for e in session.of("diagnostic") if e["iter"] is not None]
    assert told == [("warning", "pod/config-error"), ("error", "pod/config-error")]
    cluster.kubectl("create", "secret", "generic", "login", "--from-literal=token=t")
    ready = session.finished("ready")
    assert session.of("iteration.started")[-1]["trigger"]["kind"] == "recovered"
    assert ready["digest"] == failed["digest"]
    cluster.serves("v0")
    workspace.version("v1")
    session.finished("ready")
    cluster.serves("v1")


def test_a_namespace_that_comes_after_the_failure_is_noticed_without_a_save(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    late = f"{cluster.namespace}-late"
    inside = f"namespace: {late}"
    workspace.replace("k8s.yaml", "  name: web\n  labels", f"  name: web\n  {inside}\n  labels")
    workspace.replace("k8s.yaml", "metadata: {name: web}", f"metadata: {{name: web, {inside}}}")
    session = devloop("dev")
    failed = session.finished("failed", seconds=90)
    assert late in failed["why"]
    cluster.kubectl("create", "namespace", late)
    try:
        session.finished("ready", seconds=90)
        (said,) = [
            e for e in session.of("diagnostic") if e["severity"] == "info" and late in e["message"]
        ]
        assert said["code"] == "cluster/not-found"
        assert session.of("iteration.started")[-1]["trigger"]["kind"] == "retry"
    finally:
        cluster.kubectl("delete", "namespace", late, "--wait=false")
