"""Commands around the steps, and the test in front of a deploy, on the real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.standing import standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

_TESTED = """
    test: [python3, check.py]
    hooks:
      before_build: ["echo before_build >> hooks.log; cp source.txt made.txt"]
      after_build: ["echo after_build >> hooks.log"]
      before_deploy: ["echo before_deploy >> hooks.log"]
      after_deploy:
        - "echo after_deploy >> hooks.log"
        - {command: "echo $DEVLOOP_SERVICE > /tmp/hooked", container: true}
"""
_ALL = ["before_build", "after_build", "before_deploy", "after_deploy"]


def test_hooks_run_in_order_and_a_failing_test_stops_the_deploy(
    cluster: Cluster, workspace: Workspace, devloop: Start
) -> None:
    # The log is in the context, where what the hooks write must begin nothing.
    workspace.save("source.txt", "generated")
    workspace.save("check.py", 'assert "bad" not in open("app.py").read()\n')
    workspace.save("devloop.yaml", workspace.read("devloop.yaml") + _TESTED)
    session = devloop("dev", DEVLOOP_TRUST="1")
    first = session.ready_at_last(180)
    assert workspace.read("hooks.log").split() == _ALL
    cluster.files(has="made.txt")
    pod = standing(cluster).pod.name
    assert cluster.kubectl("exec", pod, "--", "cat", "/tmp/hooked").strip() == "web"
    tested = session.step("test", first)
    assert (tested["outcome"], tested["detail"]) == ("done", "python3 check.py")

    workspace.version("bad")
    failed = session.finished("failed")
    assert failed["failed_step"] == "test"
    wrong = next(
        e for e in session.events if e["type"] == "diagnostic" and e["code"] == "test/failed"
    )
    assert (wrong["location"]["path"], wrong["location"]["line"]) == ("check.py", 1)
    assert cluster.answer() == "v0"

    workspace.version("v1")
    session.ready_at_last()
    cluster.serves("v1")
    assert workspace.read("hooks.log").split() == [*_ALL, *_ALL[:2], *_ALL]
    assert session.quiet(1.0) == []


def test_hot_saves_have_the_hooks_of_a_sync(
    cluster: Cluster, workspace: Workspace, devloop: Start
) -> None:
    workspace.replace("devloop.yaml", "      replace: in-place\n", "")
    hooks = """
    hooks:
      before_sync: ["echo before $DEVLOOP_CHANGED_FILES >> ../hooks.log"]
      after_sync: ["echo after >> ../hooks.log"]
      after_deploy: ["exit 3"]
"""
    workspace.save("devloop.yaml", workspace.read("devloop.yaml") + hooks)
    session = devloop("dev", DEVLOOP_TRUST="1")
    failed = session.finished("failed", seconds=180)
    assert failed["failed_step"] == "hook"
    wrong = next(
        e for e in session.events if e["type"] == "diagnostic" and e["code"] == "hook/failed"
    )
    assert wrong["location"]["path"] == "devloop.yaml"

    workspace.replace("devloop.yaml", "exit 3", "true")
    session.ready_at_last()
    for version in ("v1", "v2", "v3"):
        workspace.version(version)
        ready = session.ready_at_last()
        cluster.serves(version)
        # Which way the first save takes depends on what is known of the container by then.
        done = [e for e in session.of("step.finished") if e["iter"] == ready["iter"]]
        if any((e["step"], e["outcome"]) == ("sync", "done") for e in done):
            break
    log = workspace.root.parent / "hooks.log"
    assert log.exists(), session.story()
    assert log.read_text().splitlines()[-2:] == ["before app.py", "after"]
