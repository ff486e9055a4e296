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
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import report_bug, supervised
from devloop.engine.back import image_gone, nothing_to_go_back_to, passed_over, ways_back
from devloop.engine.needs import images_for
from devloop.engine.plan import plan
from devloop.engine.ports import ImagesMissing
from devloop.engine.reduce import reduce, worker_bug
from devloop.engine.state import (
    Awaits,
    Began,
    CaughtUp,
    CauseMended,
    Done,
    Ended,
    Failed,
    Finished,
    Hinted,
    NotSynced,
    Reconfigured,
    Said,
    Started,
    Stopped,
    StopRequested,
    Task,
    TaskKind,
    initial,
)
from devloop.engine.turn import STEP_OF
from devloop.errors import Code, DevloopError, Diagnosis, ExitStatus
from devloop.events import DiagnosticRaised, HoldStarted, StepProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.engine.plan import Plan
    from devloop.engine.ports import (
        Deployer,
        GoodImages,
        Hints,
        Hooks,
        Reporter,
        ServiceBuilder,
        Source,
        Syncer,
        Tester,
    )
    from devloop.engine.state import (
        Fact,
        GoodImage,
        Hold,
        Iteration,
        Removed,
        Result,
        ServiceState,
    )
    from devloop.events import Event
    from devloop.model import Deployed, ImageRef, Resumed, Scan, Served, Step, StepOutcome


_LOG = logging.getLogger(__name__)

# How long a stopping engine waits for its workers and the watcher together; what still runs then is
# left behind, so that there is time to close the adapters within the two seconds of a Ctrl-C.
_STOP_LIMIT = 0.8

# What is waited for without a known end is worth an event once it has lasted so many seconds.
_LASTING = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePorts:
    """One service's adapters; no `deployer` where only images are wanted. `built` is told of each
    image, and quick. `roll_back`: put the previous image back when a rollout fails.
    `needs` are the services that it needs. `exists`: whether an image can still be pulled, as far
    as that is known; `good` keeps those to go back to for later sessions."""

    source: Source
    builder: ServiceBuilder
    deployer: Deployer | None = None
    built: Callable[[ImageRef], None] = lambda _image: None
    syncer: Syncer | None = None
    roll_back: bool = False
    needs: tuple[str, ...] = ()
    exists: Callable[[ImageRef, Cancel], bool] = lambda _image, _cancel: True
    good: GoodImages | None = None
    hooks: Hooks | None = None
    tester: Tester | None = None


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
        if task.kind in {TaskKind.CATCH_UP, TaskKind.RECOVER, TaskKind.AWAIT_CAUSE}:
            return Done(_beside(ports, task, service, cancel))
        reporter = _Reporter(self.post, task)
        iteration = service.iteration
        assert iteration is not None  # noqa: S101 - only iterations have these tasks
        match task.kind:
            case TaskKind.RESUME:
                return Done(_resume(ports, iteration.scan, cancel))
            case TaskKind.SYNC:
                assert ports.syncer is not None  # noqa: S101 - only then is there a sync
                return _sync(ports, ports.syncer, iteration.scan, reporter, cancel)
            case TaskKind.BUILD:
                return _build(ports, iteration, reporter, cancel)
            case TaskKind.DEPLOY:
                return Done(_deploy(ports, task.service, iteration, reporter, cancel))
            case TaskKind.FOLLOW:
                assert iteration.deployed is not None  # noqa: S101 - the deploy came before
                served = _follow(ports, iteration, iteration.deployed, reporter, cancel)
                if ports.hooks is not None:
                    ports.hooks.run("after_deploy", served.image, reporter, cancel)
                return Done(served)
            case TaskKind.ROLLBACK:
                assert iteration.deployed is not None  # noqa: S101 - the deploy came before
                _deployer(ports).rollback(iteration.deployed, reporter, cancel)
        return Done()

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


def _beside(
    ports: ServicePorts, task: Task, service: ServiceState, cancel: Cancel
) -> CaughtUp | Served | CauseMended | None:
    """What goes on while there is no iteration."""
    if task.kind is TaskKind.CATCH_UP:
        assert service.behind is not None  # noqa: S101 - it is what the task is about
        return _catch_up(ports, service.behind.scan, cancel)
    if task.kind is TaskKind.RECOVER:
        assert service.unserved is not None  # noqa: S101 - it is what the task is about
        scan, deployed = service.unserved.scan, service.unserved.deployed
        served = _deployer(ports).await_recovery(deployed, cancel)
        _is_good(ports, served.image, scan)
        return _contained(ports, served, scan)
    what = _deployer(ports).await_cause(cancel)
    return None if what is None else CauseMended(what)


def _contained(ports: ServicePorts, served: Served, scan: Scan) -> Served:
    if ports.syncer is not None:
        ports.syncer.image_contains(served.image, scan)
    return served


def _resume(ports: ServicePorts, scan: Scan, cancel: Cancel) -> Resumed | NotSynced:
    """What an earlier session left, where this one can go on from it."""
    assert ports.syncer is not None  # noqa: S101 - only then is there something to resume
    try:
        found = ports.syncer.resume(scan, partial(_deployer(ports).standing, cancel=cancel), cancel)
    except DevloopError as error:
        # It is in the way of a deploy as well, which says it better.
        return NotSynced(error.diagnosis.message)
    return NotSynced(found) if isinstance(found, str) else found


