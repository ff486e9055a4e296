"""Quiet output: problems and how it ended, nothing in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.events import DiagnosticRaised, IterationFinished, SessionEnded, SessionStarted
from devloop.model import Outcome
from devloop.ui.render_error import explanation, not_a_problem, problem_line
from devloop.ui.sanitize import plain
from devloop.ui.text import duration, serving_name

if TYPE_CHECKING:
    from devloop.events import Record


class QuietFormatter:
    """Problems as they happen; at the end one line a service."""

    def __init__(self) -> None:
        self._root = ""
        self._last: dict[str, IterationFinished] = {}

    def format(self, record: Record) -> list[str]:
        match record.event:
            case SessionStarted(root=root):
                self._root = root
            case DiagnosticRaised() as event:
                return [problem_line(event, root=self._root), *explanation(event)]
            case IterationFinished() as event:
                # A cancelled try says nothing about the service, unless there is nothing else.
                if event.outcome is not Outcome.CANCELLED or event.service not in self._last:
                    self._last[event.service] = event
            case SessionEnded(exit_code=code, why=why):
                ends = [_end(event) for event in self._last.values()]
                if code and why:
                    ends.append(f"devloop: exit {code}: {why}")
                return [not_a_problem(plain(line)) for line in ends]
        return []


def _end(event: IterationFinished) -> str:
    line = f"devloop: {event.service} {event.outcome}"
    if event.failed_step:
        line += f" {event.failed_step}"
    line += f" {duration(event.ms)}"
    if event.serving:
        still = "still serving" if event.outcome is Outcome.FAILED else "serving"
        line += f", {still} {serving_name(event.serving)}"
    return line
