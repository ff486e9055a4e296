"""A limit does not count while a debugger has stopped what is waited for, and ends all the same."""

from __future__ import annotations

import pytest

from devloop.base import deadline
from devloop.base.deadline import MOST_HALTED, Deadline


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(deadline, "time", made)
    return made


def test_it_passes_when_its_seconds_are_over(clock: Clock) -> None:
    limit = Deadline(5.0)
    assert (limit.at, limit.passed()) == (1005.0, False)
    clock.now = 1005.0
    assert limit.passed()


def test_while_a_debugger_is_attached_it_is_asked_again_later(clock: Clock) -> None:
    attached = True
    limit = Deadline(5.0, lambda: attached)
    clock.now = 1006.0
    assert not limit.passed()
    assert limit.at == 1016.0
    attached = False
    clock.now = 1010.0
    assert not limit.passed()
    clock.now = 1016.0
    assert limit.passed()


def test_nobody_is_waited_for_for_ever(clock: Clock) -> None:
    limit = Deadline(5.0, lambda: True)
    while not limit.passed():
        clock.now = limit.at
    assert clock.now == 1005.0 + MOST_HALTED
