"""The next state, and what to tell, from a state and a fact. Pure: no clock, no I/O, no threads.

The rules in one place: work is needed when the disk's fingerprint is neither served nor known to
have failed; the newest fingerprint wins; every started step and iteration is finished once.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.state import (
    Advanced,
    Began,
    Diagnosed,
    Dirty,
    Done,
    Ended,
    Failed,
    Failure,
    Finished,
    Hinted,
    Iteration,
    OpenStep,
    Proof,
    Started,
    StopRequested,
    TaskKind,
)
from devloop.errors import ExitStatus
from devloop.events import (
    DiagnosticRaised,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    Serving,
    StepFinished,
    StepProgress,
    StepStarted,
    Trigger,
    WatchChanged,
    WatchRescanned,
)
from devloop.model import Deployed, ImageRef, Outcome, Scan, Served, Step, StepOutcome

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.engine.state import Fact, ServiceState, State, Task
    from devloop.errors import Diagnosis
    from devloop.events import Event

__all__ = ["LISTED", "reduce", "retry_delay"]

# How many changed paths an event lists; all are counted.
LISTED = 20

# What the outside world may put right by itself: the iteration waits and tries again.
_HOLDS = frozenset(
    {
        "env/docker-unreachable",
        "env/disk-full",
        "cluster/unreachable",
        "registry/unreachable",
    }
)

_STEP_OF = {
    TaskKind.SCAN: Step.SCAN,
    TaskKind.BUILD: Step.BUILD,
    TaskKind.DEPLOY: Step.DEPLOY,
    TaskKind.FOLLOW: Step.ROLLOUT,
    TaskKind.ROLLBACK: Step.DEPLOY,
}


def retry_delay(attempt: int) -> float:
    """Seconds before try number `attempt` + 1: 1, 2, 4, 8, then 10."""
    return min(10.0, 2.0 ** (attempt - 1))


def reduce(state: State, fact: Fact, now: float) -> tuple[State, list[Event]]:
    events: list[Event] = []
    if isinstance(fact, StopRequested):
        return _stop(state, fact, now, events), events
    name = fact.service if isinstance(fact, Hinted) else fact.task.service
    service = state.services[name]
    turn = _Turn(state, service, now, events)
    match fact:
        case Hinted():
            turn.hinted(fact)
        case Started(task):
            turn.started(task)
        case Ended(task, result):
            turn.ended(task, result)
        case Began(task, step):
            turn.began(task, step)
        case Advanced():
            turn.advanced(fact)
        case Finished(task, step, outcome, detail):
            turn.finished(task, step, outcome, detail)
        case Diagnosed(task, diagnosis):
            turn.diagnosed(task, diagnosis)
    return turn.result(), events


def _stop(state: State, fact: StopRequested, now: float, events: list[Event]) -> State:
    if state.stop is not None:
        return state
    for service in state.services.values():
        turn = _Turn(state, service, now, events)
        if service.iteration is not None:
            turn.end_iteration(Outcome.CANCELLED, why=fact.why or "stopped", stopped=True)
        state = turn.result()
    return replace(state, stop=fact)


class _Turn:
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

    def set(self, **changes: object) -> None:
        self.service = replace(self.service, **changes)  # type: ignore[arg-type]

    def set_iteration(self, **changes: object) -> None:
        assert self.service.iteration is not None  # noqa: S101 - callers checked
        self.set(iteration=replace(self.service.iteration, **changes))  # type: ignore[arg-type]

    # --- the disk ------------------------------------------------------------------------------

    def hinted(self, fact: Hinted) -> None:
        if self.state.stop is not None:
            return
        old = self.service.dirty
        if old is None:
            dirty = Dirty(first=self.now, last=self.now, paths=fact.paths)
        else:
            paths = None if old.paths is None or fact.paths is None else old.paths | fact.paths
            dirty = replace(old, last=self.now, paths=paths)
        self.set(dirty=dirty)

    def scanned(self, scan: Scan, seen: Dirty) -> None:
        service = self.service
        first = service.scan is None and service.failure is None
        self.set(scan=scan)
        if seen.paths is None and scan.changed and not first:
            # What the watcher missed; an audit that finds nothing is no news.
            self.events.append(
                WatchRescanned(
                    service=service.name,
                    reason="looked at everything",
                    files=scan.files,
                    ms=scan.ms,
                )
            )
        if scan.changed and not first:
            self.events.append(
                WatchChanged(
                    service=service.name,
                    paths=scan.changed[:LISTED],
                    count=len(scan.changed),
                )
            )
        running = service.iteration
        fingerprint = scan.fingerprint
        if running is not None:
            if running.scan.fingerprint == fingerprint:
                return
            self.end_iteration(Outcome.CANCELLED, why="superseded by a newer change")
        trigger = self._trigger(scan, seen, first=first)
        failure = service.failure
        if fingerprint == service.served:
            # A first look or an audit that finds nothing new is nobody's news, unless it says
            # that an unreadable disk, a failed or a cancelled try is over.
            if running is not None or failure is not None or seen.paths:
                self._unchanged(trigger, scan, "the content equals what is serving")
            self.set(failure=None)
        elif failure is not None and failure.fingerprint == fingerprint:
            if running is not None or seen.paths:
                why = f"the content equals #{failure.iteration}, which failed: "
                self._unchanged(trigger, scan, why + failure.diagnosis.message)
        else:
            self._begin(trigger, scan)

    def scan_failed(self, diagnosis: Diagnosis, seen: Dirty) -> None:
        failure = self.service.failure
        if (
            self.service.iteration is None
            and failure is not None
            and failure.fingerprint is None
            and failure.diagnosis == diagnosis
        ):
            return
        if self.service.iteration is not None:
            self.end_iteration(Outcome.CANCELLED, why="its source cannot be read any more")
        first = self.service.scan is None
        number = self._announce(self._trigger(None, seen, first=first))
        self._scan_step(number, StepOutcome.FAILED, 0.0, "")
        failure = Failure(fingerprint=None, iteration=number, step=Step.SCAN, diagnosis=diagnosis)
        self._tell(diagnosis, number, Step.SCAN)
        self._close(number, Outcome.FAILED, ms=0.0, image=None, failure=failure)

    def _trigger(self, scan: Scan | None, seen: Dirty, *, first: bool) -> Trigger:
        if first:
            return Trigger(kind="start")
        if scan is not None and scan.changed:
            return Trigger(kind="files", paths=scan.changed[:LISTED], count=len(scan.changed))
        paths = sorted(self._relative(path) for path in seen.paths or ())
        return Trigger(kind="files", paths=tuple(paths[:LISTED]), count=len(paths))

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.state.root)

    # --- iterations ----------------------------------------------------------------------------

    def _announce(self, trigger: Trigger) -> int:
        number = self.state.next_iteration
        self.state = replace(self.state, next_iteration=number + 1)
        self.events.append(
            IterationStarted(iter=number, service=self.service.name, trigger=trigger)
        )
        return number

    def _scan_step(self, number: int, outcome: StepOutcome, ms: float, detail: str) -> None:
        """A scan is over before anyone knows whether an iteration follows: told afterwards."""
        name = self.service.name
        self.events.append(StepStarted(iter=number, service=name, step=Step.SCAN))
        self.events.append(
            StepFinished(
                iter=number, service=name, step=Step.SCAN, outcome=outcome, ms=ms, detail=detail
            )
        )

    def _begin(self, trigger: Trigger, scan: Scan) -> None:
        number = self._announce(trigger)
        self._scan_step(number, StepOutcome.DONE, scan.ms, f"{scan.files} files")
        self.set(
            failure=None,
            iteration=Iteration(number=number, trigger=trigger, scan=scan, since=self.now),
        )

    def _unchanged(self, trigger: Trigger, scan: Scan, why: str) -> None:
        number = self._announce(trigger)
        self._scan_step(number, StepOutcome.DONE, scan.ms, f"{scan.files} files")
        self._close(number, Outcome.UNCHANGED, ms=scan.ms, image=None, why=why)

    def end_iteration(
        self,
        outcome: Outcome,
        *,
        why: str = "",
        failure: Failure | None = None,
        stopped: bool = False,
    ) -> None:
        iteration = self.service.iteration
        assert iteration is not None  # noqa: S101 - callers checked
        self._close_steps(
            StepOutcome.FAILED if outcome is Outcome.FAILED else StepOutcome.CANCELLED
        )
        self.set(iteration=None)
        self._close(
            iteration.number,
            outcome,
            ms=(self.now - iteration.since) * 1000,
            image=iteration.image,
            why=why,
            failure=failure,
            stopped=stopped,
        )

    def _close(
        self,
        number: int,
        outcome: Outcome,
        *,
        ms: float,
        image: ImageRef | None,
        why: str = "",
        failure: Failure | None = None,
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
                stopped=stopped,
            )
        )
        if outcome is not Outcome.CANCELLED:
            status = failure.diagnosis.exit_status if failure else ExitStatus.DONE
            self.state = replace(
                self.state, statuses={**self.state.statuses, self.service.name: status}
            )
        if failure is not None:
            self.set(failure=failure)

    # --- tasks ---------------------------------------------------------------------------------

    def started(self, task: Task) -> None:
        self.set(running=self.service.running | {task})
        if task.kind is TaskKind.SCAN:
            self.set(looking_at=self.service.dirty, dirty=None, scans=task.key)
        elif task.kind in (TaskKind.DEPLOY, TaskKind.ROLLBACK):
            # From here on the cluster may hold something else than what was proven.
            self.set(served=None)
        if self._current(task):
            self.set_iteration(wait_until=None)

    def _current(self, task: Task) -> bool:
        iteration = self.service.iteration
        return iteration is not None and iteration.task(task.service) == task

    def ended(self, task: Task, result: object) -> None:
        self.set(running=self.service.running - {task})
        if task.kind is TaskKind.SCAN:
            seen = self.service.looking_at
            self.set(looking_at=None)
            if seen is None or self.state.stop is not None:
                return
            if isinstance(result, Done) and isinstance(result.value, Scan):
                self.scanned(result.value, seen)
            elif isinstance(result, Failed):
                self.scan_failed(result.diagnosis, seen)
            return
        if not self._current(task):
            return
        match result:
            case Done(value):
                self._close_steps(StepOutcome.DONE)
                self._advance(value)
            case Failed(diagnosis):
                self._task_failed(task, diagnosis)
            case _:
                # Cancelled by nobody: try again rather than hang.
                self._close_steps(StepOutcome.CANCELLED)
                self.set_iteration(attempt=task.attempt + 1)

    def _advance(self, value: object) -> None:
        iteration = self.service.iteration
        assert iteration is not None  # noqa: S101 - `_current` said so
        match value:
            case ImageRef():
                self.set_iteration(image=value, stage=TaskKind.DEPLOY, attempt=0)
            case Deployed():
                self.set_iteration(deployed=value, stage=TaskKind.FOLLOW, attempt=0)
            case Served(image=image):
                fingerprint = iteration.scan.fingerprint
                self.set(
                    served=fingerprint,
                    proof=Proof(fingerprint=fingerprint, iteration=iteration.number, image=image),
                )
                already = iteration.trigger.kind == "start" and not (
                    iteration.deployed and iteration.deployed.changed
                )
                if already:
                    self.end_iteration(Outcome.UNCHANGED, why="the cluster serves this already")
                else:
                    self.end_iteration(Outcome.READY, why=f"serving {image.short}")
            case _ if iteration.failure is not None:
                # The rollback is through; the failure that caused it ends the iteration.
                self.end_iteration(
                    Outcome.FAILED,
                    why=f"{iteration.failure.diagnosis.message}; rolled back",
                    failure=iteration.failure,
                )
            case _:
                raise TypeError(f"a {iteration.stage} worker returned {value!r}")

    def _task_failed(self, task: Task, diagnosis: Diagnosis) -> None:
        iteration = self.service.iteration
        assert iteration is not None  # noqa: S101 - `_current` said so
        if diagnosis.code == "build/context-changed":
            self.end_iteration(Outcome.CANCELLED, why=diagnosis.message)
            self.hinted(Hinted(service=self.service.name, paths=None))
            return
        if self.state.mode == "dev" and diagnosis.code in _HOLDS:
            self._hold(task, diagnosis)
            return
        step = iteration.open_steps[-1].step if iteration.open_steps else _STEP_OF[task.kind]
        self._tell(diagnosis, iteration.number, step)
        if iteration.failure is not None:
            self.end_iteration(Outcome.FAILED, failure=iteration.failure)
            return
        failure = Failure(
            fingerprint=iteration.scan.fingerprint,
            iteration=iteration.number,
            step=step,
            diagnosis=diagnosis,
        )
        undo = iteration.deployed is not None and iteration.deployed.previous
        if task.kind is TaskKind.FOLLOW and self.service.roll_back and undo:
            self._close_steps(StepOutcome.FAILED)
            self.set_iteration(failure=failure, stage=TaskKind.ROLLBACK, attempt=0)
        else:
            self.end_iteration(Outcome.FAILED, failure=failure)

    def _hold(self, task: Task, diagnosis: Diagnosis) -> None:
        self._close_steps(StepOutcome.FAILED)
        attempt = task.attempt + 1
        delay = retry_delay(attempt)
        self.set_iteration(attempt=attempt, wait_until=self.now + delay)
        self.events.append(
            HoldStarted(
                service=self.service.name,
                iter=task.key,
                reason=diagnosis.message,
                code=diagnosis.code,
                until=delay,
                attempt=attempt,
            )
        )

    # --- steps ---------------------------------------------------------------------------------

    def began(self, task: Task, step: Step) -> None:
        iteration = self.service.iteration
        if iteration is None or not self._current(task):
            return
        if any(open_.step is step for open_ in iteration.open_steps):
            return
        self.set_iteration(open_steps=(*iteration.open_steps, OpenStep(step, self.now)))
        self.events.append(StepStarted(iter=iteration.number, service=self.service.name, step=step))

    def advanced(self, fact: Advanced) -> None:
        if self._current(fact.task):
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
        if iteration is None or not self._current(task):
            return
        for open_ in iteration.open_steps:
            if open_.step is step:
                self._step_finished(iteration.number, open_, outcome, detail)
                rest = tuple(o for o in iteration.open_steps if o is not open_)
                self.set_iteration(open_steps=rest)

    def _close_steps(self, outcome: StepOutcome) -> None:
        iteration = self.service.iteration
        if iteration is None:
            return
        for open_ in iteration.open_steps:
            self._step_finished(iteration.number, open_, outcome, "")
        self.set_iteration(open_steps=())

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
        if self._current(task):
            self._tell(diagnosis, task.key, _STEP_OF[task.kind])

    def _tell(self, diagnosis: Diagnosis, number: int, step: Step) -> None:
        self.events.append(
            DiagnosticRaised.of(diagnosis, iter=number, service=self.service.name, step=step)
        )
