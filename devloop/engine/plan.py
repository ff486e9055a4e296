"""Which workers a state wants to be running right now, and why the others wait. Pure; the loop
makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.engine.needs import hold_for_deploy, hold_for_look, hold_of_idle
from devloop.engine.other_images import hold_for
from devloop.engine.state import WRITES, Hold, Task, TaskKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.engine.state import ServiceState, State


# The watcher rests before it gives a hint, so the first one is followed at once. Where more come
# before that was possible, the save goes on: then it is followed this many seconds after the last,
# and at the latest so many after the first.
REST = 0.015
CAP = 0.2

# Seconds of quiet after a file sync before an image is made that holds what was synced.
CATCH_UP_AFTER = 1.0

# What is done in a pause as well: it begins nothing new.
_GO_ON = frozenset({TaskKind.FOLLOW, TaskKind.ROLLBACK, TaskKind.RECOVER})

# More builds at once only slow each other down; services beyond this wait for a slot.
MAX_BUILDS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """`tasks` are all the workers that shall run (those already running included); `holds` says
    what a service that waits is waiting for; `wake` is when to ask again if nothing happens before,
    in the loop's clock, None for never."""

    tasks: frozenset[Task]
    holds: Mapping[str, Hold]
    wake: float | None

    @property
    def at_work(self) -> frozenset[str]:
        """The services with a step under way: a change that waits meanwhile holds no iteration."""
        return frozenset(t.service for t in self.tasks if t.kind is not TaskKind.SCAN)


def plan(state: State, now: float) -> Plan:
    if state.stop is not None:
        return Plan(frozenset(), {}, None)
    tasks: set[Task] = set()
    holds: list[tuple[str, Hold]] = []
    builds = sum(task.kind is TaskKind.BUILD for s in state.services.values() for task in s.running)
    for service in state.services.values():
        if service.leaving:
            continue
        step = _next_step(state, service, now) or _catch_up(service, now) or _recovery(service)
        step = step or _gone_back(service)
        if step is None and service.iteration is None:
            step = hold_of_idle(state, service)
        step = _unless_paused(state, service, step)
        if isinstance(step, Task) and step.kind is TaskKind.BUILD and step not in service.running:
            if builds < MAX_BUILDS:
                builds += 1
            else:
                step = Hold(reason=f"waits for one of {MAX_BUILDS} builds to end")
        for wanted in (_unless_paused(state, service, _scan(state, service, now)), step):
            if isinstance(wanted, Task):
                tasks.add(wanted)
            elif wanted is not None:
                holds.append((service.name, wanted))
    wakes = [hold.until for _, hold in holds if hold.until is not None]
    return Plan(frozenset(tasks), dict(holds), min(wakes, default=None))


def _unless_paused(
    state: State, service: ServiceState, wanted: Task | Hold | None
) -> Task | Hold | None:
    """What is under way comes to the end of its step, and what was deployed is followed. Changes
    are not even looked at: they are one change when it goes on."""
    if not state.paused or wanted is None or wanted in service.running:
        return wanted
    if wanted == service.scanning or (isinstance(wanted, Task) and wanted.kind in _GO_ON):
        return wanted
    return Hold(reason=state.paused)


def _scan(state: State, service: ServiceState, now: float) -> Task | Hold | None:
    if service.scanning is not None:
        return service.scanning
    if service.dirty is None:
        return None
    first, last = service.dirty.first, service.dirty.last
    due = min(last + REST, first + CAP) if last > first else first
    if now < due:
        return Hold(reason="waits for the saves to end", until=due)
    hold = hold_for_look(state, service)
    return hold or Task(TaskKind.SCAN, service.name, service.scans + 1)


def _next_step(state: State, service: ServiceState, now: float) -> Task | Hold | None:
    iteration = service.iteration
    if iteration is None:
        return None
    hold = iteration.hold
    if hold is not None and hold.until is not None and now < hold.until:
        return hold
    task = iteration.task(service.name)
    if task.kind in WRITES and task not in service.running:
        # Two patches must never be in flight, so a cancelled write is waited for ...
        for other in service.running:
            if other.kind in WRITES:
                return Hold(reason=f"waits for the {other.kind} of #{other.key} to end")
        if (
            task.kind is TaskKind.DEPLOY
            and (missing := hold_for_deploy(state, service)) is not None
        ):
            return missing
        # ... and what may be superseded already is not deployed: the scan decides first.
        unsure = (service.dirty or service.scanning) and not iteration.back
        if task.kind is TaskKind.DEPLOY and unsure and iteration.let_through is None:
            return Hold(reason="waits for another look at the files")
        if task.kind is TaskKind.DEPLOY and (missing := hold_for(state, service)) is not None:
            return missing
    return task


def _recovery(service: ServiceState) -> Task | None:
    """While a failed deploy is all there is: look whether its pods become ready after all, or what
    it missed comes."""
    unserved, failure = service.unserved, service.failure
    if service.iteration is not None:
        return None
    if unserved is not None:
        return unserved.task(service.name)
    return failure.task(service.name) if failure is not None and failure.awaited else None


def _gone_back(service: ServiceState) -> Hold | None:
    """Somebody went back to an earlier image: what is on disk is left there until it changes."""
    return Hold(reason=service.back) if service.back and service.iteration is None else None


def _catch_up(service: ServiceState, now: float) -> Task | Hold | None:
    """While nothing else is to be done: an image with the synced files, for pods to come."""
    behind = service.behind
    if behind is None or not service.settled:
        return None
    due = behind.since + CATCH_UP_AFTER
    if now < due:
        return Hold(reason="waits for quiet to make an image of what was synced", until=due)
    return behind.task(service.name)
