"""Two sessions of two folders on one workload: one works, the other is refused or takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.session import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop

    Start = Callable[..., Devloop]


def test_the_second_is_refused_and_may_take_over(
    devloop: Start, cluster: Cluster, tmp_path: Path
) -> None:
    first = devloop("dev")
    first.finished("ready", seconds=120)
    other = Workspace(tmp_path / "other")
    other.version("other")
    refused = devloop("run", cwd=other.root)
    assert refused.join(60) == 4
    said = refused.of("diagnostic")[-1]
    assert said["code"] == "safety/lease"
    assert f"pid {first.process.pid}" in said["cause"]
    assert not refused.of("step.started")
    cluster.serves("v0")

    second = devloop("dev", "--takeover", cwd=other.root)
    second.finished("ready", seconds=120)
    assert first.join(30) == 4
    assert "took over deployment/web" in first.of("diagnostic")[-1]["message"]
    cluster.serves("other")
    second.interrupt()
    assert cluster.get("lease")["items"] == []


def test_after_a_kill_the_next_one_does_not_wait(
    devloop: Start, cluster: Cluster, workspace: Workspace
) -> None:
    first = devloop("dev")
    first.finished("ready", seconds=120)
    first.kill()
    (lease,) = cluster.get("lease")["items"]
    assert f"/{first.process.pid}/" in lease["spec"]["holderIdentity"]
    workspace.version("v1")
    second = devloop("dev")
    second.finished("ready", seconds=60)
    cluster.serves("v1")
