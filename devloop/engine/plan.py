"""Which workers a state wants to be running right now. Pure; the loop makes it so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.engine.state import WRITES, Task, TaskKind

if TYPE_CHECKING:
    from devloop.engine.state import ServiceState, State

__all__ = ["CAP", "CATCH_UP_AFTER", "MAX_BUILDS", "REST", "Plan", "plan"]

# The watcher rests before it gives a hint, so the first one is followed at once. Where more come
# before that was possible, the save goes on: then it is followed this many seconds after the last,
# and at the latest so many after the first.
REST = 0.015
CAP = 0.2

# Seconds of quiet after a file sync before an image is made that holds what was synced.
CATCH_UP_AFTER = 1.0

# More builds at once only slow each other down; services beyond this wait for a slot.
MAX_BUILDS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """`tasks` are all the workers that shall run (those already running included); `wake` is when
    to ask again if nothing happens before, in the loop's clock, None for never."""

    tasks: frozenset[Task]
    wake: float | None


def plan(state: State, now: float) -> Plan:
    if state.stop is not None:
        return Plan(frozenset(), None)
    tasks: set[Task] = set()
    wakes: list[float] = []
    builds = sum(task.kind is TaskKind.BUILD for s in state.services.values() for task in s.running)
    for service in state.services.values():
        _plan_scan(service, now, tasks, wakes)
        task = _next_step(service, now, wakes) or _catch_up(service, now, wakes)
        if task is None:
            continue
        if task.kind is TaskKind.BUILD and task not in service.running:
            if builds >= MAX_BUILDS:
                continue
            builds += 1
        tasks.add(task)
    return Plan(frozenset(tasks), min(wakes, default=None))


def _plan_scan(service: ServiceState, now: float, tasks: set[Task], wakes: list[float]) -> None:
    if service.scanning is not None:
        tasks.add(service.scanning)
    elif service.dirty is not None:
        first, last = service.dirty.first, service.dirty.last
        due = min(last + REST, first + CAP) if last > first else first
        if now >= due:
            tasks.add(Task(TaskKind.SCAN, service.name, service.scans + 1))
        else:
            wakes.append(due)


def _next_step(service: ServiceState, now: float, wakes: list[float]) -> Task | None:
    iteration = service.iteration
    if iteration is None:
        return None
    if iteration.wait_until is not None and now < iteration.wait_until:
        wakes.append(iteration.wait_until)
        return None
    task = iteration.task(service.name)
    if task.kind in WRITES and task not in service.running:
        # Two patches must never be in flight, so a cancelled write is waited for ...
        if any(other.kind in WRITES for other in service.running):
            return None
        # ... and what may be superseded already is not deployed: the scan decides first.
        if task.kind is TaskKind.DEPLOY and (service.dirty or service.scanning):
            return None
    return task


def _catch_up(service: ServiceState, now: float, wakes: list[float]) -> Task | None:
    """While nothing else is to be done: an image with the synced files, for pods to come."""
    behind = service.behind
    if behind is None or not service.settled:
        return None
    due = behind.since + CATCH_UP_AFTER
    if now < due:
        wakes.append(due)
        return None
    return behind.task(service.name)
