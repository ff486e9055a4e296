"""One service's turn: what a fact changes of it, and the events that report so.

Bookkeeping only: every iteration and step that is announced is closed once. What a fact means is
decided in reduce.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.state import OpenStep, TaskKind
from devloop.errors import ExitStatus
from devloop.events import (
    DiagnosticRaised,
    IterationFinished,
    IterationStarted,
    Serving,
    StepFinished,
    StepProgress,
    StepStarted,
)
from devloop.model import Outcome, Step, StepOutcome

if TYPE_CHECKING:
    from devloop.engine.state import Advanced, Failure, Iteration, ServiceState, State, Task
    from devloop.errors import Diagnosis
    from devloop.events import Event, Trigger
    from devloop.model import ImageRef


STEP_OF = {
    TaskKind.SCAN: Step.SCAN,
    TaskKind.SYNC: Step.SYNC,
    TaskKind.BUILD: Step.BUILD,
    TaskKind.DEPLOY: Step.DEPLOY,
    TaskKind.FOLLOW: Step.ROLLOUT,
    TaskKind.ROLLBACK: Step.DEPLOY,
    TaskKind.CATCH_UP: Step.BUILD,
}


class Turn:
    """One fact's effect on one service; mutable for the length of one `reduce` only."""

    def __init__(
        self, state: State, service: ServiceState, now: float, events: list[Event]
    ) -> None:
        self.state = state
        self.service = service
        self.now = now
        self.events = events

    def result(self) -> State:
        return replace(
            self.state, services={**self.state.services, self.service.name: self.service}
        )

    @property
    def iteration(self) -> Iteration:
        """The one that goes on; only where there is one."""
        assert self.service.iteration is not None  # noqa: S101 - callers checked
        return self.service.iteration

    @iteration.setter
    def iteration(self, iteration: Iteration) -> None:
        self.service = replace(self.service, iteration=iteration)

    def is_current(self, task: Task) -> bool:
        iteration = self.service.iteration
        return iteration is not None and iteration.task(task.service) == task

    # --- iterations -------------------------------------------------------------------------

    def announce(self, trigger: Trigger) -> int:
        number = self.state.next_iteration
        self.state = replace(self.state, next_iteration=number + 1)
        self.events.append(
            IterationStarted(iter=number, service=self.service.name, trigger=trigger)
        )
        return number

    def scan_step(self, number: int, outcome: StepOutcome, ms: float, detail: str) -> None:
        """A scan is over before anyone knows whether an iteration follows: reported afterwards."""
        name = self.service.name
        self.events.append(StepStarted(iter=number, service=name, step=Step.SCAN))
        self.events.append(
            StepFinished(
                iter=number, service=name, step=Step.SCAN, outcome=outcome, ms=ms, detail=detail
            )
        )

    def end_iteration(
        self,
        outcome: Outcome,
        *,
        why: str = "",
        failure: Failure | None = None,
        rolled_back: bool = False,
        stopped: bool = False,
    ) -> None:
        iteration = self.iteration
        self.close_steps(StepOutcome.FAILED if outcome is Outcome.FAILED else StepOutcome.CANCELLED)
        self.service = replace(self.service, iteration=None)
        self.close(
            iteration.number,
            outcome,
            ms=(self.now - iteration.since) * 1000,
            image=iteration.image,
            why=why,
            failure=failure,
            rolled_back=rolled_back,
            stopped=stopped,
        )

    def close(
        self,
        number: int,
        outcome: Outcome,
        *,
        ms: float,
        image: ImageRef | None,
        why: str = "",
        failure: Failure | None = None,
        rolled_back: bool = False,
        stopped: bool = False,
    ) -> None:
        proof = self.service.proof
        self.events.append(
            IterationFinished(
                iter=number,
                service=self.service.name,
                outcome=outcome,
                ms=ms,
                digest=(image.digest or image.tag) if image else None,
                serving=Serving(
                    iter=proof.iteration, image=proof.image.pinned, digest=proof.image.digest
                )
                if proof
                else None,
                why=why or (failure.diagnosis.message if failure else ""),
                failed_step=failure.step if failure else None,
                rolled_back=rolled_back,
                stopped=stopped,
            )
        )
        if outcome is not Outcome.CANCELLED:
            status = failure.diagnosis.exit_status if failure else ExitStatus.DONE
            self.state = replace(
                self.state, statuses={**self.state.statuses, self.service.name: status}
            )
            self.service = replace(self.service, superseded=())
        if failure is not None:
            self.service = replace(self.service, failure=failure)

    # --- steps ------------------------------------------------------------------------------

    def skipped(self, step: Step, why: str) -> None:
        """A step that was not needed or not possible, reported as one."""
        number, name = self.iteration.number, self.service.name
        self.events.append(StepStarted(iter=number, service=name, step=step))
        self._step_finished(number, OpenStep(step, self.now), StepOutcome.SKIPPED, why)

    def began(self, task: Task, step: Step) -> None:
        iteration = self.service.iteration
        if iteration is None or not self.is_current(task):
            return
        if any(open_.step is step for open_ in iteration.open_steps):
            return
        if step is Step.SYNC:
            # From here on the containers may hold something else than what was proven.
            self.service = replace(self.service, served=None)
        steps = (*iteration.open_steps, OpenStep(step, self.now))
        self.iteration = replace(iteration, open_steps=steps)
        self.events.append(StepStarted(iter=iteration.number, service=self.service.name, step=step))

    def advanced(self, fact: Advanced) -> None:
        if self.is_current(fact.task):
            self.events.append(
                StepProgress(
                    iter=fact.task.key,
                    service=self.service.name,
                    step=fact.step,
                    message=fact.message,
                    current=fact.current,
                    total=fact.total,
                )
            )

    def finished(self, task: Task, step: Step, outcome: StepOutcome, detail: str) -> None:
        iteration = self.service.iteration
        if iteration is None or not self.is_current(task):
            return
        for open_ in iteration.open_steps:
            if open_.step is step:
                self._step_finished(iteration.number, open_, outcome, detail)
                rest = tuple(o for o in iteration.open_steps if o is not open_)
                self.iteration = replace(iteration, open_steps=rest)

    def close_steps(self, outcome: StepOutcome) -> None:
        iteration = self.service.iteration
        if iteration is None:
            return
        for open_ in iteration.open_steps:
            self._step_finished(iteration.number, open_, outcome, "")
        self.iteration = replace(iteration, open_steps=())

    def _step_finished(
        self, number: int, open_: OpenStep, outcome: StepOutcome, detail: str
    ) -> None:
        self.events.append(
            StepFinished(
                iter=number,
                service=self.service.name,
                step=open_.step,
                outcome=outcome,
                ms=(self.now - open_.since) * 1000,
                detail=detail,
            )
        )

    def diagnosed(self, task: Task, diagnosis: Diagnosis) -> None:
        if self.is_current(task):
            self.report(diagnosis, task.key, STEP_OF[task.kind])

    def report(self, diagnosis: Diagnosis, number: int, step: Step) -> None:
        self.events.append(
            DiagnosticRaised.of(diagnosis, iter=number, service=self.service.name, step=step)
        )
