"""The next state, and what to report, from a state and a fact. Pure: no clock, no I/O, no threads.

The rules in one place: work is needed when the disk's fingerprint is neither served nor known to
have failed, and when somebody asks for another try; the newest fingerprint wins; every started step
and iteration is finished once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Unpack, assert_never

from devloop.engine import needs
from devloop.engine.back import asked_back, back_at_last, chosen, with_good
from devloop.engine.beside import MOST_ATTEMPTS, caught_up, cause_mended, recovered
from devloop.engine.configuration import reconfigured, removed
from devloop.engine.disk import (
    asked,
    begin,
    changed_outside,
    files_trigger,
    hinted,
    scan_failed,
    scanned,
)
from devloop.engine.facts import (
    Asked,
    AskedBack,
    Awaits,
    Began,
    ChangedOutside,
    Continued,
    Done,
    Ended,
    Failed,
    Finished,
    Hinted,
    NotSynced,
    Paused,
    Reconfigured,
    Removed,
    Said,
    Started,
    StopRequested,
)
from devloop.engine.other_images import in_vain, moved_on
from devloop.engine.state import WRITES, Behind, Failure, GoodImage, Hold, Proof, TaskKind, Unserved
from devloop.engine.turn import STEP_OF, Turn
from devloop.errors import Code, Diagnosis
from devloop.events import SessionPaused, SessionResumed, Trigger
from devloop.model import Deployed, ImageRef, Outcome, Resumed, Scan, Served, Step, StepOutcome

if TYPE_CHECKING:
    from devloop.engine.facts import Fact
    from devloop.engine.state import State, Task
    from devloop.engine.turn import Reason
    from devloop.events import Event


# Seconds between two looks whether somebody has done what a hold waits for.
LOOK_EVERY = 3.0


def retry_delay(attempt: int) -> float:
    """Seconds before try number `attempt` + 1: 1, 2, 4, 8, then 10."""
    return min(10.0, 2.0 ** (attempt - 1))


def reduce(state: State, fact: Fact, now: float) -> tuple[State, list[Event]]:
    events: list[Event] = []
    match fact:
        case StopRequested():
            return _stop(state, fact, now, events), events
        case Paused() | Continued():
            state = _paused(state, fact, events)
        case Reconfigured():
            state = reconfigured(state, fact, now, events)
        case Removed():
            state = removed(state, fact, now, events)
        case _:
            state = _of_service(state, fact, now, events)
    return _between_services(state, now, events), events


def _of_service(
    state: State,
    fact: Hinted | Asked | AskedBack | ChangedOutside | Started | Ended | Began | Finished | Said,
    now: float,
    events: list[Event],
) -> State:
    own = Hinted | Asked | AskedBack | ChangedOutside
    name = fact.service if isinstance(fact, own) else fact.task.service
    if name not in state.services:
        return state  # it was taken out meanwhile
    turn = Turn(state, state.services[name], now, events)
    if turn.service.leaving:
        return _left(turn, fact)
    if isinstance(fact, Began | Finished | Said) and not turn.is_current(fact.task):
        return _too_late(turn, fact)
    match fact:
        case Hinted() | Asked() | AskedBack() | ChangedOutside():
            _heard(turn, fact)
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
    return turn.result()


def _left(turn: Turn, fact: Fact) -> State:
    """Of a service that is gone only its workers' ends matter."""
    if isinstance(fact, Ended):
        turn.service = replace(turn.service, running=turn.service.running - {fact.task})
    state = turn.result()
    if turn.service.running:
        return state
    name = turn.service.name
    return replace(state, services={n: s for n, s in state.services.items() if n != name})


def _heard(turn: Turn, fact: Hinted | Asked | AskedBack | ChangedOutside) -> None:
    match fact:
        case Hinted():
            hinted(turn, fact)
        case Asked():
            asked(turn, fact)
        case AskedBack():
            asked_back(turn, fact)
        case ChangedOutside(_, change):
            changed_outside(turn, change)


