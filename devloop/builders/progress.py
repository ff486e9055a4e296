"""Turns what a builder notices into the steps `build` and `push` of the engine's reporter.

All builders report through this, so that a user sees the same steps whichever ran.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders.rawjson import one_line
from devloop.model import Step, StepOutcome

if TYPE_CHECKING:
    from devloop.builders.rawjson import Note
    from devloop.engine.ports import Reporter


class ProgressReporter:
    """`build` begins at once; `push` when the image is being written out, which ends `build`."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.step = Step.BUILD
        reporter.started(Step.BUILD)

    def take(self, note: Note, summary: str) -> None:
        if note.kind == "export":
            self.push(summary)
        self.report(note.message, current=note.current, total=note.total)

    def report(self, message: str, *, current: int | None = None, total: int | None = None) -> None:
        self._reporter.progress(self.step, one_line(message, 120), current=current, total=total)

    def push(self, summary: str) -> None:
        if self.step is Step.BUILD:
            self._reporter.finished(Step.BUILD, StepOutcome.DONE, summary)
            self.step = Step.PUSH
            self._reporter.started(Step.PUSH)

    def done(self, summary: str, detail: str) -> None:
        self.push(summary)
        self._reporter.finished(Step.PUSH, StepOutcome.DONE, detail)
