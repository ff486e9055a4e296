"""The next state, and what to report, from a state and a fact. Pure: no clock, no I/O, no threads.

The rules in one place: work is needed when the disk's fingerprint is neither served nor known to
have failed, and when somebody asks for another try; the newest fingerprint wins; every started step
and iteration is finished once.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack, assert_never

from devloop.engine.beside import MOST_ATTEMPTS, caught_up, recovered
from devloop.engine.other_images import in_vain, moved_on
from devloop.engine.state import (
    WRITES,
    Asked,
    Awaits,
    Began,
    Behind,
    ChangedOutside,
    Dirty,
    Done,
    Ended,
    Failed,
    Failure,
    Finished,
    Hinted,
    Hold,
    Iteration,
    NotSynced,
    Proof,
    Said,
    Started,
    StopRequested,
    TaskKind,
    Unserved,
)
from devloop.engine.turn import STEP_OF, SUPERSEDED, Turn
from devloop.errors import Code, Diagnosis
from devloop.events import DiagnosticRaised, Trigger, WatchChanged, WatchRescanned
from devloop.model import Deployed, ImageRef, Outcome, Resumed, Scan, Served, Step, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.engine.state import Fact, State, Task
    from devloop.engine.turn import Reason
    from devloop.events import Event


# How many changed paths an event lists; all are counted.
LISTED = 20

# What a failed build wrote is heard of so many seconds after its end, where files are polled.
_ECHO = 1.0


def retry_delay(attempt: int) -> float:
    """Seconds before try number `attempt` + 1: 1, 2, 4, 8, then 10."""
    return min(10.0, 2.0 ** (attempt - 1))


def reduce(state: State, fact: Fact, now: float) -> tuple[State, list[Event]]:
    events: list[Event] = []
    if isinstance(fact, StopRequested):
        return _stop(state, fact, now, events), events
    own = Hinted | Asked | ChangedOutside
    name = fact.service if isinstance(fact, own) else fact.task.service
    turn = Turn(state, state.services[name], now, events)
    if isinstance(fact, Began | Finished | Said) and not turn.is_current(fact.task):
        return state, events
    match fact:
        case Hinted():
            _hinted(turn, fact)
        case Asked():
            _asked(turn)
        case ChangedOutside(_, change):
            _changed_outside(turn, change)
        case Started(task):
            _started(turn, task)
        case Ended(task, result):
            _ended(turn, task, result)
        case Began(_, step):
            turn.began(step)
        case Finished(_, step, outcome, detail):
            turn.finished(step, outcome, detail)
        case Said(_, event):
            events.append(event)
        case _:
            assert_never(fact)
    return _between_services(turn.result(), now, events), events


def _between_services(state: State, now: float, events: list[Event]) -> State:
    """What the images of one service mean for others."""
    if state.stop is not None:
        return state
    for name in state.services:
        turn = Turn(state, state.services[name], now, events)
        missing = in_vain(state, turn.service) if state.mode == "run" else None
        scan = turn.service.scan
        if missing is not None:
            _task_failed(turn, turn.iteration.task(name), missing)
        elif scan is not None and (moved := moved_on(state, turn.service)):
            followed = {other: state.services[other].offers for other in moved}
            turn.service = replace(turn.service, followed={**turn.service.followed, **followed})
            trigger = Trigger(kind="image", paths=moved, count=len(moved))
            _begin(turn, trigger, scan)
        else:
            continue
        state = turn.result()
    return state


def _stop(state: State, fact: StopRequested, now: float, events: list[Event]) -> State:
    if state.stop is not None:
        return state
    for service in state.services.values():
        turn = Turn(state, service, now, events)
        if service.iteration is not None:
            turn.end_iteration(Outcome.CANCELLED, why=fact.why or "stopped", stopped=True)
        state = turn.result()
    return replace(state, stop=fact)


# --- the disk ---------------------------------------------------------------------------


def _hinted(turn: Turn, fact: Hinted) -> None:
    if turn.state.stop is not None:
        return
    old = turn.service.dirty
    if old is None:
        dirty = Dirty(first=turn.now, last=turn.now, paths=fact.paths)
    else:
        paths = None if old.paths is None or fact.paths is None else old.paths | fact.paths
        dirty = replace(old, last=turn.now, paths=paths)
    turn.service = replace(turn.service, dirty=dirty)


def _asked(turn: Turn) -> None:
    """Begins with a look at the disk, as everything does."""
    turn.service = replace(turn.service, asked=True)
    _hinted(turn, Hinted(service=turn.service.name, paths=None))


def _changed_outside(turn: Turn, change: Diagnosis | None) -> None:
    """What runs is not what was proven any more; the next save takes it back, not before."""
    service = turn.service
    if turn.state.stop is not None or (change is None and service.taken is None):
        return
    if change is None:
        # Whether its pods follow, nobody has looked at.
        change = Diagnosis(
            code=Code.SAFETY_CHANGED_OUTSIDE,
            severity="info",
            message="the workload is again as devloop left it",
            suggestions=("save a file of the service to see it served",),
        )
    turn.service = replace(
        service,
        served=None,
        proof=None,
        applied=False,
        behind=None,
        unserved=None,
        taken=change,
    )
    # One that is deployed notices it by itself, one that is to be deployed takes it back.
    if service.iteration is None:
        turn.events.append(DiagnosticRaised.of(change, service=service.name))


def _scanned(turn: Turn, scan: Scan, seen: Dirty, done: Done) -> None:
    service = turn.service
    first = service.scan is None and service.failure is None
    turn.service = replace(turn.service, scan=scan, asked=False)
    if scan.changed and not first:
        if seen.paths is None:
            # What the watcher missed; an audit that finds nothing is not reported.
            why = "looked at everything"
            turn.events.append(
                WatchRescanned(service=service.name, reason=why, files=scan.files, ms=scan.ms)
            )
        turn.events.append(
            WatchChanged(service=service.name, paths=scan.changed[:LISTED], count=len(scan.changed))
        )
    running = service.iteration
    fingerprint = scan.fingerprint
    if running is not None:
        spared = running.number == done.spares
        same = running.scan.fingerprint == fingerprint or spared
        if spared and done.wrote:
            # What its own build wrote is no change: it stands for this, too.
            turn.iteration = running = replace(running, scan=scan)
        if same or running.goes_through(scan):
            if running.hold is not None and (service.asked or seen.paths):
                # Somebody thinks that what it waits for is there.
                turn.iteration = replace(running, hold=replace(running.hold, until=turn.now))
            return
        if running.deployed is None:
            turn.count_superseded(scan.changed)
        turn.end_iteration(Outcome.CANCELLED, why="superseded by a newer change")
    elif service.superseded[-1:] == ((),):
        # A builder found that something had changed; this scan says what.
        turn.service = replace(turn.service, superseded=service.superseded[:-1])
        turn.count_superseded(scan.changed)
    failure = service.failure
    if running is None and failure and done.wrote and seen.first < failure.at + _ECHO:
        turn.service = replace(turn.service, failure=replace(failure, fingerprint=fingerprint))
        return
    wished = service.asked or scan.changed or seen.paths
    if service.taken is not None and running is None and failure is None and not wished:
        return  # an audit is nobody's wish to take it back
    trigger = _trigger(turn, scan, seen, first=first)
    if service.asked:
        _begin(turn, trigger if first or scan.changed else Trigger(kind="retry"), scan)
    else:
        _compare(turn, trigger, scan, seen, ended=running is not None)


def _compare(turn: Turn, trigger: Trigger, scan: Scan, seen: Dirty, *, ended: bool) -> None:
    """Begin an iteration, or say why there is nothing to do. `ended`: one was ended just now."""
    service, fingerprint = turn.service, scan.fingerprint
    failure = service.failure
    if fingerprint == service.served:
        # A first look or an audit that finds nothing new is not reported, unless it shows
        # that an unreadable disk, a failed or a cancelled try is over.
        if ended or failure is not None or seen.paths:
            _unchanged(turn, trigger, scan, "the content equals what is serving")
        turn.service = replace(turn.service, failure=None)
    elif failure is not None and failure.fingerprint == fingerprint:
        if not ended and seen.paths and seen.first >= failure.at + _ECHO:
            # The same bytes were saved: what was wrong may have been outside of them.
            _begin(turn, replace(trigger, kind="retry"), scan)
        elif ended or seen.paths:
            why = f"the content equals #{failure.iteration}, which failed: "
            _unchanged(turn, trigger, scan, why + failure.diagnosis.message)
    else:
        _begin(turn, trigger, scan)


def _scan_failed(turn: Turn, diagnosis: Diagnosis, seen: Dirty) -> None:
    failure = turn.service.failure
    if turn.service.iteration is not None:
        turn.end_iteration(Outcome.CANCELLED, why="its source cannot be read any more")
    elif failure and failure.fingerprint is None and failure.diagnosis == diagnosis:
        return
    first = turn.service.scan is None
    number = turn.announce(_trigger(turn, None, seen, first=first), None)
    failure = Failure(
        fingerprint=None, iteration=number, step=Step.SCAN, diagnosis=diagnosis, at=turn.now
    )
    turn.report(diagnosis, number, Step.SCAN)
    turn.close(number, Outcome.FAILED, ms=0.0, failure=failure)


def _trigger(turn: Turn, scan: Scan | None, seen: Dirty, *, first: bool) -> Trigger:
    if first:
        return Trigger(kind="start")
    if scan is not None and scan.changed:
        return _files(scan.changed)
    return _files(sorted(os.path.relpath(path, turn.state.root) for path in seen.paths or ()))


def _files(paths: Sequence[str]) -> Trigger:
    return Trigger(kind="files", paths=tuple(paths[:LISTED]), count=len(paths))


def _begin(turn: Turn, trigger: Trigger, scan: Scan) -> None:
    number = turn.announce(trigger, scan)
    superseded = turn.service.superseded
    let_through = None
    if len(superseded) >= SUPERSEDED:
        let_through = frozenset(path for paths in superseded for path in paths)
        turn.name_noise(number, scan)
    # A deploy that broke off may have changed some of the objects and not others; another try with
    # the same bytes finds nothing to sync.
    may_sync = turn.service.syncs and turn.service.applied and turn.service.proof is not None
    may_sync = may_sync and trigger.kind not in {"retry", "image"}
    turn.service = replace(turn.service, failure=None, unserved=None, taken=None)
    stage = TaskKind.SYNC if may_sync else TaskKind.BUILD
    turn.iteration = Iteration(
        number=number,
        trigger=trigger,
        scan=scan,
        since=turn.now,
        stage=TaskKind.RESUME if turn.service.resumes else stage,
        let_through=let_through,
    )


def _unchanged(turn: Turn, trigger: Trigger, scan: Scan, why: str) -> None:
    number = turn.announce(trigger, scan)
    turn.close(number, Outcome.UNCHANGED, ms=scan.ms, why=why)


# --- tasks ------------------------------------------------------------------------------


def _started(turn: Turn, task: Task) -> None:
    turn.service = replace(turn.service, running=turn.service.running | {task})
    if task.kind is TaskKind.SCAN:
        turn.service = replace(
            turn.service, looking_at=turn.service.dirty, dirty=None, scans=task.key
        )
    elif task.kind in WRITES and task.kind is not TaskKind.SYNC:
        # From here on the cluster may hold something else than what was proven.
        turn.service = replace(turn.service, served=None, applied=False, resumes=False)
    if turn.is_current(task):
        turn.iteration = replace(turn.iteration, hold=None)


def _ended(turn: Turn, task: Task, result: object) -> None:
    turn.service = replace(turn.service, running=turn.service.running - {task})
    if task.kind is TaskKind.SCAN:
        seen = turn.service.looking_at
        turn.service = replace(turn.service, looking_at=None)
        if seen is None or turn.state.stop is not None:
            return
        if isinstance(result, Done) and isinstance(result.value, Scan):
            _scanned(turn, result.value, seen, result)
        elif isinstance(result, Failed):
            _scan_failed(turn, result.diagnosis, seen)
        return
    if task.kind is TaskKind.CATCH_UP:
        caught_up(turn, task, result)
        return
    if task.kind is TaskKind.RECOVER:
        recovered(turn, task, result)
        return
    if not turn.is_current(task):
        return
    match result:
        case Done(value):
            turn.close_steps(StepOutcome.DONE)
            _advance(turn, value)
        case Failed(diagnosis):
            _task_failed(turn, task, diagnosis)
        case _:
            # Cancelled by nobody: try again rather than hang, but not for ever.
            if task.attempt >= MOST_ATTEMPTS:
                why = f"{task.kind} ends again and again as if it had been cancelled"
                _task_failed(turn, task, worker_bug(why))
                return
            turn.close_steps(StepOutcome.CANCELLED)
            turn.iteration = replace(turn.iteration, attempt=task.attempt + 1)


def _end(turn: Turn, outcome: Outcome, **reason: Unpack[Reason]) -> None:
    """End the iteration with its result; what did not supersede it begins."""
    ended = turn.iteration
    turn.end_iteration(outcome, **reason)
    newest, done = turn.service.scan, (ended.scan.fingerprint, turn.service.served)
    if newest is not None and newest.fingerprint not in done:
        _begin(turn, _files(newest.changed), newest)


def _advance(turn: Turn, value: object) -> None:
    iteration = turn.iteration
    match value:
        case NotSynced(reason):
            if reason and reason != turn.service.not_synced:
                turn.skipped(Step.SYNC, reason)
            turn.service = replace(turn.service, not_synced=reason)
            turn.to_stage(TaskKind.BUILD)
        case Resumed():
            _resumed(turn, value)
        case ImageRef():
            turn.service = replace(turn.service, made=value.pinned)
            turn.to_stage(TaskKind.DEPLOY, image=value)
        case Awaits(services):
            turn.iteration = replace(iteration, awaits=services, attempt=iteration.attempt + 1)
        case Deployed():
            turn.service = replace(
                turn.service, applied=True, superseded=(), taken=None, uses=value.uses
            )
            if value.alone:
                # What was served before is gone, whether this one gets ready or not.
                turn.service = replace(turn.service, proof=None)
            turn.to_stage(TaskKind.FOLLOW, deployed=value)
        case Served(image=image):
            _served(turn, image)
        case _ if (failure := iteration.failure) is not None:
            # The rollback is through; the failure that caused it ends the iteration.
            why = f"{failure.diagnosis.message}; rolled back"
            _end(turn, Outcome.FAILED, why=why, failure=failure, rolled_back=True)
        case _:
            raise TypeError(f"a {iteration.stage} worker returned {value!r}")


def _served(turn: Turn, image: ImageRef) -> None:
    iteration, taken = turn.iteration, turn.service.taken
    synced = iteration.stage is TaskKind.SYNC
    if taken is not None and synced:
        # What was synced went into pods that somebody replaces: the save is the newer wish.
        turn.close_steps(StepOutcome.DONE)
        turn.service = replace(turn.service, taken=None)
        turn.to_stage(TaskKind.BUILD)
        return
    if taken is not None:
        _task_failed(turn, iteration.task(turn.service.name), replace(taken, severity="error"))
        return
    scan, number, deployed = iteration.scan, iteration.number, iteration.deployed
    fingerprint = scan.fingerprint
    proof = Proof(fingerprint=fingerprint, iteration=number, image=image)
    turn.service = replace(turn.service, served=fingerprint, proof=proof, behind=None)
    if synced:
        behind = Behind(scan=scan, key=number, since=turn.now)
        turn.service = replace(turn.service, behind=behind)
        _end(turn, Outcome.READY, why="synced into what runs")
        return
    turn.service = replace(turn.service, offers=image.pinned)
    if iteration.trigger.kind == "start" and not (deployed and deployed.changed):
        _end(turn, Outcome.UNCHANGED, why="the cluster serves this already")
    else:
        _end(turn, Outcome.READY, why=f"serving {image.short}")


def _resumed(turn: Turn, found: Resumed) -> None:
    """What an earlier session left is as if this one had done it."""
    number, scan = turn.iteration.number, turn.iteration.scan
    if turn.service.taken is not None:
        turn.to_stage(TaskKind.BUILD)
        return
    proof = Proof(fingerprint=scan.fingerprint, iteration=number, image=found.image)
    pinned = found.image.pinned
    turn.service = replace(
        turn.service, resumes=False, applied=True, proof=proof, made=pinned, offers=pinned
    )
    if not found.current:
        turn.to_stage(TaskKind.SYNC)
        return
    behind = None if found.held else Behind(scan=scan, key=number, since=turn.now)
    turn.service = replace(turn.service, served=scan.fingerprint, behind=behind)
    _end(turn, Outcome.UNCHANGED, why="the cluster serves this already")


def _task_failed(turn: Turn, task: Task, diagnosis: Diagnosis) -> None:
    iteration = turn.iteration
    changed = diagnosis.code is Code.BUILD_CONTEXT_CHANGED
    if changed and (turn.state.mode == "dev" or iteration.let_through is None):
        turn.end_iteration(Outcome.CANCELLED, why=diagnosis.message)
        turn.count_superseded(())
        _hinted(turn, Hinted(service=turn.service.name, paths=None))
        return
    if turn.state.mode == "dev" and diagnosis.code.transient:
        _hold(turn, task, diagnosis)
        return
    if task.kind is TaskKind.SYNC and diagnosis.code is Code.SYNC_FAILED:
        # The image brings everything that a sync cannot.
        mild = "warning" if diagnosis.severity == "error" else diagnosis.severity
        turn.report(replace(diagnosis, severity=mild), iteration.number, Step.SYNC)
        turn.close_steps(StepOutcome.FAILED)
        turn.to_stage(TaskKind.BUILD)
        return
    if task.kind is TaskKind.SYNC:
        # What an earlier sync brought is not all there is in the containers.
        turn.service = replace(turn.service, behind=None)
    step = iteration.open_steps[-1].step if iteration.open_steps else STEP_OF[task.kind]
    turn.report(diagnosis, iteration.number, step)
    if iteration.failure is not None:
        _end(turn, Outcome.FAILED, failure=iteration.failure)
        return
    seen, number = iteration.scan.fingerprint, iteration.number
    failure = Failure(
        fingerprint=seen, iteration=number, step=step, diagnosis=diagnosis, at=turn.now
    )
    undo = iteration.deployed is not None and iteration.deployed.can_roll_back
    if task.kind is TaskKind.FOLLOW and turn.service.roll_back and undo:
        turn.close_steps(StepOutcome.FAILED)
        turn.to_stage(TaskKind.ROLLBACK, failure=failure)
        return
    ours = turn.service.taken is None
    if task.kind is TaskKind.FOLLOW and turn.state.mode == "dev" and iteration.deployed and ours:
        unserved = Unserved(
            scan=iteration.scan, key=number, deployed=iteration.deployed, since=turn.now
        )
        turn.service = replace(turn.service, unserved=unserved)
    _end(turn, Outcome.FAILED, failure=failure)


def worker_bug(message: str) -> Diagnosis:
    return Diagnosis(
        code=Code.INTERNAL_BUG,
        message=message,
        suggestions=("run again with -v and report what it prints",),
    )


def _hold(turn: Turn, task: Task, diagnosis: Diagnosis) -> None:
    turn.close_steps(StepOutcome.FAILED)
    attempt = task.attempt + 1
    until, why = turn.now + retry_delay(attempt), diagnosis.message
    hold = Hold(reason=why, until=until, code=diagnosis.code, attempt=attempt)
    turn.iteration = replace(turn.iteration, attempt=attempt, hold=hold)
