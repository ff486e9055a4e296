"""Sessions that begin with a change on pods of an earlier one: what is served afterwards is what is
on disk, whatever happened in between, and by the same process where only files changed.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.standing import standing, until
from tests.e2e.test_hot import EDIT, KILL_CHILD, START, adopted, hot, is_hot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

__all__ = ["hot"]


def ends(session: Devloop, how: str) -> None:
    if how == "killed":
        session.kill()
    else:
        session.interrupt()


def begins_anew(cluster: Cluster, pod: str) -> None:
    """Its process ends and nobody holds the container, which ends with it, and this command too."""
    with contextlib.suppress(AssertionError):
        cluster.kubectl("exec", pod, "--", "python3", "-c", KILL_CHILD)


@pytest.fixture
def edited(devloop: Start, workspace: Workspace) -> Devloop:
    """A session that has deployed the app and brought an edit to it."""
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    session.finished("ready", seconds=EDIT)
    return session


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("image", ["followed", "is missing"])
def test_an_edit_between_two_sessions_goes_hot(
    devloop: Start, workspace: Workspace, cluster: Cluster, edited: Devloop, how: str, image: str
) -> None:
    if image == "followed":
        adopted(edited)
    ends(edited, how)
    before = standing(cluster)
    workspace.version("v2")
    session = devloop("dev")
    is_hot(session, session.finished("ready", seconds=START))
    assert cluster.answer() == "v2"
    adopted(session)
    workspace.version("v3")
    is_hot(session, session.finished("ready", seconds=EDIT))
    assert cluster.answer() == "v3"
    assert standing(cluster).pods == before.pods
    adopted(session)
    # What nobody has to change is left alone, although the pod has an older image.
    session.interrupt()
    session = devloop("dev")
    session.finished("unchanged", seconds=START)
    assert standing(cluster).pods == before.pods


def test_what_is_taken_back_while_nobody_looks_is_taken_back(
    devloop: Start, workspace: Workspace, cluster: Cluster, edited: Devloop
) -> None:
    edited.kill()
    pods = standing(cluster).pods
    workspace.version("v0")
    session = devloop("dev")
    is_hot(session, session.finished("ready", seconds=START))
    assert cluster.answer() == "v0"
    assert standing(cluster).pods == pods


def test_files_that_nobody_knows_go_with_their_pod(
    devloop: Start, workspace: Workspace, cluster: Cluster, edited: Devloop
) -> None:
    edited.kill()
    before = standing(cluster).pod
    workspace.version("v0")
    shutil.rmtree(workspace.root / ".devloop" / "contents")
    session = devloop("dev")
    session.finished("unchanged", seconds=START)
    cluster.serves("v0")
    assert standing(cluster).pod.uid != before.uid


def test_a_container_that_began_anew_in_between(
    devloop: Start, workspace: Workspace, cluster: Cluster, edited: Devloop
) -> None:
    edited.interrupt()
    name = standing(cluster).pod.name
    begins_anew(cluster, name)
    until(cluster, lambda now: now.pod.restarts == 1 and now.pod.ready, "restarted", seconds=60)
    # Its process waits a moment for a session that would bring what was changed.
    cluster.serves("v0")
    workspace.save("new.txt", "1")
    session = devloop("dev")
    is_hot(session, session.finished("ready", seconds=START))
    assert cluster.answer() == "v1"
    cluster.files(has="new.txt")


def test_a_file_that_was_deleted_in_between(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.save("old.txt", "1")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.save("older.txt", "1")
    session.finished("ready", seconds=EDIT)
    session.interrupt()
    for name in ("old.txt", "older.txt"):
        (workspace.root / name).unlink()
    session = devloop("dev")
    session.finished("ready", seconds=START)
    cluster.files(has="app.py", lacks="old.txt")
    cluster.files(has="app.py", lacks="older.txt")


def test_two_replicas_of_which_one_began_anew(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace(
        "k8s.yaml", "spec:\n  selector: {match", "spec:\n  replicas: 2\n  selector: {match"
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    session.finished("ready", seconds=EDIT)
    session.kill()
    name = standing(cluster).pods[0].name
    begins_anew(cluster, name)
    until(
        cluster,
        lambda now: sum(p.restarts for p in now.pods) == 1 and all(p.ready for p in now.pods),
        "restarted",
        seconds=60,
    )
    before = standing(cluster)
    workspace.version("v2")
    session = devloop("dev")
    is_hot(session, session.finished("ready", seconds=START))
    assert {cluster.answer() for _ in range(20)} == {"v2"}
    assert standing(cluster).pods == before.pods


def test_a_run_in_between(
    devloop: Start, workspace: Workspace, cluster: Cluster, edited: Devloop
) -> None:
    edited.interrupt()
    workspace.version("v2")
    devloop("run").join(60)
    workspace.version("v3")
    session = devloop("dev")
    done = session.finished("ready", seconds=START)
    assert "not of an earlier session" in session.step("sync", done)["detail"]
    cluster.serves("v3")


def test_a_manifest_that_changed_in_between(
    devloop: Start, workspace: Workspace, cluster: Cluster, edited: Devloop
) -> None:
    edited.interrupt()
    workspace.replace(
        "k8s.yaml", "terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 2"
    )
    workspace.version("v2")
    session = devloop("dev")
    done = session.finished("ready", seconds=START)
    assert "manifests changed" in session.step("sync", done)["detail"]
    cluster.serves("v2")


def test_an_image_that_somebody_rolled_back_to(
    devloop: Start, workspace: Workspace, cluster: Cluster, edited: Devloop
) -> None:
    adopted(edited)
    workspace.replace("Dockerfile", "CMD", "ENV X=1\nCMD")
    edited.finished("ready", seconds=EDIT)
    edited.interrupt()
    cluster.kubectl("patch", "deployment/web", "--patch", _LABEL)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    workspace.version("v2")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    cluster.serves("v2")


_LABEL = '{"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}}'
