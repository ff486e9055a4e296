"""Whether a pod's process is about to go, gone, and what the probes say."""

from __future__ import annotations

import pytest

from devloop.port_forward.outage import OldProcess, ProcessReplacement
from devloop.port_forward.settings import ForwardSettings


@pytest.fixture
def process() -> ProcessReplacement:
    return ProcessReplacement(ForwardSettings())


def test_a_replacement_begins_a_new_epoch(process: ProcessReplacement) -> None:
    process.begin(10.0)
    assert (process.is_going, process.unsettled, process.epoch) == (True, True, 1)


def test_the_reported_container_ends_it(process: ProcessReplacement) -> None:
    process.begin(10.0)
    process.container_reported()
    assert not process.is_going
    assert not process.unsettled
    assert process.epoch == 1


def test_a_probe_that_is_refused_shows_that_the_process_is_gone(
    process: ProcessReplacement,
) -> None:
    process.begin(10.0)
    assert process.start_probe() == 10.0
    assert process.probed(10.0, refused=True) is OldProcess.GONE
    assert not process.is_going
    assert process.unsettled  # nobody has reported the new container yet


def test_a_probe_that_is_not_refused_is_repeated(process: ProcessReplacement) -> None:
    process.begin(10.0)
    assert process.start_probe() == 10.0
    assert process.start_probe() is None  # one at a time
    assert process.probed(10.0, refused=False) is OldProcess.LISTENS
    assert process.start_probe() == 10.0


def test_a_probe_of_an_earlier_replacement_does_not_matter(process: ProcessReplacement) -> None:
    process.begin(10.0)
    process.start_probe()
    process.begin(11.0)
    assert process.probed(10.0, refused=True) is OldProcess.IRRELEVANT
    assert process.is_going


def test_nothing_is_probed_without_a_replacement(process: ProcessReplacement) -> None:
    assert process.start_probe() is None


def test_a_process_that_does_not_go_is_not_waited_for_for_ever(
    process: ProcessReplacement,
) -> None:
    process.begin(10.0)
    process.begin(12.0)
    assert not process.is_overdue(10.0)
    assert process.is_overdue(12.0)
    assert not process.is_going
    assert not process.is_overdue(12.0)


def test_nobody_is_dialled_while_the_new_process_cannot_be_there_yet(
    process: ProcessReplacement,
) -> None:
    """What the last replacements took shows it: each dial in vain costs the node something."""
    process.begin(10.0)
    assert process.rest_until == 0.0
    process.answered(10.4)
    process.begin(20.0)
    assert process.rest_until == pytest.approx(20.0 + 0.7 * 0.4)
    process.answered(29.0)
    process.begin(30.0)
    assert process.rest_until == pytest.approx(30.28)  # the shortest counts


def test_half_a_second_is_the_longest_rest(process: ProcessReplacement) -> None:
    process.begin(10.0)
    process.answered(19.0)
    process.begin(20.0)
    assert process.rest_until == 20.5


def test_another_pod_ends_the_replacement(process: ProcessReplacement) -> None:
    process.begin(10.0)
    process.reset()
    assert not process.is_going
    assert not process.unsettled
    process.answered(11.0)
    process.begin(20.0)
    assert process.rest_until == 0.0  # that took no time of this pod's