def _between_services(state: State, now: float, events: list[Event]) -> State:
    """What the images of one service mean for others, and its failure for those that need it."""
    if state.stop is not None or state.paused:
        return state
    for name in state.services:
        turn = Turn(state, state.services[name], now, events)
        if turn.service.leaving:
            continue
        if _needed(turn):
            state = turn.result()
            continue
        missing = in_vain(state, turn.service) if state.mode == "run" else None
        scan = turn.service.scan
        if missing is not None:
            _task_failed(turn, turn.iteration.task(name), missing)
        elif (
            scan is not None and not turn.service.back and (moved := moved_on(state, turn.service))
        ):
            followed = {other: state.services[other].offers for other in moved}
            turn.service = replace(turn.service, followed={**turn.service.followed, **followed})
            trigger = Trigger(kind="image", paths=moved, count=len(moved))
            begin(turn, trigger, scan)
        else:
            continue
        state = turn.result()
    return state


def _needed(turn: Turn) -> bool:
    """Whether something is to be done for what the service needs, or for those that need it."""
    service, state = turn.service, turn.state
    vain = needs.in_vain(state, service) if state.mode == "run" else None
    if vain is not None and service.iteration is not None:
        _task_failed(turn, turn.iteration.task(service.name), vain)
    elif vain is not None and (dirty := service.dirty) is not None:
        turn.service = replace(service, dirty=None)
        scan_failed(turn, vain, dirty)
    elif images := needs.moved(state, service):
        turn.service = needs.looked_for(service, images, turn.now)
    elif (made := needs.to_make(state, service, turn.now)) is not None:
        turn.service = made
    else:
        return False
    return True


def _stop(state: State, fact: StopRequested, now: float, events: list[Event]) -> State:
    if state.stop is not None:
        return state
    for service in state.services.values():
        turn = Turn(state, service, now, events)
        if service.iteration is not None:
            turn.end_iteration(Outcome.CANCELLED, why=fact.why or "stopped", stopped=True)
        state = turn.result()
    return replace(state, stop=fact)


def _paused(state: State, fact: Paused | Continued, events: list[Event]) -> State:
    reason = fact.reason if isinstance(fact, Paused) else ""
    if state.stop is not None or bool(reason) == bool(state.paused):
        return state
    events.append(SessionPaused(reason=reason) if reason else SessionResumed())
    return replace(state, paused=reason)


def _too_late(turn: Turn, fact: Began | Finished | Said) -> State:
    """The iteration of the one who says it is over. A sync that begins all the same, as a save
    takes back what it is to bring, leaves a part of that in the containers, for all one knows."""
    if not (isinstance(fact, Began) and fact.step is Step.SYNC):
        return turn.state
    service, scan = turn.service, turn.service.scan
    was_served = scan is not None and service.served == scan.fingerprint
    turn.service = replace(service, served=None)
    idle = service.iteration is None and service.failure is None and turn.state.stop is None
    if scan is not None and was_served and idle:
        begin(turn, files_trigger(scan.changed), scan)
    return turn.result()


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


def _scan_ended(turn: Turn, task: Task, result: object) -> None:
    if task.key != turn.service.scans:
        return  # with the settings of before
    seen = turn.service.looking_at
    turn.service = replace(turn.service, looking_at=None)
    if seen is None or turn.state.stop is not None:
        return
    if isinstance(result, Done) and isinstance(result.value, Scan):
        scanned(turn, result.value, seen, result)
    elif isinstance(result, Failed):
        scan_failed(turn, result.diagnosis, seen)


def _ended(turn: Turn, task: Task, result: object) -> None:
    turn.service = replace(turn.service, running=turn.service.running - {task})
    if task.kind is TaskKind.SCAN:
        _scan_ended(turn, task, result)
        return
    if task.kind is TaskKind.CATCH_UP:
        caught_up(turn, task, result)
        return
    if task.kind is TaskKind.RECOVER:
        recovered(turn, task, result)
        return
    if task.kind is TaskKind.AWAIT_CAUSE:
        cause_mended(turn, task, result)
        return
    if not turn.is_current(task):
        return
    match result:
        case Done(value):
            turn.close_steps(StepOutcome.DONE)
            if result.scan is not None:
                _prepared(turn, result.scan)
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


def _prepared(turn: Turn, scan: Scan) -> None:
    """What is served is what there was after the hooks, whose writes no other look may find."""
    turn.iteration = replace(turn.iteration, scan=scan)
    newest = turn.service.scan
    if newest is not None and newest.look < scan.look:
        turn.service = replace(turn.service, scan=scan)


