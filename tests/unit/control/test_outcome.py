"""How what somebody asked for came out."""

from __future__ import annotations

from typing import Any

from devloop.control.outcome import outcomes_of
from devloop.errors import ExitStatus


def test_what_was_asked_of_a_service_that_goes_comes_to_nothing_and_is_not_waited_for() -> None:
    taken: dict[str, Any] = {"type": "trigger.taken", "service": "web", "iter": 3, "ids": [1]}
    ready = {"type": "iteration.finished", "service": "web", "iter": 3, "outcome": "ready"}
    gone = {"type": "config.reloaded", "services": {"added": [], "removed": ["api", "db"]}}
    found = outcomes_of(iter([taken, gone, ready]), 1, ("web", "api"))
    assert (found["web"].status, found["web"].removed) == (ExitStatus.DONE, False)
    assert (found["api"].status, found["api"].removed) == (ExitStatus.FAILED, True)
