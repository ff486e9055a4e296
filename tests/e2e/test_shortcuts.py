"""The short way from a save to what is served: a delta, in place. It ends where the long one does.

Each test says what the cluster holds afterwards, since a shortcut that leaves something else there
than a build and a rollout would is worth nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.standing import standing, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event, Workspace
    from tests.e2e.standing import Standing

    Start = Callable[..., Devloop]

START = 180.0
"""Seconds for a first start on a machine with other work."""
EDIT = 120.0


def is_delta(session: Devloop, done: Event) -> bool:
    detail: str = session.step("build", done)["detail"]
    return detail.startswith("delta")


def in_place(before: Standing, after: Standing, done: Event) -> None:
    """The one thing that an in-place rollout may change is the image, everywhere at once."""
    assert after.images == {done["digest"]}, str(after)
    assert after.pod.uid == before.pod.uid
    assert after.pod.container != before.pod.container
    assert after.pod.restarts == before.pod.restarts + 1
    assert after.pod.ready
    assert after.replicasets.keys() == before.replicasets.keys()
    assert after.revision == before.revision
    assert not after.paused


def test_a_save_is_a_delta_in_place(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    """Also an edit taken back. An image that a pod ran before would be held back by the kubelet;
    this one is another."""
    session = devloop("dev")
    first = session.finished("ready", seconds=START)
    before = standing(cluster)
    assert before.images == {first["digest"]}
    assert len(before.replicasets) == 1
    for version in ("v1", "v2", "v1", "v0"):
        workspace.version(version)
        done = session.finished("ready", seconds=EDIT)
        assert is_delta(session, done), session.story()
        cluster.serves(version)
        after = standing(cluster)
        in_place(before, after, done)
        before = after
    # Nobody has a second thought about it: no rollout, no restart.
    assert session.quiet(3) == []
    later = standing(cluster)
    assert (later.pods, later.replicasets, later.generation) == (
        before.pods,
        before.replicasets,
        before.generation,
    )


def test_pods_that_come_later_run_the_new_image(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    done = session.finished("ready", seconds=EDIT)
    before = standing(cluster)
    cluster.kubectl("delete", "pod", before.pod.name, "--wait=false")
    until(
        cluster,
        lambda now: [p.uid for p in now.pods if p.ready] not in ([], [before.pod.uid]),
        "another pod",
    )
    cluster.kubectl("scale", "deployment/web", "--replicas=2")
    after = until(cluster, lambda now: sum(p.ready for p in now.pods) == 2, "two pods")
    assert before.pod.uid not in {p.uid for p in after.pods}
    assert after.images == {done["digest"]}
    assert {p.restarts for p in after.pods} == {0}
    assert after.replicasets.keys() == before.replicasets.keys()
    assert after.revision == before.revision
    cluster.serves("v1")


def test_delete_rename_and_new_files(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.save("one.txt", "1")
    workspace.save("old/inner.txt", "inner")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)

    root = workspace.root
    edits: list[tuple[Callable[[], object], str, str]] = [
        (lambda: (root / "one.txt").rename(root / "two.txt"), "two.txt", "one.txt"),
        ((root / "two.txt").unlink, "old", "two.txt"),
        (lambda: workspace.save("one.txt", "new"), "one.txt", "two.txt"),
        (lambda: (root / "old").rename(root / "new"), "new", "old"),
    ]
    for edit, has, lacks in edits:
        edit()
        done = session.finished("ready", seconds=EDIT)
        built = session.step("build", done)["detail"]
        # A save does not wait for more than a second for the first look at what is beneath.
        assert "full build" not in built or "still being read" in built, session.story()
        cluster.files(has=has, lacks=lacks)
        after = standing(cluster)
        in_place(before, after, done)
        before = after


def test_what_a_run_reads_is_built_in_full_and_says_why(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.save("made/name", "one")
    workspace.replace(
        "Dockerfile",
        "COPY . .",
        'COPY made /made\nRUN touch "/made/is-$(cat /made/name)"\nCOPY . .\n',
    )
    workspace.replace("app.py", 'os.listdir("/app")', 'os.listdir("/made")')
    session = devloop("dev")
    session.finished("ready", seconds=START)
    cluster.files(has="is-one")
    workspace.version("v1")
    done = session.finished("ready", seconds=EDIT)
    assert is_delta(session, done), session.story()
    before = standing(cluster)
    workspace.save("made/name", "two")
    done = session.finished("ready", seconds=EDIT)
    detail = session.step("build", done)["detail"]
    assert "full build: " in detail
    assert "made" in detail.partition("full build: ")[2], detail
    cluster.files(has="is-two", lacks="is-one")
    in_place(before, standing(cluster), done)
    cluster.serves("v1")
    workspace.version("v2")
    done = session.finished("ready", seconds=EDIT)
    assert is_delta(session, done), session.story()
    cluster.serves("v2")


def test_two_saves_at_once(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    for number in range(4):
        workspace.version(f"a{number}")
        time.sleep(0.03)
        workspace.version(f"b{number}")
        cluster.serves(f"b{number}", within=EDIT)
    session.quiet(3)
    last = session.of("iteration.finished")[-1]
    assert last["outcome"] == "ready", session.story()
    cluster.serves("b3")
    after = standing(cluster)
    assert after.images == {last["digest"]}
    assert after.pod.uid == before.pod.uid
    assert not after.paused


def test_a_crash_and_its_fix(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    good = workspace.read("app.py")
    workspace.save("app.py", "raise SystemExit('no')\n")
    failed = session.finished("failed", seconds=EDIT)
    problem = session.of("diagnostic")[-1]
    assert problem["code"] == "pod/crash-loop"
    assert any("no" in line for line in problem["detail"]), problem
    assert failed["serving"] is None  # the only pod was restarted with it
    workspace.save("app.py", good.replace('VERSION = "v0"', 'VERSION = "v1"'))
    done = session.finished("ready", seconds=EDIT)
    cluster.serves("v1")
    until(cluster, lambda now: len(now.pods) == 1, "one pod")
    after = standing(cluster)
    assert after.pod.image == after.pod.runs == after.image == done["digest"]
    assert not after.paused
    # And from there it goes on as ever.
    workspace.version("v2")
    done = session.finished("ready", seconds=EDIT)
    cluster.serves("v2")
    in_place(after, standing(cluster), done)


# --- other ways to replace -----------------------------------------------------------------------


def test_rolling_makes_a_new_pod(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    workspace.replace("devloop.yaml", "replace: in-place", "replace: rolling")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    workspace.version("v1")
    done = session.finished("ready", seconds=EDIT)
    assert is_delta(session, done), session.story()
    cluster.serves("v1")
    after = until(cluster, lambda now: len(now.pods) == 1, "one pod")
    assert after.pod.uid != before.pod.uid
    assert after.pod.restarts == 0
    assert {after.image, after.pod.image, after.pod.runs} == {done["digest"]}
    assert int(after.revision) == int(before.revision) + 1
    assert len(after.replicasets) == 2


def test_fast_puts_back_what_it_changed(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace("devloop.yaml", "replace: in-place", "replace: fast")
    workspace.replace(
        "k8s.yaml",
        "spec:\n  selector: {match",
        "spec:\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}\n  selector: {match",
    )
    workspace.replace(
        "k8s.yaml", "terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 7"
    )
    # What is there before is devloop's own first deployment, in the ordinary way.
    assert devloop("run").join(START) == 0
    before = standing(cluster)
    assert before.strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    done = session.finished("ready", seconds=EDIT)
    cluster.serves("v1")
    during = until(cluster, lambda now: len(now.pods) == 1, "one pod")
    assert during.pod.uid != before.pod.uid
    assert during.strategy != before.strategy
    assert {during.image, during.pod.runs} == {done["digest"]}
    session.interrupt()
    after = standing(cluster)
    assert after.strategy == before.strategy
    assert after.grace == before.grace == 7
    assert after.pod == during.pod
    cluster.serves("v1")


def test_run_rolls(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    workspace.replace("devloop.yaml", "      replace: in-place\n", "")
    assert devloop("run").join(START) == 0
    before = standing(cluster)
    workspace.version("v1")
    session = devloop("run")
    assert session.join(EDIT) == 0
    (done,) = session.of("iteration.finished")
    cluster.serves("v1")
    after = until(cluster, lambda now: len(now.pods) == 1, "one pod")
    assert after.pod.uid != before.pod.uid
    assert int(after.revision) == int(before.revision) + 1
    assert {after.image, after.pod.runs} == {done["digest"]}


# --- from one session to the next ----------------------------------------------------------------


def test_a_warm_start_patches_nothing_and_goes_on_in_place(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    session.finished("ready", seconds=EDIT)
    session.interrupt()
    # The controller may still write the Deployment's status: its own word ends that.
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=50s")
    before = standing(cluster)
    again = devloop("dev")
    again.finished("unchanged", seconds=START)
    after = standing(cluster)
    assert after.generation == before.generation
    assert after.version == before.version
    assert after.pods == before.pods
    workspace.version("v2")
    done = again.finished("ready", seconds=EDIT)
    assert is_delta(again, done), again.story()
    cluster.serves("v2")
    in_place(before, standing(cluster), done)


@pytest.mark.parametrize("moment", ["build", "push", "deploy", "rollout"])
def test_killed_in_the_middle(
    devloop: Start, workspace: Workspace, cluster: Cluster, moment: str
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.version("v1")
    session.started(moment)
    session.kill()
    workspace.version("v2")
    again = devloop("dev")
    done = again.finished("ready", seconds=START)
    cluster.serves("v2")
    after = until(cluster, lambda now: len(now.pods) == 1, "one pod")
    assert not after.paused
    assert {after.image, after.pod.image, after.pod.runs} == {done["digest"]}


def test_killed_while_it_holds_the_deployment(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    """With several pods the Deployment stays paused until the last one is done."""
    workspace.replace(
        "k8s.yaml", "spec:\n  selector: {match", "spec:\n  replicas: 3\n  selector: {match"
    )
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    workspace.version("v1")
    session.started("rollout")
    held = until(cluster, lambda now: now.paused, "held")
    session.kill()
    assert standing(cluster).paused, held
    again = devloop("dev")
    # Letting it go is enough: its controller then rolls, and there may be nothing left to patch.
    done = again.wait(lambda e: e["type"] == "iteration.finished", "an iteration's end", START)
    assert done["outcome"] in ("ready", "unchanged"), again.story()
    after = until(cluster, lambda now: len(now.pods) == 3, "three pods")
    assert not after.paused
    assert {after.image} | {p.image for p in after.pods} == {done["digest"]}
    assert {p.runs for p in after.pods} == {done["digest"]}
    assert before.image != after.image
    cluster.serves("v1")
