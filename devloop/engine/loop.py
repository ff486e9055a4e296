"""The one thread that changes state: facts in, events out, workers started and cancelled.

It never blocks on anything but its queue. Everything slow happens in workers, each a named thread
that owns what it works with and only puts facts on the queue.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import KW_ONLY, replace
from typing import TYPE_CHECKING, Literal

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import report_bug, supervised
from devloop.engine.back import nothing_to_go_back_to, ways_back
from devloop.engine.facts import (
    Done,
    Ended,
    Failed,
    Hinted,
    Reconfigured,
    Started,
    Stopped,
    StopRequested,
)
from devloop.engine.needs import images_for
from devloop.engine.plan import plan
from devloop.engine.reduce import reduce, worker_bug
from devloop.engine.reporters import TaskReporter
from devloop.engine.state import Task, TaskKind, initial
from devloop.engine.tasks import carry_out
from devloop.errors import DevloopError, ExitStatus
from devloop.events import HoldStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.engine.facts import Fact, Removed, Result
    from devloop.engine.plan import Plan
    from devloop.engine.ports import (
        Hints,
    )
    from devloop.engine.state import GoodImage, Hold, ServiceState
    from devloop.engine.tasks import ServicePorts
    from devloop.events import Event
    from devloop.model import Scan


_LOG = logging.getLogger(__name__)

# How long a stopping engine waits for its workers and the watcher together; what still runs then is
# left behind, so that there is time to close the adapters within the two seconds of a Ctrl-C.
_STOP_LIMIT = 0.8

# What is waited for without a known end is worth an event once it has lasted so many seconds.
_LASTING = 0.5


@dataclass(frozen=True, slots=True)
class _TakeOver:
    """A service that goes on with other adapters, or with none; `released` is set when no worker
    has those of before."""

    fact: Reconfigured | Removed
    ports: ServicePorts | None
    released: threading.Event


@dataclass(eq=False)
class Engine:
    """Runs the services until stopped (`dev`) or until each has its result (`run`), which with
    `until` "build" or "test" is its image. `services` is replaced, never changed, when devloop.yaml
    is.

    `publish` receives every event, from the engine's thread; it must not block."""

    services: Mapping[str, ServicePorts]
    _: KW_ONLY
    mode: Literal["dev", "run"]
    until: Literal["build", "test", "rollout"] = "rollout"
    root: Path
    publish: Callable[[Event], None]
    hints: Hints | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._queue: queue.SimpleQueue[Fact | _TakeOver] = queue.SimpleQueue()
        self._workers: dict[Task, Cancel] = {}
        # Workers with adapters that their service has no more, and who waits for their end.
        self._leaving: list[tuple[set[Task], threading.Event]] = []
        # What each service waits for, and when to publish that; None once it is.
        self._holds: dict[str, tuple[Hold, float | None]] = {}
        # The holds that are reported once: in which iteration, and why.
        self._looks: dict[str, tuple[int | None, str]] = {}
        self._state = initial(
            {name: ports.roll_back for name, ports in self.services.items()},
            mode=self.mode,
            until=self.until,
            root=self.root,
            now=self.clock(),
            syncs=[name for name, ports in self.services.items() if ports.syncer is not None],
            good={
                name: ports.good.known()
                for name, ports in self.services.items()
                if ports.good is not None
            },
            needs={name: ports.needs for name, ports in self.services.items()},
        )

    def post(self, fact: Fact) -> None:
        """Hand the engine a fact; from any thread, never blocks."""
        self._queue.put(fact)

    def take_over(
        self, fact: Reconfigured | Removed, ports: ServicePorts | None
    ) -> threading.Event:
        """Have a service go on with `ports`, or with none; from any thread, never blocks. The event
        is set once no worker uses those of before, which may be closed then."""
        released = threading.Event()
        if isinstance(fact, Reconfigured) and ports is not None and ports.good is not None:
            fact = replace(fact, good=ports.good.known())
        if isinstance(fact, Reconfigured) and ports is not None:
            fact = replace(fact, needs=ports.needs)
        self._queue.put(_TakeOver(fact, ports, released))
        return released

    def way_back(self, service: str = "") -> tuple[str, GoodImage]:
        """The service to go back, where none is named the one with the newest iteration, and where
        to; from any thread. Errors: usage/no-rollback."""
        services = {name: s for name, s in self._state.services.items() if not s.leaving}
        name = service or max(services, key=lambda each: services[each].last)
        state = services.get(name)
        ways = ways_back(state) if state is not None else ()
        if state is not None and state.iteration is not None and state.iteration.back:
            ways = state.iteration.back
        if not ways:
            raise nothing_to_go_back_to(name)
        return name, ways[0]

    def stop(self, status: ExitStatus, why: str = "") -> None:
        self.post(StopRequested(status, why))

    def run(self) -> ExitStatus:
        """Own the state until the end; returns the session's exit status."""
        hinting = Cancel()
        watcher = self._start_hints(hinting)
        try:
            return self._turn()
        finally:
            deadline = self.clock() + _STOP_LIMIT
            hinting.set()
            for cancel in self._workers.values():
                cancel.set()
            while self._workers and self.clock() < deadline:
                self._absorb(deadline)
            for task in self._workers:
                _LOG.warning("left behind at the end: %s", task)
            if watcher is not None:
                watcher.join(max(0.0, deadline - self.clock()))

    # --- the loop ------------------------------------------------------------------------------

    def _turn(self) -> ExitStatus:
        while True:
            wake = self._follow_plan()
            state = self._state
            if state.stop is not None:
                return state.stop.status
            settled = all(service.settled for service in state.services.values())
            if state.mode == "run" and settled and len(state.statuses) == len(state.services):
                return max(state.statuses.values(), default=ExitStatus.DONE)
            self._absorb(wake)

    def _absorb(self, wake: float | None) -> None:
        """Wait for a fact or for `wake`, then take in everything that is there."""
        timeout = None if wake is None else max(0.0, wake - self.clock())
        try:
            fact = self._queue.get(timeout=timeout)
        except queue.Empty:
            return
        while True:
            self._apply(fact)
            try:
                fact = self._queue.get_nowait()
            except queue.Empty:
                return

    def _apply(self, fact: Fact | _TakeOver) -> None:
        if isinstance(fact, _TakeOver):
            self._exchange(fact)
            self._apply(fact.fact)
            self._release()
            return
        if isinstance(fact, Ended):
            self._workers.pop(fact.task, None)
            self._release(fact.task)
        self._state, events = reduce(self._state, fact, self.clock())
        for event in events:
            self.publish(event)

    def _exchange(self, taken: _TakeOver) -> None:
        name = taken.fact.service
        rest = {other: ports for other, ports in self.services.items() if other != name}
        self.services = rest if taken.ports is None else {**rest, name: taken.ports}
        tasks = {task for task in self._workers if task.service == name}
        self._leaving.append((tasks, taken.released))

    def _release(self, *ended: Task) -> None:
        for tasks, released in self._leaving:
            tasks.difference_update(ended)
            if not tasks:
                released.set()
        self._leaving = [each for each in self._leaving if each[0]]

    def _follow_plan(self) -> float | None:
        now = self.clock()
        wanted = plan(self._state, now)
        for task, cancel in self._workers.items():
            if task not in wanted.tasks:
                cancel.set()
        for task in sorted(wanted.tasks - self._workers.keys(), key=str):
            self._apply(Started(task))
            cancel = self._workers[task] = Cancel()
            service = self._state.services[task.service]
            supervised(str(task), self._work, task, service, cancel).start()
        due = self._report_holds(wanted, now)
        return min((t for t in (wanted.wake, due) if t is not None), default=None)

    def _report_holds(self, wanted: Plan, now: float) -> float | None:
        """Publish what iterations wait for: at once when it is known to last, else once it has
        lasted. Returns when the next of them is due."""
        before, self._holds = self._holds, {}
        for name, hold in wanted.holds.items():
            service = self._state.services[name]
            iteration = service.iteration
            if iteration is not None and name in wanted.at_work:
                continue
            gone_back = hold.reason == service.back
            paused = self._state.paused and service.dirty
            if iteration is None and not (gone_back or paused or hold.on):
                continue
            if hold.looks:
                number = None if iteration is None else iteration.number
                if self._looks.get(name) != (number, hold.reason):
                    self._looks[name] = (number, hold.reason)
                    self.publish(
                        HoldStarted(
                            service=name,
                            iter=number,
                            reason=hold.reason,
                            code=hold.code or "",
                            until=None,
                        )
                    )
                continue
            known, due = before.get(name, (None, None))
            if known != hold:
                due = now + (_LASTING if hold.until is None and not gone_back else 0.0)
            if due is not None and now >= due:
                self.publish(
                    HoldStarted(
                        service=name,
                        iter=None if iteration is None else iteration.number,
                        reason=hold.reason,
                        code=hold.code or "",
                        until=None if hold.until is None else hold.until - now,
                        attempt=hold.attempt,
                        on=hold.on,
                    )
                )
                due = None
            self._holds[name] = (hold, due)
        return min((due for _, due in self._holds.values() if due is not None), default=None)

    # --- workers -------------------------------------------------------------------------------

    def _work(self, task: Task, service: ServiceState, cancel: Cancel) -> None:
        result: Result
        try:
            result = self._call(task, service, cancel)
        except Cancelled:
            result = Stopped()
        except DevloopError as error:
            result = Failed(error.diagnosis)
        except Exception as error:  # noqa: BLE001 - a worker's bug must end its iteration, not hang it
            _LOG.exception("%s", task)
            result = Failed(worker_bug(f"{task.kind} ended with {type(error).__name__}: {error}"))
        self.post(Ended(task, result))

    def _scanned(self, name: str, found: Scan) -> Done:
        """What a scan found, and whether it makes a difference to the iteration under way, or to
        the last one."""
        service, ports = self._state.services.get(name), self._ports_of(name)
        builder, hooks = ports.builder, ports.hooks
        if service is None:
            raise Cancelled
        iteration = service.iteration
        # What a rollback brings back was not made of the files as they were before.
        iteration = iteration if iteration is None or not iteration.back else None
        before = iteration.scan if iteration is not None else service.scan
        if before is None or found.fingerprint.deploy != before.fingerprint.deploy:
            return Done(found)
        left = hooks is not None and hooks.wrote(before, found)
        wrote = left or builder.wrote(before, found)
        if iteration is None:
            return Done(found, wrote=wrote, left=left)
        echo = hooks is not None and hooks.may_have_written(before, found)
        spared = wrote or echo or not builder.may_differ(before, found)
        return Done(found, spares=iteration.number if spared else None, wrote=wrote)

    def _ports_of(self, name: str) -> ServicePorts:
        if name not in (services := self.services):
            raise Cancelled  # it was taken out of devloop.yaml
        return services[name]

    def _call(self, task: Task, service: ServiceState, cancel: Cancel) -> Done:
        ports = self._ports_of(task.service)
        if task.kind is TaskKind.SCAN:
            seen = service.looking_at
            paths, needs = seen.paths if seen else None, images_for(self._state, service)
            found = ports.source.scan(paths, cancel, service.passing, needs)
            return self._scanned(task.service, found)
        return carry_out(ports, task, service, TaskReporter(self.post, task), cancel)

    # --- hints ---------------------------------------------------------------------------------

    def _start_hints(self, cancel: Cancel) -> threading.Thread | None:
        if self.hints is None:
            return None
        pump, hints = self._pump_hints, self.hints
        thread = supervised("hints", pump, hints, cancel, on_bug=self._watcher_ended)
        thread.start()
        return thread

    def _pump_hints(self, hints: Hints, cancel: Cancel) -> None:
        for paths in hints.hints(cancel):
            for name, ports in self.services.items():
                mine = paths and frozenset(filter(ports.source.concerns, paths))
                if mine is None or mine:
                    self.post(Hinted(service=name, paths=mine))

    def _watcher_ended(self, error: BaseException) -> None:
        # A session that no longer notices saves would serve stale code: end it, loudly.
        report_bug(error)
        self.stop(ExitStatus.BUG, f"the watcher ended with {type(error).__name__}: {error}")
