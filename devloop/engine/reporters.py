"""How workers tell how a step goes on: as facts for the loop, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.engine.facts import Began, Finished, Said
from devloop.engine.turn import STEP_OF
from devloop.events import DiagnosticRaised, StepProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.engine.facts import Fact
    from devloop.engine.state import Task
    from devloop.errors import Diagnosis
    from devloop.model import Step, StepOutcome


class SilentReporter:
    """For work that belongs to no iteration: what goes wrong is raised, the rest is not news."""

    def started(self, step: Step) -> None: ...

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None: ...

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None: ...

    def diagnostic(self, diagnosis: Diagnosis) -> None: ...


class TaskReporter:
    """A worker's reports, as facts."""

    def __init__(self, post: Callable[[Fact], None], task: Task) -> None:
        self._post = post
        self._task = task
        self._place: dict[str, Any] = {"iter": task.key, "service": task.service}

    def started(self, step: Step) -> None:
        self._post(Began(self._task, step))

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        place = {**self._place, "step": step}
        self._say(StepProgress(**place, message=message, current=current, total=total))

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self._post(Finished(self._task, step, outcome, detail))

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        step = STEP_OF[self._task.kind]
        self._say(DiagnosticRaised.of(diagnosis, **self._place, step=step))

    def _say(self, event: StepProgress | DiagnosticRaised) -> None:
        self._post(Said(self._task, event))
