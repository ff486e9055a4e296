"""What is decided when something is said of the disk, or of what runs: whether an iteration
begins, and why not. Pure; for `reduce`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.facts import Hinted
from devloop.engine.needs import like_before
from devloop.engine.state import SUPERSEDED, Dirty, Failure, Iteration, TaskKind
from devloop.errors import Code, Diagnosis
from devloop.events import (
    DiagnosticRaised,
    Trigger,
    TriggerTaken,
    WatchChanged,
    WatchRescanned,
)
from devloop.model import Outcome, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.engine.facts import Asked, Done
    from devloop.engine.state import ServiceState
    from devloop.engine.turn import Turn
    from devloop.model import Scan


# How many changed paths an event lists; all are counted.
LISTED = 20

# What a failed build wrote is heard of so many seconds after its end, where files are polled.
_ECHO = 1.0


def hinted(turn: Turn, fact: Hinted) -> None:
    if turn.state.stop is not None:
        return
    old = turn.service.dirty
    if old is None:
        dirty = Dirty(first=turn.now, last=turn.now, paths=fact.paths, named=bool(fact.paths))
    else:
        paths = None if old.paths is None or fact.paths is None else old.paths | fact.paths
        named = old.named or bool(fact.paths)
        dirty = replace(old, last=turn.now, paths=paths, named=named)
    turn.service = replace(turn.service, dirty=dirty)


def asked(turn: Turn, fact: Asked) -> None:
    """Somebody wants another try: it begins with a look at the disk, as everything does."""
    hinted(turn, Hinted(service=turn.service.name, paths=None))
    dirty = turn.service.dirty
    if turn.state.stop is None and dirty is not None:
        dirty = replace(dirty, asks=(*dirty.asks, fact.id))
        turn.service = replace(turn.service, dirty=dirty, fresh=turn.service.fresh or fact.fresh)


def changed_outside(turn: Turn, change: Diagnosis | None) -> None:
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


def scanned(turn: Turn, scan: Scan, seen: Dirty, done: Done) -> None:
    """Decide by what a look at the disk found, and report who asked for it what follows."""
    service, before = turn.service, turn.state.next_iteration
    turn.service = service = replace(service, builds_on=frozenset(scan.needs))
    if service.scan is None or service.scan.fingerprint.build != scan.fingerprint.build:
        turn.service = service = replace(service, no_image="")
    if not all(scan.needs.values()):
        # What it needs is not built yet: the look is taken again then.
        turn.service = replace(service, dirty=_together(seen, service.dirty))
        return
    _decide(turn, scan, seen, done)
    iteration = turn.service.iteration
    _taken(turn, seen, before if iteration is None else iteration.number)


def _together(seen: Dirty, since: Dirty | None) -> Dirty:
    if since is None:
        return seen
    paths = None if seen.paths is None or since.paths is None else seen.paths | since.paths
    return Dirty(
        first=seen.first,
        last=since.last,
        paths=paths,
        asks=(*seen.asks, *since.asks),
        again=seen.again or since.again,
        keys=tuple(dict.fromkeys((*seen.keys, *since.keys))),
        named=seen.named or since.named,
        images=tuple(dict.fromkeys((*seen.images, *since.images))),
    )


def _taken(turn: Turn, seen: Dirty, number: int) -> None:
    if seen.asks:
        name = turn.service.name
        turn.events.append(TriggerTaken(service=name, iter=number, ids=seen.asks))


def _decide(turn: Turn, scan: Scan, seen: Dirty, done: Done) -> None:
    service = turn.service
    first = service.scan is None and service.failure is None
    turn.service = replace(turn.service, scan=scan)
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
    wished = seen.wished or bool(scan.changed)
    if service.back and not (seen.asks or seen.keys) and (done.wrote or not wished):
        # Neither an audit nor what a build wrote is a wish to have what somebody went back from.
        return
    turn.service = replace(turn.service, back="")
    if running is not None:
        if _stays(turn, running, scan, seen, done):
            return
    elif service.superseded[-1:] == ((),):
        # A builder found that something had changed; this scan says what.
        turn.service = replace(turn.service, superseded=service.superseded[:-1])
        turn.count_superseded(scan.changed)
    failure = service.failure
    idle = running is None and not (seen.asks or seen.again or seen.keys)
    if done.left and idle and _left_by_hooks(turn, service, scan):
        return
    echo = done.wrote and not seen.asks and failure and seen.first < failure.at + _ECHO
    if running is None and failure and echo:
        turn.service = replace(turn.service, failure=replace(failure, fingerprint=fingerprint))
        return
    if (
        service.taken is not None
        and running is None
        and failure is None
        and not (wished or seen.again)
    ):
        return  # an audit is nobody's wish to take it back
    trigger = _trigger(turn, scan, seen, first=first)
    if seen.asks or seen.again:
        begin(turn, trigger if first or seen.keys or scan.changed else Trigger(kind="retry"), scan)
    else:
        _compare(turn, trigger, scan, seen, ended=running is not None)


def _left_by_hooks(turn: Turn, before: ServiceState, scan: Scan) -> bool:
    """What hooks left is no change: what was known of the disk as it was before holds on. False
    where nothing was."""
    last = before.scan.fingerprint if before.scan is not None else None
    if last is None:
        return False
    if before.served == scan.fingerprint:
        return True
    if before.served == last:
        turn.service = replace(turn.service, served=scan.fingerprint)
    elif before.failure is not None and before.failure.fingerprint == last:
        failure = replace(before.failure, fingerprint=scan.fingerprint)
        turn.service = replace(turn.service, failure=failure)
    else:
        return False
    if before.behind is not None:
        turn.service = replace(turn.service, behind=replace(before.behind, scan=scan))
    return True


def _stays(turn: Turn, running: Iteration, scan: Scan, seen: Dirty, done: Done) -> bool:
    """Whether the iteration under way goes on; it is ended if not."""
    service, fingerprint = turn.service, scan.fingerprint
    if running.back:
        turn.end_iteration(Outcome.CANCELLED, why="superseded by a newer change")
        return False
    spared = running.number == done.spares
    same = running.scan.fingerprint == fingerprint or spared
    if spared:
        builds = running.scan.fingerprint.build, fingerprint.build
        turn.service = service = like_before(service, *builds)
    if spared and done.wrote:
        # What its own build wrote is no change: it stands for this, too.
        turn.iteration = running = replace(running, scan=scan)
    stays = running.fresh or not service.fresh
    if stays and (same or running.goes_through(scan)):
        if running.hold is not None and (seen.asks or seen.paths):
            # Somebody thinks that what it waits for is there.
            turn.iteration = replace(running, hold=replace(running.hold, until=turn.now))
        return True
    if running.deployed is None:
        turn.count_superseded(scan.changed)
    why = "superseded by a newer change" if stays or not same else "a full build is asked for"
    turn.end_iteration(Outcome.CANCELLED, why=why)
    return False


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
            begin(turn, replace(trigger, kind="retry"), scan)
        elif ended or seen.paths:
            why = f"the content equals #{failure.iteration}, which failed: "
            _unchanged(turn, trigger, scan, why + failure.diagnosis.message)
    else:
        begin(turn, trigger, scan)


def scan_failed(turn: Turn, diagnosis: Diagnosis, seen: Dirty) -> None:
    failure = turn.service.failure
    if turn.service.back and not seen.wished:
        return
    turn.service = replace(turn.service, back="")
    if turn.service.iteration is not None:
        turn.end_iteration(Outcome.CANCELLED, why="its source cannot be read any more")
    elif (
        failure and failure.fingerprint is None and failure.diagnosis == diagnosis and not seen.asks
    ):
        return
    first = turn.service.scan is None
    number = turn.announce(_trigger(turn, None, seen, first=first), None)
    failure = Failure(
        fingerprint=None, iteration=number, step=Step.SCAN, diagnosis=diagnosis, at=turn.now
    )
    _taken(turn, seen, number)
    turn.report(diagnosis, number, Step.SCAN)
    turn.close(number, Outcome.FAILED, ms=0.0, failure=failure)


def _trigger(turn: Turn, scan: Scan | None, seen: Dirty, *, first: bool) -> Trigger:
    if seen.keys:
        return Trigger(kind="config", paths=seen.keys[:LISTED], count=len(seen.keys))
    if first:
        return Trigger(kind="start")
    if scan is not None and scan.changed:
        return files_trigger(scan.changed)
    if seen.images:
        return Trigger(kind="image", paths=seen.images, count=len(seen.images))
    return files_trigger(
        sorted(os.path.relpath(path, turn.state.root) for path in seen.paths or ())
    )


def files_trigger(paths: Sequence[str]) -> Trigger:
    return Trigger(kind="files", paths=tuple(paths[:LISTED]), count=len(paths))


def begin(turn: Turn, trigger: Trigger, scan: Scan) -> None:
    number = turn.announce(trigger, scan)
    superseded = turn.service.superseded
    let_through = None
    if len(superseded) >= SUPERSEDED:
        let_through = frozenset(path for paths in superseded for path in paths)
        turn.name_noise(number, scan)
    turn.count_streak(number, trigger, scan)
    # A deploy that broke off may have changed some of the objects and not others; another try with
    # the same bytes finds nothing to sync.
    may_sync = turn.service.syncs and turn.service.applied and turn.service.proof is not None
    fresh = turn.service.fresh
    may_sync = may_sync and not fresh and trigger.kind not in {"retry", "image"}
    turn.service = replace(turn.service, failure=None, unserved=None, taken=None)
    stage = TaskKind.SYNC if may_sync else TaskKind.BUILD
    turn.iteration = Iteration(
        number=number,
        trigger=trigger,
        scan=scan,
        since=turn.now,
        stage=TaskKind.RESUME if turn.service.resumes and not fresh else stage,
        let_through=let_through,
        fresh=fresh,
    )


def _unchanged(turn: Turn, trigger: Trigger, scan: Scan, why: str) -> None:
    number = turn.announce(trigger, scan)
    turn.close(number, Outcome.UNCHANGED, ms=scan.ms, why=why)
