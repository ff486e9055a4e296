"""The strategy of `replace: fast`."""

from __future__ import annotations

from devloop.cluster.replace.fast import is_fast, strategy_patch, with_fast_strategy
from tests.support.cluster_objects import deployment


def test_all_at_once_unless_old_and_new_may_not_meet() -> None:
    fast = with_fast_strategy(deployment())
    assert is_fast(fast)
    assert fast["spec"]["template"] == deployment()["spec"]["template"]
    recreate = deployment(strategy={"type": "Recreate"})
    assert with_fast_strategy(recreate) == recreate


def test_what_was_left_open_goes_back_to_the_servers_default() -> None:
    given = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}}
    assert strategy_patch(given) == {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": None}}
