"""Saves that are written into running containers, whose process starts anew.

The same container all along is the point, with its id and restarts; what it serves must be what is
on disk whenever an iteration is `ready`, and pods that come later must serve that too.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import free_port
from tests.e2e.standing import standing, until
from tests.support.port_forward_lab import Browser, wrong_answers
from tests.support.waiting import until as soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event, Workspace

    Start = Callable[..., Devloop]

START = 180.0
EDIT = 60.0


@pytest.fixture(autouse=True)
def hot(workspace: Workspace) -> None:
    workspace.replace("devloop.yaml", "      replace: in-place\n", "")


def is_hot(session: Devloop, done: Event) -> None:
    steps = {
        e["step"]: e["outcome"] for e in session.of("step.finished") if e["iter"] == done["iter"]
    }
    assert steps == {"scan": "done", "sync": "done"}, session.story()
    assert "process restarted" in session.step("sync", done)["detail"], session.story()


def adopted(session: Devloop) -> None:
    told = session.wait(lambda e: e["type"] == "diagnostic", "image of what was synced", EDIT)
    assert (told["code"], told["cause"]) == ("sync/image", None), session.story()


def test_saves_are_served_by_the_same_container(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    for version in ("v1", "v2", "v3", "v4"):
        workspace.version(version)
        is_hot(session, session.finished("ready", seconds=EDIT))
        assert cluster.answer() == version
    workspace.save("new/file.txt", "1")
    is_hot(session, session.finished("ready", seconds=EDIT))
    cluster.files(has="new")
    (workspace.root / "new" / "file.txt").unlink()
    (workspace.root / "new").rmdir()
    is_hot(session, session.finished("ready", seconds=EDIT))
    cluster.files(has="app.py", lacks="new")
    assert standing(cluster).pods == before.pods

    # Whatever starts next has it from its image.
    adopted(session)
    now = until(cluster, lambda now: not now.paused, "not paused")
    assert now.pods == before.pods
    assert now.image not in before.images
    cluster.kubectl("delete", "pod", before.pod.name, "--wait=false")
    until(
        cluster, lambda n: [p.uid for p in n.pods if p.ready] not in ([], [before.pod.uid]), "pod"
    )
    cluster.serves("v4")
    workspace.version("v5")
    session.finished("ready", seconds=EDIT)
    assert cluster.answer() == "v5"


def test_a_crash_and_its_mending_leave_no_trace(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    whole = workspace.read("app.py")
    for n in range(5):
        workspace.save("app.py", f"raise SystemExit('broken {n}')\n")
        failed = session.finished("failed", seconds=EDIT)
        [told] = [e for e in session.of("diagnostic") if e.get("iter") == failed["iter"]]
        assert told["code"] == "pod/process-ended"
        assert f"broken {n}" in "".join(told["detail"]), told
        workspace.save("app.py", whole.replace('VERSION = "v0"', f'VERSION = "m{n}"'))
        is_hot(session, session.finished("ready", seconds=EDIT))
        assert cluster.answer() == f"m{n}"
    assert standing(cluster).pods == before.pods


def test_what_ignores_sigterm_is_replaced_as_fast(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace(
        "k8s.yaml", "terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 60"
    )
    workspace.replace(
        "app.py",
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))",
        "SIGTERM = signal.SIGTERM",
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    is_hot(session, session.finished("ready", seconds=20))
    # What only a build can do goes in place, and does not wait for the grace period either.
    workspace.replace("Dockerfile", "CMD", "ENV X=1\nCMD")
    session.finished("ready", seconds=30)
    workspace.version("v2")
    is_hot(session, session.finished("ready", seconds=20))
    assert cluster.answer() == "v2"


def test_a_command_in_the_manifest_is_supervised_too(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace(
        "k8s.yaml",
        "          image: web\n",
        "          image: web\n          command: [python3, -u, app.py]\n",
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    is_hot(session, session.finished("ready", seconds=EDIT))
    assert cluster.answer() == "v1"


def test_a_volume_over_the_files_is_not_written_to(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.save("data/one.txt", "1")
    workspace.replace(
        "k8s.yaml",
        "          readinessProbe:",
        "          volumeMounts: [{name: data, mountPath: /app/data}]\n          readinessProbe:",
    )
    workspace.replace(
        "k8s.yaml",
        "      containers:",
        "      volumes: [{name: data, emptyDir: {}}]\n      containers:",
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.save("data/one.txt", "2")
    done = session.finished("ready", seconds=EDIT)
    assert "hidden by the volume at /app/data" in session.step("sync", done)["detail"]
    assert cluster.kubectl("exec", standing(cluster).pod.name, "--", "ls", "/app/data") == ""


@pytest.mark.parametrize("context", ["runAsUser: 10001", "readOnlyRootFilesystem: true"])
def test_a_container_that_may_not_write_is_restarted_in_place(
    devloop: Start, workspace: Workspace, cluster: Cluster, context: str
) -> None:
    workspace.replace(
        "k8s.yaml",
        "          readinessProbe:",
        f"          securityContext: {{{context}}}\n          readinessProbe:",
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    for version in ("v1", "v2"):
        workspace.version(version)
        done = session.finished("ready", seconds=EDIT)
        assert ", in place" in session.step("deploy", done)["detail"], session.story()
        cluster.serves(version)
    # The way is known before anything fails, and what would help is said once.
    assert "failed" not in [e["outcome"] for e in session.of("step.finished")], session.story()
    [told] = [e for e in session.of("diagnostic") if e["code"] == "sync/failed"]
    assert (told["severity"], len(told["suggestions"])) == ("info", 2), told


def test_a_user_who_owns_the_files_but_not_their_directory_goes_hot(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace("Dockerfile", "COPY . .", "COPY --chown=1:1 . .")
    workspace.replace(
        "k8s.yaml",
        "          readinessProbe:",
        "          securityContext: {runAsUser: 1}\n          readinessProbe:",
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    for version in ("v1", "v2"):
        workspace.version(version)
        is_hot(session, session.finished("ready", seconds=EDIT))
        assert cluster.answer() == version
    assert standing(cluster).pods == before.pods
    # A new file needs the directory.
    workspace.save("new.txt", "1")
    done = session.finished("ready", seconds=EDIT)
    assert ", in place" in session.step("deploy", done)["detail"], session.story()
    cluster.files(has="new.txt")


def test_a_port_that_the_manifest_names_is_not_given_up(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace("devloop.yaml", "timeout: 60s", "timeout: 12s")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.replace("app.py", "8080", "8081")
    failed = session.finished("failed", seconds=EDIT)
    [told] = [e for e in session.of("diagnostic") if e.get("iter") == failed["iter"]]
    assert told["code"] == "pod/deadline"
    assert "8080" in told["message"]
    assert "8081" in told["suggestions"][0]
    workspace.replace("app.py", "8081", "8080")
    session.finished("ready", seconds=EDIT)
    cluster.serves("v0")


def test_a_container_that_begins_anew_serves_what_was_brought_to_the_one_before(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    is_hot(session, session.finished("ready", seconds=EDIT))
    pod = standing(cluster).pod
    cluster.kubectl("exec", pod.name, "--", "python3", "-c", "import os; os.kill(1, 15)")
    answers: list[str | None] = []

    def served_again() -> bool:
        answers.append(cluster.answer())
        return None in answers and answers[-1] == "v1"

    soon(served_again, 60)
    assert set(answers) == {None, "v1"}, session.story()
    until(cluster, lambda now: now.pod.restarts == 1 and now.pod.ready, "restarted")
    assert standing(cluster).pod.uid == pod.uid
    workspace.version("v2")
    is_hot(session, session.finished("ready", seconds=EDIT))
    assert cluster.answer() == "v2"


def test_three_replicas(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    workspace.replace(
        "k8s.yaml", "spec:\n  selector: {match", "spec:\n  replicas: 3\n  selector: {match"
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    for version in ("v1", "v2", "v3"):
        workspace.version(version)
        is_hot(session, session.finished("ready", seconds=EDIT))
        assert {cluster.answer() for _ in range(20)} == {version}
    assert standing(cluster).pods == before.pods


def test_visitors_at_localhost_notice_nothing(devloop: Start, workspace: Workspace) -> None:
    workspace.version("0")
    port = free_port()
    session = devloop("dev", PORT=str(port))
    session.finished("ready", seconds=START)
    with (
        Browser("127.0.0.1", port, keep_alive=True) as kept,
        Browser("127.0.0.1", port, keep_alive=False) as fresh,
    ):
        soon(lambda: min(kept.version, fresh.version) == 0, 30)
        for version in range(1, 21):
            workspace.version(str(version))
            time.sleep(0.5)
        soon(lambda: min(kept.version, fresh.version) == 20, 60)
    assert wrong_answers(kept, fresh) == [], session.story()


def test_a_killed_session_leaves_a_container_that_kubernetes_looks_after(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    session.finished("ready", seconds=EDIT)
    session.kill()
    cluster.serves("v1")
    pod = standing(cluster).pod
    # The container ends with the process, and the command in it too.
    with contextlib.suppress(AssertionError):
        cluster.kubectl("exec", pod.name, "--", "python3", "-c", KILL_CHILD)
    until(cluster, lambda now: now.pod.restarts == 1 and now.pod.ready, "restarted", seconds=60)
    session = devloop("dev")
    session.finished("ready", seconds=START)
    cluster.serves("v1")


KILL_CHILD = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    command = open(f"/proc/{pid}/cmdline", "rb").read()
    if pid != "1" and command.split(b"\\0")[1:2] == [b"app.py"]:
        os.kill(int(pid), signal.SIGKILL)
"""