def _end(turn: Turn, outcome: Outcome, **reason: Unpack[Reason]) -> None:
    """End the iteration with its result; what did not supersede it begins."""
    ended = turn.iteration
    turn.end_iteration(outcome, **reason)
    newest, done = turn.service.scan, (ended.scan.fingerprint, turn.service.served)
    if newest is not None and newest.fingerprint not in done:
        begin(turn, files_trigger(newest.changed), newest)


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
            fresh = turn.service.fresh and not iteration.fresh
            turn.service = replace(turn.service, made=value.pinned, fresh=fresh)
            build = iteration.scan.fingerprint.build
            turn.service = needs.with_image(turn.service, build, value)
            turn.to_stage(TaskKind.DEPLOY, image=value)
            if turn.state.until != "rollout":
                done = "built" if turn.state.until == "build" else "tested"
                _end(turn, Outcome.READY, why=f"{done} {value.short}")
        case Awaits(services):
            turn.iteration = replace(iteration, awaits=services, attempt=iteration.attempt + 1)
        case Deployed():
            turn.service = replace(
                turn.service, applied=True, superseded=(), taken=None, uses=value.uses
            )
            if value.alone:
                # What was served before is gone, whether this one gets ready or not.
                turn.service = replace(turn.service, proof=None)
            if iteration.back:
                chosen(turn, value.image)
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
    if iteration.back:
        turn.close_steps(StepOutcome.DONE)
        back_at_last(turn)
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
    found = GoodImage(image=image, fingerprint=fingerprint, iteration=number, scan=scan)
    turn.service = replace(
        turn.service, offers=image.pinned, good=with_good(turn.service.good, found)
    )
    if (
        deployed is not None
        and not deployed.workloads
        and needs.is_needed(turn.state, turn.service)
    ):
        _end(turn, Outcome.READY, why=f"built {image.short} for those that need it")
    elif iteration.trigger.kind in ("start", "config") and not (deployed and deployed.changed):
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
    if found.held:
        good = GoodImage(
            image=found.image, fingerprint=scan.fingerprint, iteration=number, scan=scan
        )
        turn.service = replace(turn.service, good=with_good(turn.service.good, good))
    behind = None if found.held else Behind(scan=scan, key=number, since=turn.now)
    turn.service = replace(turn.service, served=scan.fingerprint, behind=behind)
    _end(turn, Outcome.UNCHANGED, why="the cluster serves this already")


def _task_failed(turn: Turn, task: Task, diagnosis: Diagnosis) -> None:
    iteration = turn.iteration
    changed = diagnosis.code is Code.BUILD_CONTEXT_CHANGED
    if changed and (turn.state.mode == "dev" or iteration.let_through is None):
        turn.end_iteration(Outcome.CANCELLED, why=diagnosis.message)
        turn.count_superseded(())
        hinted(turn, Hinted(service=turn.service.name, paths=None))
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
    missing = task.kind is TaskKind.DEPLOY and diagnosis.code is Code.CLUSTER_NOT_FOUND
    failure = Failure(
        fingerprint=seen,
        iteration=number,
        step=step,
        diagnosis=diagnosis,
        at=turn.now,
        awaited=missing and turn.state.mode == "dev" and not iteration.back,
    )
    undo = iteration.deployed is not None and iteration.deployed.can_roll_back
    if iteration.back:
        turn.end_iteration(Outcome.FAILED, failure=failure)
        return
    if task.kind is TaskKind.FOLLOW and turn.service.roll_back and undo:
        turn.close_steps(StepOutcome.FAILED)
        turn.to_stage(TaskKind.ROLLBACK, failure=failure)
        return
    ours = turn.service.taken is None
    # What runs is ready where only the hooks after that failed.
    ours = ours and diagnosis.code is not Code.HOOK_FAILED
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
    looks = diagnosis.code is Code.SAFETY_GITOPS_OWNED
    if looks and attempt == 1:
        # The hold has the reason alone.
        turn.report(replace(diagnosis, severity="warning"), turn.iteration.number, Step.DEPLOY)
    delay = LOOK_EVERY if looks else retry_delay(attempt)
    hold = Hold(
        reason=diagnosis.message,
        until=turn.now + delay,
        code=diagnosis.code,
        attempt=attempt,
        looks=looks,
    )
    turn.iteration = replace(turn.iteration, attempt=attempt, hold=hold)
