"""A service is everything that runs its image: a Deployment, a StatefulSet and a Job of one
project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

MORE = """
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: worker}
spec:
  selector: {matchLabels: {app: worker}}
  serviceName: worker
  template:
    metadata: {labels: {app: worker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: worker
          image: web
          command: [sh, -c, "echo worker is at work; exec sleep 1d"]
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: migrate
          image: web
          command: [sh, -c, "echo tables are made"]
"""


def _image(thing: dict[str, Any]) -> str:
    found: str = thing["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def test_three_kinds_of_one_service_are_deployed_followed_and_judged(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.save("k8s.yaml", workspace.read("k8s.yaml") + MORE)
    session = devloop("dev")
    session.finished("ready", seconds=150)
    session.logged("worker is at work")
    session.logged("tables are made")
    image = _image(cluster.get("deployment", "web"))
    assert _image(cluster.get("statefulset", "worker")) == image
    job = cluster.get("job", "migrate")
    assert _image(job) == image
    assert job["status"]["succeeded"] == 1

    workspace.replace("k8s.yaml", "echo tables are made", "echo no such table; exit 3")
    failed = session.finished("failed", seconds=90)
    assert failed["why"] == "job/migrate failed: container migrate exits with 3"
    (error,) = [e for e in session.of("diagnostic") if e["code"] == "pod/run-failed"]
    assert "no such table" in " ".join(error["detail"])

    workspace.replace("k8s.yaml", "echo no such table; exit 3", "echo tables are made again")
    session.finished("ready", seconds=90)
    session.logged("tables are made again")
