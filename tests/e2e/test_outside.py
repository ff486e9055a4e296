"""Somebody else's hands on a workload while nothing goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event, Workspace

    Start = Callable[..., Devloop]


def _changed_outside(event: Event) -> bool:
    return (event["type"], event.get("code")) == ("diagnostic", "safety/changed-outside")


def test_it_is_named_at_once_and_the_next_save_takes_it_back(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=120)
    workspace.version("v1")
    session.finished("ready")
    cluster.serves("v1")

    cluster.kubectl("set", "env", "deployment/web", "EXTRA=1")
    said = session.wait(_changed_outside, "word of the change")
    assert "deployment/web was changed by kubectl" in said["message"]
    workspace.save("app.py", workspace.read("app.py"))
    session.finished("ready")
    cluster.serves("v1")

    cluster.kubectl("rollout", "restart", "deployment/web")
    said = session.wait(_changed_outside, "word of the restart")
    assert said["severity"] == "info"
    assert "deployment/web was restarted by kubectl-rollout" in said["message"]
    cluster.kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
    said = session.wait(_changed_outside, "word of the rollback")
    assert said["severity"] == "warning"
    # What it puts back takes fields away only, which is nobody's write.
    assert "put back to an earlier state" in said["message"]
    workspace.save("app.py", workspace.read("app.py"))
    session.finished("ready", seconds=90)
    cluster.serves("v1")

    cluster.kubectl("scale", "deployment/web", "--replicas=2")
    cluster.kubectl("scale", "deployment/web", "--replicas=1")
    cluster.kubectl("delete", "deployment/web")
    said = session.wait(_changed_outside, "word of the deletion")
    assert said["message"] == "deployment/web was deleted"
    workspace.version("v2")
    session.finished("ready", seconds=90)
    cluster.serves("v2")
    changes = [event for event in session.of("diagnostic") if _changed_outside(event)]
    assert len(changes) == 4
