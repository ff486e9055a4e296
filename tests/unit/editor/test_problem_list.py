"""What stands in an editor's list of problems after each event of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.errors import Code, Location
from devloop.events import (
    ConfigChecked,
    DiagnosticRaised,
    IterationFinished,
    IterationStarted,
    Record,
    Trigger,
)
from devloop.model import Outcome
from devloop.ui.lines import LineFormatter
from tests.support.problem_list import ProblemList

if TYPE_CHECKING:
    from devloop.events import Event


class Session:
    """A session's events, and what an editor makes of the lines."""

    def __init__(self) -> None:
        self._formatter, self._editor, self._seq = LineFormatter(), ProblemList(), 0

    def publish(self, *events: Event) -> list[str]:
        """What is in the list then."""
        for event in events:
            self._seq += 1
            for line in self._formatter.format(Record(self._seq, "2026-11-23T14:31:07Z", event)):
                self._editor.read(line)
        return self._editor.shown()


def begin(number: int, service: str) -> IterationStarted:
    return IterationStarted(iter=number, service=service, trigger=Trigger(kind="files", count=1))


def problem(path: str, line: int, number: int | None = None, service: str | None = None) -> Event:
    return DiagnosticRaised(
        code=Code.CONFIG_VALUE,
        message="no",
        location=Location(path, line, 1),
        iter=number,
        service=service,
    )


def end(number: int, service: str, outcome: Outcome = Outcome.READY) -> IterationFinished:
    return IterationFinished(
        iter=number, service=service, outcome=outcome, ms=1, digest=None, serving=None, why=""
    )


def test_a_problem_stands_until_an_iteration_does_not_find_it() -> None:
    session = Session()
    session.publish(begin(0, "web"), problem("Dockerfile", 3, 0, "web"))
    assert session.publish(end(0, "web", Outcome.FAILED)) == ["Dockerfile:3"]
    assert session.publish(begin(1, "web"), problem("app.py", 7, 1, "web")) == ["Dockerfile:3"]
    assert session.publish(end(1, "web", Outcome.FAILED)) == ["app.py:7"]
    assert session.publish(begin(2, "web"), end(2, "web")) == []


def test_services_keep_their_problems_whatever_others_do() -> None:
    session = Session()
    session.publish(begin(0, "web"), begin(1, "api"))
    assert session.publish(end(0, "web")) == []
    session.publish(problem("api/app.py", 2, 1, "api"))
    assert session.publish(end(1, "api", Outcome.FAILED)) == ["api/app.py:2"]
    assert session.publish(begin(2, "web"), end(2, "web")) == ["api/app.py:2"]
    session.publish(begin(3, "web"), begin(4, "api"), problem("app.py", 5, 3, "web"))
    assert session.publish(end(3, "web", Outcome.FAILED)) == ["api/app.py:2", "app.py:5"]
    assert session.publish(end(4, "api")) == ["app.py:5"]


def test_a_broken_configuration_stands_until_it_is_mended() -> None:
    session = Session()
    session.publish(begin(0, "web"), end(0, "web"))
    broken = (problem("devloop.yaml", 4), ConfigChecked(valid=False))
    assert session.publish(*broken) == ["devloop.yaml:4"]
    assert session.publish(begin(1, "web"), end(1, "web")) == ["devloop.yaml:4"]
    assert session.publish(ConfigChecked(valid=True)) == []


def test_a_configuration_that_breaks_or_is_mended_in_an_iteration() -> None:
    session = Session()
    session.publish(begin(0, "web"), problem("devloop.yaml", 4), ConfigChecked(valid=False))
    assert session.publish(end(0, "web")) == ["devloop.yaml:4"]
    session.publish(begin(1, "web"), ConfigChecked(valid=True))
    session.publish(end(1, "web"))
    assert session.publish(begin(2, "web"), end(2, "web")) == []
