"""What a killed session leaves on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devloop.cluster.replace.recovery_log import RecoveryEntry, RecoveryLog
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = RecoveryEntry(
    strategy="in-place",
    context="kind-../x",
    namespace="dev",
    name="web",
    uid="u1",
    replicaset="web-1",
    before={"web": "a"},
    after={"web": "b"},
)


def test_written_read_and_removed(tmp_path: Path) -> None:
    log = RecoveryLog(tmp_path)
    assert log.entries() == ()
    log.write(ENTRY)
    assert RecoveryLog(tmp_path).entries() == (ENTRY,)
    assert [p for p in tmp_path.rglob("*") if p.name.startswith(".new-")] == []
    log.remove(ENTRY)
    log.remove(ENTRY)
    assert log.entries() == ()


def test_the_update_strategy_is_kept(tmp_path: Path) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}
    entry = RecoveryEntry(
        strategy="fast",
        context="c",
        namespace="dev",
        name="web",
        uid="u1",
        update_strategy=strategy,
    )
    RecoveryLog(tmp_path).write(entry)
    assert RecoveryLog(tmp_path).entries() == (entry,)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    RecoveryLog(tmp_path).write(ENTRY)
    for path in (tmp_path / "recovery").rglob("*.json"):
        (path.parent / "deployment-x.json").write_text("{")
        (path.parent / "deployment-y.json").write_text("[]")
    assert RecoveryLog(tmp_path).entries() == (ENTRY,)


def test_what_cannot_be_written_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "recovery").write_text("in the way")
    with pytest.raises(DevloopError) as caught:
        RecoveryLog(tmp_path).write(ENTRY)
    assert caught.value.code == "env/file-unreadable"


def test_two_strategies_for_one_deployment_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Two services may live in one Deployment."""
    log = RecoveryLog(tmp_path)
    strategy = {"rollingUpdate": {"maxSurge": 1}}
    fast = replace(ENTRY, strategy="fast", update_strategy=strategy)
    log.write(fast)
    log.write(ENTRY)
    log.remove(ENTRY)
    assert log.entries() == (fast,)