def _sync(
    ports: ServicePorts, syncer: Syncer, scan: Scan, reporter: Reporter, cancel: Cancel
) -> Done:
    blocker = syncer.blocker(scan)
    if blocker is None and ports.hooks is not None:
        scan = ports.hooks.before_sync(scan, reporter, cancel)
        blocker = syncer.blocker(scan)
    if blocker is not None:
        return Done(NotSynced(blocker))
    served = syncer.sync(scan, reporter, cancel)
    if ports.hooks is not None:
        ports.hooks.run("after_sync", served.image, reporter, cancel)
    return Done(served, scan=scan)


def _deployer(ports: ServicePorts) -> Deployer:
    if ports.deployer is None:
        raise RuntimeError("a session that only builds plans no deploy")
    return ports.deployer


def _build(ports: ServicePorts, iteration: Iteration, reporter: Reporter, cancel: Cancel) -> Done:
    scan = iteration.scan
    if ports.hooks is not None:
        scan = ports.hooks.before_build(scan, reporter, cancel)
    image = ports.builder.build(replace(scan, fresh=iteration.fresh), reporter, cancel)
    _examine(ports, image, reporter, cancel, again=iteration.trigger.kind == "retry")
    ports.built(image)
    return Done(image, scan=scan)


def _examine(
    ports: ServicePorts, image: ImageRef, reporter: Reporter, cancel: Cancel, *, again: bool = False
) -> None:
    """What stands between a build and whoever uses its image."""
    if ports.hooks is not None:
        ports.hooks.run("after_build", image, reporter, cancel)
    if ports.tester is not None:
        ports.tester.test(image, reporter, cancel, again=again)


def _is_good(ports: ServicePorts, image: ImageRef, scan: Scan) -> None:
    if ports.good is not None:
        ports.good.add(image, scan.fingerprint)


def _deploy(
    ports: ServicePorts, service: str, iteration: Iteration, reporter: Reporter, cancel: Cancel
) -> Deployed | Awaits:
    assert iteration.image is not None  # noqa: S101 - the build came before
    if ports.hooks is not None:
        ports.hooks.run("before_deploy", iteration.image, reporter, cancel)
    try:
        if iteration.back:
            return _go_back(ports, service, iteration, reporter, cancel)
        return _deployer(ports).deploy(iteration.image, reporter, cancel)
    except ImagesMissing as missing:
        return Awaits(missing.services)


def _go_back(
    ports: ServicePorts, service: str, iteration: Iteration, reporter: Reporter, cancel: Cancel
) -> Deployed:
    """Deploy the best of the images to go back to that can still be pulled."""
    for way in iteration.back:
        cancel.check()
        if ports.exists(way.image, cancel):
            break
        if way is not iteration.back[-1]:
            reporter.diagnostic(passed_over(way))
    else:
        raise image_gone(service, *(way.name for way in iteration.back))
    untouched = None
    if ports.syncer is not None:
        untouched = ports.syncer.image_again(way.image, way.scan)
    return _deployer(ports).go_back(way.image, untouched, reporter, cancel)


def _follow(
    ports: ServicePorts,
    iteration: Iteration,
    deployed: Deployed,
    reporter: Reporter,
    cancel: Cancel,
) -> Served:
    if iteration.back:
        served = _deployer(ports).follow(deployed, reporter, cancel)
        if ports.good is not None:
            ports.good.went_back(served.image)
        return served
    scan = iteration.scan
    served = _contained(ports, _deployer(ports).follow(deployed, reporter, cancel), scan)
    _is_good(ports, served.image, scan)
    # Where the image is the one of before, the container may be too, with files that nobody knows.
    if ports.syncer is None or all(each.previous for each in deployed.workloads):
        return served
    strays = ports.syncer.strays(cancel)
    if not strays:
        return served
    reporter.diagnostic(
        Diagnosis(
            code=Code.SYNC_FAILED,
            severity="info",
            message=f"{', '.join(strays)}: another pod takes its place",
            cause="files were written into it by somebody else, and which ones is not known",
        )
    )
    _deployer(ports).recreate(deployed, strays, cancel)
    return _deployer(ports).follow(deployed, reporter, cancel)


def _catch_up(ports: ServicePorts, scan: Scan, cancel: Cancel) -> CaughtUp:
    # The hooks before a build ran before the sync.
    image = ports.builder.build(scan, SilentReporter(), cancel)
    _examine(ports, image, SilentReporter(), cancel)
    if ports.syncer is not None:
        ports.syncer.image_contains(image, scan)
    _is_good(ports, image, scan)
    reason = _deployer(ports).adopt(image, cancel)
    return CaughtUp(image, adopted=reason is None, reason=reason or "")


class SilentReporter:
    """For work that belongs to no iteration: what goes wrong is raised, the rest is not news."""

    def started(self, step: Step) -> None: ...

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None: ...

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None: ...

    def diagnostic(self, diagnosis: Diagnosis) -> None: ...


class _Reporter:
    """A worker's reports, as facts."""

    def __init__(self, post: Callable[[Fact], None], task: Task) -> None:
        self._post = post
        self._task = task
        self._place: dict[str, Any] = {"iter": task.key, "service": task.service}

    def started(self, step: Step) -> None:
        self._post(Began(self._task, step))

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        place = {**self._place, "step": step}
        self._say(StepProgress(**place, message=message, current=current, total=total))

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self._post(Finished(self._task, step, outcome, detail))

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        step = STEP_OF[self._task.kind]
        self._say(DiagnosticRaised.of(diagnosis, **self._place, step=step))

    def _say(self, event: StepProgress | DiagnosticRaised) -> None:
        self._post(Said(self._task, event))
