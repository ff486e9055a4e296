"""One service's turn: what a fact changes of it, and the events that report so.

Bookkeeping only: every iteration and step that is announced is closed once, and what was superseded
before its deploy is counted. What a fact means is decided in reduce.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from devloop import events
from devloop.base.patterns import ignore_line
from devloop.engine.state import SUPERSEDED, OpenStep, Streak, TaskKind
from devloop.errors import Code, Diagnosis, ExitStatus
from devloop.model import Outcome, Step, StepOutcome

if TYPE_CHECKING:
    from devloop.engine.state import Failure, Iteration, ServiceState, State, Task
    from devloop.model import ImageRef, Scan


STEP_OF = {
    TaskKind.SCAN: Step.SCAN,
    TaskKind.RESUME: Step.SYNC,
    TaskKind.SYNC: Step.SYNC,
    TaskKind.BUILD: Step.BUILD,
    TaskKind.DEPLOY: Step.DEPLOY,
    TaskKind.FOLLOW: Step.ROLLOUT,
    TaskKind.ROLLBACK: Step.DEPLOY,
    TaskKind.CATCH_UP: Step.BUILD,
    TaskKind.RECOVER: Step.ROLLOUT,
    TaskKind.AWAIT_CAUSE: Step.DEPLOY,
}

# So many iterations in a row, none later than so many seconds after the one before, are more than a
# person's saves of one file.
_STREAK, _STREAK_SECONDS = 20, 1.0

# How many changed paths of each are remembered.
_LISTED = 20


class Reason(TypedDict, total=False):
    """What there is to say about the end of an iteration besides its outcome."""

    why: str
    failure: Failure | None
    rolled_back: bool
    stopped: bool


class Turn:
    """One fact's effect on one service; mutable for the length of one `reduce` only."""

    def __init__(
        self, state: State, service: ServiceState, now: float, found: list[events.Event]
    ) -> None:
        self.state = state
        self.service = service
        self.now = now
        self.events = found

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

    def to_stage(self, stage: TaskKind, **found: Any) -> None:
        """Go on with another task; `found` are the fields that the last one filled."""
        self.iteration = replace(self.iteration, stage=stage, attempt=0, **found)

    # --- iterations -------------------------------------------------------------------------

    def announce(self, trigger: events.Trigger, scan: Scan | None) -> int:
        """Open the next iteration, with the step of its scan, which is over before anyone knows
        whether an iteration follows; None for a scan that failed. Returns the number."""
        number = self._open(trigger)
        if scan is None:
            self._whole_step(number, Step.SCAN, StepOutcome.FAILED)
        else:
            self._whole_step(
                number, Step.SCAN, StepOutcome.DONE, ms=scan.ms, detail=f"{scan.files} files"
            )
        return number

    def announce_back(self, trigger: events.Trigger) -> int:
        """Open the next iteration, for which nobody looks at the disk. Returns the number."""
        return self._open(trigger)

    def announce_recovery(self, since: float) -> int:
        """Open the next iteration, with the step that it consists of: the rollout is through that
        was looked at on `since` it failed. Returns the number."""
        number = self._open(events.Trigger(kind="recovered"))
        ms = self._ms_since(since)
        self._whole_step(number, Step.ROLLOUT, StepOutcome.DONE, ms=ms, detail="ready after all")
        return number

    def _open(self, trigger: events.Trigger) -> int:
        number = self.state.next_iteration
        self.state = replace(self.state, next_iteration=number + 1)
        self.service = replace(self.service, last=number)
        self.events.append(
            events.IterationStarted(iter=number, service=self.service.name, trigger=trigger)
        )
        return number

    def end_iteration(self, outcome: Outcome, **reason: Unpack[Reason]) -> None:
        ended = self.iteration
        if ended.fresh and outcome is not Outcome.CANCELLED:
            self.service = replace(self.service, fresh=False)
        self.close_steps(StepOutcome.FAILED if outcome is Outcome.FAILED else StepOutcome.CANCELLED)
        self.service = replace(self.service, iteration=None)
        ms = self._ms_since(ended.since)
        self.close(ended.number, outcome, ms=ms, image=ended.image, **reason)

    def close(
        self,
        number: int,
        outcome: Outcome,
        *,
        ms: float,
        image: ImageRef | None = None,
        why: str = "",
        failure: Failure | None = None,
        rolled_back: bool = False,
        stopped: bool = False,
    ) -> None:
        # A process that ended after it got new files took the one that served with it.
        gone = failure is not None and failure.diagnosis.code is Code.POD_PROCESS_ENDED
        serving = None
        if (proof := self.service.proof) and not gone:
            serving = events.Serving(
                iter=proof.iteration,
                image=proof.image.pinned,
                digest=proof.image.digest,
                fingerprint=proof.fingerprint.whole,
            )
        self.events.append(
            events.IterationFinished(
                iter=number,
                service=self.service.name,
                outcome=outcome,
                ms=ms,
                digest=(image.digest or image.tag) if image else None,
                serving=serving,
                why=why or (failure.diagnosis.message if failure else ""),
                failed_step=failure.step if failure else None,
                rolled_back=rolled_back,
                stopped=stopped,
            )
        )
        if outcome is not Outcome.CANCELLED:
            status = failure.diagnosis.code.exit_status if failure else ExitStatus.DONE
            self.state = replace(
                self.state, statuses={**self.state.statuses, self.service.name: status}
            )
            self.service = replace(self.service, superseded=())
        if failure is not None:
            self.service = replace(self.service, failure=failure)

    # --- superseding: newest wins, but not for ever ------------------------------------------

    def count_superseded(self, changed: tuple[str, ...]) -> None:
        superseded = (*self.service.superseded, changed[:_LISTED])
        self.service = replace(self.service, superseded=superseded[-SUPERSEDED:])

    def name_noise(self, number: int, scan: Scan) -> None:
        """Report once which file changes faster than images are made."""
        counted = Counter(path for paths in self.service.superseded for path in paths)
        path = counted.most_common(1)[0][0] if counted else "a file"
        self._name(
            path,
            number,
            scan,
            message=f"{path} changes faster than an image is built and deployed",
            cause=f"{SUPERSEDED} iterations in a row were superseded before their deploy; "
            "this one is let through to its end",
        )

    def count_streak(self, number: int, trigger: events.Trigger, scan: Scan) -> None:
        """Report once which file changes all the time, where each change is served in time."""
        path = trigger.paths[0] if trigger.kind == "files" and trigger.count == 1 else ""
        before = self.service.streak
        goes_on = path == before.path and self.now < before.last + _STREAK_SECONDS
        count = before.count + 1 if path and goes_on else 1
        self.service = replace(self.service, streak=Streak(path=path, count=count, last=self.now))
        if path and count == _STREAK:
            self._name(
                path,
                number,
                scan,
                message=f"{path} changes all the time, and each change is an iteration",
                cause=f"it alone began the last {_STREAK}",
            )

    def _name(self, path: str, number: int, scan: Scan, *, message: str, cause: str) -> None:
        if path == self.service.noisy:
            return
        self.service = replace(self.service, noisy=path)
        # The path as .dockerignore has it, from one relative to the project.
        parts = path.split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        if ignored := next((tail for tail in tails if tail in scan.snapshot.entries), None):
            line = ignore_line(ignored)
            tip = f"if the image does not need it, add this line to .dockerignore: {line}"
        else:
            tip = "keep what is written all the time out of the image with .dockerignore"
        warning = Diagnosis(
            code=Code.BUILD_KEEPS_CHANGING,
            severity="warning",
            message=message,
            cause=cause,
            suggestions=(tip,),
        )
        self.report(warning, number, Step.BUILD)

    # --- steps ------------------------------------------------------------------------------

    def skipped(self, step: Step, why: str) -> None:
        """A step that was not needed or not possible, reported as one."""
        self._whole_step(self.iteration.number, step, StepOutcome.SKIPPED, detail=why)

    def began(self, step: Step) -> None:
        iteration = self.iteration
        if any(open_.step is step for open_ in iteration.open_steps):
            return
        if step is Step.SYNC:
            # From here on the containers may hold something else than what was proven.
            self.service = replace(self.service, served=None)
        steps = (*iteration.open_steps, OpenStep(step, self.now))
        self.iteration = replace(iteration, open_steps=steps)
        self._started(iteration.number, step)

    def finished(self, step: Step, outcome: StepOutcome, detail: str) -> None:
        iteration = self.iteration
        for open_ in iteration.open_steps:
            if open_.step is step:
                ms = self._ms_since(open_.since)
                self._finished(iteration.number, step, outcome, ms, detail)
                rest = tuple(o for o in iteration.open_steps if o is not open_)
                self.iteration = replace(iteration, open_steps=rest)

    def close_steps(self, outcome: StepOutcome) -> None:
        for open_ in self.iteration.open_steps:
            ms = self._ms_since(open_.since)
            self._finished(self.iteration.number, open_.step, outcome, ms)
        self.iteration = replace(self.iteration, open_steps=())

    def _whole_step(
        self, number: int, step: Step, outcome: StepOutcome, *, ms: float = 0.0, detail: str = ""
    ) -> None:
        self._started(number, step)
        self._finished(number, step, outcome, ms, detail)

    def _started(self, number: int, step: Step) -> None:
        self.events.append(events.StepStarted(iter=number, service=self.service.name, step=step))

    def _finished(
        self, number: int, step: Step, outcome: StepOutcome, ms: float, detail: str = ""
    ) -> None:
        name = self.service.name
        self.events.append(
            events.StepFinished(
                iter=number, service=name, step=step, outcome=outcome, ms=ms, detail=detail
            )
        )

    def _ms_since(self, then: float) -> float:
        return (self.now - then) * 1000

    # --- problems ---------------------------------------------------------------------------

    def report(self, diagnosis: Diagnosis, number: int, step: Step) -> None:
        self.events.append(
            events.DiagnosticRaised.of(diagnosis, iter=number, service=self.service.name, step=step)
        )
