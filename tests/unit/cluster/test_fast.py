"""The strategy of `replace: fast`."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.recovery import recover
from devloop.cluster.replace.rolling import is_fast, strategy_patch, with_fast_strategy
from tests.support.cluster_objects import deployment
from tests.support.in_place_stage import WEB, InPlaceStage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from tests.support.fake_api import FakeApi


def test_all_at_once_unless_old_and_new_may_not_meet() -> None:
    fast = with_fast_strategy(deployment())
    assert is_fast(fast)
    assert fast["spec"]["template"] == deployment()["spec"]["template"]
    recreate = deployment(strategy={"type": "Recreate"})
    assert with_fast_strategy(recreate) == recreate


def test_what_was_left_open_goes_back_to_the_servers_default() -> None:
    given = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}}
    assert strategy_patch(given) == {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": None}}


OWN: dict[str, Any] = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1},
}


@pytest.fixture
def stage(api: FakeApi, connection: Connection, tmp_path: Path) -> Iterator[InPlaceStage]:
    """A Deployment with a strategy of its own, whose image is replaced fast."""
    view = ClusterView(connection)
    root = tmp_path / "project"
    root.mkdir()
    api.on_write.append(_with_own_strategy)
    made = InPlaceStage(api, connection, view, root, replace="fast")
    api.on_write.clear()
    yield made
    made.deployments.close()
    view.close()


def _with_own_strategy(path: str, thing: dict[str, Any]) -> None:
    if path == WEB:
        thing["spec"]["strategy"] = copy.deepcopy(OWN)


def test_the_strategy_is_what_it_was_when_the_session_ends(stage: InPlaceStage) -> None:
    assert stage.deploy("b").how == "fast"
    assert is_fast(stage.api.objects[WEB])
    assert [e.strategy for e in stage.log.entries()] == ["fast"]
    assert stage.deploy("c").how == "fast"
    stage.deployments.close()
    assert stage.api.objects[WEB]["spec"]["strategy"] == OWN
    assert stage.log.entries() == ()


def test_the_strategy_that_a_killed_session_took_away_is_recovered(
    stage: InPlaceStage, connection: Connection
) -> None:
    stage.deploy("b")
    (report,) = recover(connection, stage.log)
    assert "kept the strategy of a session that was killed" in report.message
    assert stage.api.objects[WEB]["spec"]["strategy"] == OWN
    assert stage.log.entries() == ()
