"""The next state, and what to tell, from a state and a fact. Pure: no clock, no I/O, no threads.

The rules in one place: work is needed when the disk's fingerprint is neither served nor known to
have failed; the newest fingerprint wins; every started step and iteration is finished once.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.state import (
    WRITES,
    Advanced,
    Began,
    Behind,
    CaughtUp,
    Diagnosed,
    Dirty,
    Done,
    Ended,
    Failed,
    Failure,
    Finished,
    Hinted,
    Iteration,
    NotSynced,
    Proof,
    Started,
    StopRequested,
    TaskKind,
)
from devloop.engine.turn import STEP_OF, Turn
from devloop.errors import Code, Diagnosis
from devloop.events import (
    DiagnosticRaised,
    HoldStarted,
    Trigger,
    WatchChanged,
    WatchRescanned,
)
from devloop.model import Deployed, ImageRef, Outcome, Scan, Served, Step, StepOutcome

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.engine.state import Fact, State, Task
    from devloop.events import Event

__all__ = ["LISTED", "reduce", "retry_delay"]

# How many changed paths an event lists; all are counted.
LISTED = 20


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


class _Turn(Turn):
    """The decisions: what each kind of fact means for a service."""

    # --- the disk ---------------------------------------------------------------------------

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
        number = self.announce(self._trigger(None, seen, first=first))
        self.scan_step(number, StepOutcome.FAILED, 0.0, "")
        failure = Failure(fingerprint=None, iteration=number, step=Step.SCAN, diagnosis=diagnosis)
        self.tell(diagnosis, number, Step.SCAN)
        self.close(number, Outcome.FAILED, ms=0.0, image=None, failure=failure)

    def _trigger(self, scan: Scan | None, seen: Dirty, *, first: bool) -> Trigger:
        if first:
            return Trigger(kind="start")
        if scan is not None and scan.changed:
            return Trigger(kind="files", paths=scan.changed[:LISTED], count=len(scan.changed))
        paths = sorted(self._relative(path) for path in seen.paths or ())
        return Trigger(kind="files", paths=tuple(paths[:LISTED]), count=len(paths))

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.state.root)

    def _begin(self, trigger: Trigger, scan: Scan) -> None:
        number = self.announce(trigger)
        self.scan_step(number, StepOutcome.DONE, scan.ms, f"{scan.files} files")
        self.set(
            failure=None,
            iteration=Iteration(
                number=number,
                trigger=trigger,
                scan=scan,
                since=self.now,
                stage=TaskKind.SYNC if self._may_sync else TaskKind.BUILD,
            ),
        )

    @property
    def _may_sync(self) -> bool:
        # A deploy that broke off may have changed some of the objects and not others.
        return self.service.syncs and self.service.applied and self.service.proof is not None

    def _unchanged(self, trigger: Trigger, scan: Scan, why: str) -> None:
        number = self.announce(trigger)
        self.scan_step(number, StepOutcome.DONE, scan.ms, f"{scan.files} files")
        self.close(number, Outcome.UNCHANGED, ms=scan.ms, image=None, why=why)

    # --- tasks ------------------------------------------------------------------------------

    def started(self, task: Task) -> None:
        self.set(running=self.service.running | {task})
        if task.kind is TaskKind.SCAN:
            self.set(looking_at=self.service.dirty, dirty=None, scans=task.key)
        elif task.kind in WRITES and task.kind is not TaskKind.SYNC:
            # From here on the cluster may hold something else than what was proven.
            self.set(served=None, applied=False)
        if self.is_current(task):
            self.set_iteration(wait_until=None)

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
        if task.kind is TaskKind.CATCH_UP:
            self._caught_up(task, result)
            return
        if not self.is_current(task):
            return
        match result:
            case Done(value):
                self.close_steps(StepOutcome.DONE)
                self._advance(value)
            case Failed(diagnosis):
                self._task_failed(task, diagnosis)
            case _:
                # Cancelled by nobody: try again rather than hang.
                self.close_steps(StepOutcome.CANCELLED)
                self.set_iteration(attempt=task.attempt + 1)

    def _advance(self, value: object) -> None:
        iteration = self.service.iteration
        assert iteration is not None  # noqa: S101 - `_current` said so
        match value:
            case NotSynced(reason):
                self.skipped(Step.SYNC, reason)
                self.set_iteration(stage=TaskKind.BUILD, attempt=0)
            case ImageRef():
                self.set_iteration(image=value, stage=TaskKind.DEPLOY, attempt=0)
            case Deployed():
                self.set(applied=True)
                if value.alone:
                    # What was served before is gone, whether this one gets ready or not.
                    self.set(proof=None)
                self.set_iteration(deployed=value, stage=TaskKind.FOLLOW, attempt=0)
            case Served(image=image):
                fingerprint = iteration.scan.fingerprint
                synced = iteration.stage is TaskKind.SYNC
                self.set(
                    served=fingerprint,
                    proof=Proof(fingerprint=fingerprint, iteration=iteration.number, image=image),
                    behind=Behind(scan=iteration.scan, key=iteration.number, since=self.now)
                    if synced
                    else None,
                )
                already = iteration.trigger.kind == "start" and not (
                    iteration.deployed and iteration.deployed.changed
                )
                if synced:
                    self.end_iteration(Outcome.READY, why="synced into what runs")
                elif already:
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
        if diagnosis.code == Code.BUILD_CONTEXT_CHANGED:
            self.end_iteration(Outcome.CANCELLED, why=diagnosis.message)
            self.hinted(Hinted(service=self.service.name, paths=None))
            return
        if self.state.mode == "dev" and diagnosis.code.transient:
            self._hold(task, diagnosis)
            return
        if task.kind is TaskKind.SYNC and diagnosis.code.startswith("sync/"):
            # The image brings everything that a sync cannot.
            self.tell(replace(diagnosis, severity="warning"), iteration.number, Step.SYNC)
            self.close_steps(StepOutcome.FAILED)
            self.set_iteration(stage=TaskKind.BUILD, attempt=0)
            return
        step = iteration.open_steps[-1].step if iteration.open_steps else STEP_OF[task.kind]
        self.tell(diagnosis, iteration.number, step)
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
            self.close_steps(StepOutcome.FAILED)
            self.set_iteration(failure=failure, stage=TaskKind.ROLLBACK, attempt=0)
        else:
            self.end_iteration(Outcome.FAILED, failure=failure)

    def _caught_up(self, task: Task, result: object) -> None:
        behind = self.service.behind
        if behind is None or behind.task(self.service.name) != task:
            return
        match result:
            case Done(CaughtUp() as caught_up):
                self.set(behind=None)
                self._mention(_caught_up(caught_up))
            case Failed(diagnosis):
                # The pods have the files; the next change tries again and tells all.
                self.set(behind=None)
                self._mention(replace(diagnosis, severity="warning"))
            case _:
                self.set(behind=replace(behind, since=self.now, attempt=behind.attempt + 1))

    def _mention(self, diagnosis: Diagnosis) -> None:
        """Tell something that belongs to no iteration."""
        self.events.append(DiagnosticRaised.of(diagnosis, service=self.service.name))

    def _hold(self, task: Task, diagnosis: Diagnosis) -> None:
        self.close_steps(StepOutcome.FAILED)
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


def _caught_up(caught_up: CaughtUp) -> Diagnosis:
    short = caught_up.image.short
    if caught_up.adopted:
        return Diagnosis(
            code=Code.SYNC_IMAGE,
            severity="info",
            message=f"image {short} holds what was synced: pods to come start with it",
        )
    return Diagnosis(
        code=Code.SYNC_IMAGE,
        severity="info",
        message="pods to come start with the older image and get the synced files at once",
        cause=caught_up.reason,
    )
