"""When a port where nobody answers is tried again."""

from __future__ import annotations

import pytest

from devloop.port_forward.outage import Outage
from devloop.port_forward.settings import ForwardSettings

SETTINGS = ForwardSettings()


@pytest.fixture
def outage() -> Outage:
    return Outage(SETTINGS)


def test_without_a_failure_everybody_may_dial(outage: Outage) -> None:
    assert not outage
    assert outage.allows_dial()
    assert outage.lasted(100.0) == 0.0


def test_after_a_failure_one_connection_tries_at_a_time(outage: Outage) -> None:
    outage.failed(10.0, began=9.0, refused=False)
    assert outage
    assert outage.allows_dial()
    outage.trial = "first"
    assert not outage.allows_dial()
    assert not outage.end_trial("second")
    assert outage.end_trial("first")
    assert outage.allows_dial()


def test_nobody_dials_before_the_pause_is_over(outage: Outage) -> None:
    outage.failed(10.0, began=9.0, refused=False)
    outage.resting = True
    assert not outage.allows_dial()
    outage.resting = False
    assert outage.allows_dial()


def test_dials_of_one_round_count_once(outage: Outage) -> None:
    assert outage.failed(10.0, began=9.0, refused=False) is not None
    assert outage.failed(10.1, began=9.5, refused=False) is None
    assert outage.failed(11.0, began=10.2, refused=False) is not None


def test_the_pause_grows_with_the_outage_up_to_a_bound(outage: Outage) -> None:
    pauses = [outage.failed(t, began=t, refused=True) for t in (10.0, 13.0, 16.0, 100.0)]
    assert pauses == [SETTINGS.shortest_pause, pytest.approx(0.1), pytest.approx(0.2), 1.0]


def test_the_pause_is_a_multiple_of_what_a_dial_costs(outage: Outage) -> None:
    outage.cost = 0.2
    assert outage.failed(10.0, began=9.8, refused=False) == pytest.approx(0.6)
    outage.cost = 2.0
    assert outage.failed(11.0, began=10.5, refused=False) == SETTINGS.longest_pause


def test_a_refusal_is_remembered_until_somebody_answers(outage: Outage) -> None:
    outage.failed(10.0, began=9.0, refused=True)
    outage.failed(11.0, began=10.5, refused=False)
    assert (bool(outage), outage.refused) == (True, True)
    outage.over()
    assert (bool(outage), outage.refused) == (False, False)
    assert outage.allows_dial()


def test_an_outage_that_a_probe_found_counts_from_then_on(outage: Outage) -> None:
    outage.begin(50.0)
    assert outage
    assert outage.refused
    assert outage.lasted(53.0) == 3.0
    assert outage.failed(51.0, began=49.0, refused=True) is None
