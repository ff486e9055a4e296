"""Back to what was good: the last image that was ready, the workload as it was before devloop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.standing import standing
from tests.e2e.test_hot import EDIT, START, adopted, hot, is_hot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

__all__ = ["hot"]

BEFORE = """
spec:
  template:
    spec:
      containers:
        - {name: web, image: BASE, command: [python3, -m, http.server, "8080"]}
"""


@pytest.fixture
def command(workspace: Workspace, cluster: Cluster) -> Callable[..., tuple[int, str, str]]:
    """`devloop ARGV...` beside the session: its exit status and what it wrote."""

    def run(*argv: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "devloop", *argv, "--namespace", cluster.namespace],
            cwd=workspace.root,
            env={
                **os.environ,
                "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
                "IMAGE": f"{cluster.namespace}/web",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


Command = Any


def test_a_broken_edit_is_gone_back_from_until_the_next_save(
    devloop: Start, workspace: Workspace, cluster: Cluster, command: Command
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    good = session.finished("ready", seconds=EDIT)
    adopted(session)
    workspace.version("v2")
    is_hot(session, session.finished("ready", seconds=EDIT))

    # What serves is not what is wanted: the one before it, and no more than its image has.
    status, out, err = command("rollback", "--wait", "-o", "json")
    assert status == 0, err
    ended = json.loads(out)
    assert ended["serving"]["iter"] == good["iter"]
    cluster.serves("v1")
    assert cluster.image_ids() == {standing(cluster).image}
    hold = session.wait(lambda e: e["type"] == "hold", "hold")
    assert (hold["iter"], hold["reason"]) == (
        None,
        f"back on #{good['iter']}: the next change is deployed again",
    )
    assert [e["type"] for e in session.quiet(1.0)] == []

    # What is broken: the last that was ready, which is the same now.
    workspace.replace("app.py", "import os", "import os, nothing_of_that_name")
    session.finished("failed", seconds=EDIT)
    assert command("rollback", "--wait")[0] == 0
    cluster.serves("v1")

    # The next save takes over, into the same container.
    pods = standing(cluster).pods
    workspace.replace("app.py", "import os, nothing_of_that_name", "import os")
    workspace.version("v3")
    session.ready_at_last(EDIT)
    cluster.serves("v3")
    assert standing(cluster).pods == pods


def test_a_killed_session_leaves_a_way_back_and_the_workload_as_it_was(
    devloop: Start, workspace: Workspace, cluster: Cluster, command: Command
) -> None:
    # What the manifests say of the command goes under the supervisor, and comes back too.
    image, app = "          image: web\n", "          command: [python3, app.py]\n"
    workspace.replace("k8s.yaml", image, image + app)
    cluster.kubectl("apply", "-f", "-", stdin=workspace.read("k8s.yaml"))
    base = f"{os.environ['DEVLOOP_TEST_REGISTRY']}/{cluster.namespace}/before:1"
    for argv in (["tag", os.environ["DEVLOOP_TEST_BASE_IMAGE"], base], ["push", "-q", base]):
        subprocess.run(["docker", *argv], check=True, timeout=60, stdout=subprocess.DEVNULL)
    cluster.kubectl("patch", "deployment/web", "--patch", BEFORE.replace("BASE", base))
    before = cluster.get("deployment", "web")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    session.finished("ready", seconds=EDIT)
    subprocess.run(["docker", "rmi", base], check=True, timeout=60, stdout=subprocess.DEVNULL)
    status, _, err = command("restore")
    assert status == 3
    assert "another devloop session runs" in err
    session.kill()

    status, out, err = command("rollback")
    assert status == 0, err
    cluster.serves("v0")

    status, out, err = command("restore")
    assert status == 0, err
    assert base in out
    after = cluster.get("deployment", "web")
    assert after["spec"] == before["spec"]
    assert [key for key in after["metadata"]["annotations"] if "devloop" in key] == []
    assert [pod.image for pod in standing(cluster).pods] == [base]
