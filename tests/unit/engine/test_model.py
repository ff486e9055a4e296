"""The engine against a model of the world, driven through every order of events hypothesis finds.

The driver plays the loop: it follows `plan`, starts and cancels tasks, ends them with success,
failure or a hang, edits the disk, and loses or doubles hints. Nothing here sleeps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from devloop.engine.facts import (
    Asked,
    AskedBack,
    Began,
    CaughtUp,
    CauseMended,
    ChangedOutside,
    Continued,
    Done,
    Ended,
    Fact,
    Failed,
    Finished,
    Hinted,
    NotSynced,
    Paused,
    Reconfigured,
    Removed,
    Result,
    Started,
    Stopped,
    StopRequested,
)
from devloop.engine.needs import images_for
from devloop.engine.plan import MAX_BUILDS, REST, plan
from devloop.engine.reduce import reduce
from devloop.engine.state import ServiceState, State, Task, TaskKind, initial
from devloop.errors import Code, Diagnosis, ExitStatus
from devloop.events import (
    DiagnosticRaised,
    Event,
    IterationFinished,
    IterationStarted,
    StepFinished,
    StepStarted,
    TriggerTaken,
)
from devloop.model import (
    ContextEntry,
    Deployed,
    DeployedWorkload,
    Fingerprint,
    ImageRef,
    Outcome,
    Resumed,
    Scan,
    Served,
    Snapshot,
    Step,
    StepOutcome,
    WorkloadRef,
)
from tests.support.examples import examples

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path("/project")
SERVICES = ("api", "web")
WRITING = (TaskKind.SYNC, TaskKind.DEPLOY, TaskKind.ROLLBACK)
DURING_A_PAUSE = (TaskKind.FOLLOW, TaskKind.ROLLBACK, TaskKind.RECOVER)


def scan_of(
    content: int, before: int | None, needs: Mapping[str, str] = MappingProxyType({})
) -> Scan:
    entries = MappingProxyType({"app.py": ContextEntry("file")})
    snapshot = Snapshot(entries=entries, digest=str(content), stamp=str(content))
    changed = ("app.py",) if before is not None and before != content else ()
    return Scan(
        fingerprint=Fingerprint("+".join((f"content-{content}", *needs.values())), "manifests"),
        snapshot=snapshot,
        needs=needs,
        changed=changed,
        files=1,
        ms=1.0,
    )


def image_of(content: str) -> ImageRef:
    return ImageRef(repository="localhost:5001/web", tag=content, digest=f"sha256:{content}")


def failure(code: str) -> Failed:
    return Failed(Diagnosis(code=Code(code), message="it broke"))


class World(RuleBasedStateMachine):
    """`disk` is the content that a scan would see, `cluster` what the containers hold; `left` what
    an earlier session left in them, None where that is not known. `needs` are by service, `builds`:
    their images are used, and `told` has those that a look was given."""

    state: State

    @initialize(
        roll_back=st.booleans(),
        syncs=st.booleans(),
        left=st.sampled_from([None, 0, 1]),
        needs=st.booleans(),
        builds=st.booleans(),
    )
    def start(
        self,
        *,
        roll_back: bool,
        syncs: bool = False,
        left: int | None = None,
        needs: bool = False,
        builds: bool = False,
    ) -> None:
        self.now = 0.0
        self.needs: dict[str, tuple[str, ...]] = {"web": ("api",)} if needs else {}
        self.builds = builds
        self.told: dict[Task, Mapping[str, str]] = {}
        self.disk = dict.fromkeys(SERVICES, 0)
        self.seen: dict[str, int | None] = dict.fromkeys(SERVICES)
        self.left = None if left is None else f"content-{left}"
        self.cluster: dict[str, str] = dict.fromkeys(SERVICES, self.left or "")
        self.half_done: set[str] = set()
        self.deploys = 0
        self.asks = 0
        self.in_vain: set[int] = set()
        self.unhinted: set[str] = set()
        self.unreadable: set[str] = set()
        self.running: dict[Task, int] = {}
        self.cancelled: set[Task] = set()
        self.building: dict[Task, str] = {}
        self.events: list[Event] = []
        self.state = initial(
            dict.fromkeys(SERVICES, roll_back),
            mode="dev",
            root=ROOT,
            now=self.now,
            syncs=SERVICES if syncs else (),
            needs=self.needs,
        )
        self.follow_plan()

    # --- playing the loop ----------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        self.state, events = reduce(self.state, fact, self.now)
        self.events.extend(events)

    def follow_plan(self) -> None:
        wanted = plan(self.state, self.now)
        self.cancelled |= self.running.keys() - wanted.tasks
        for task in sorted(wanted.tasks - self.running.keys(), key=str):
            self.apply(Started(task))
            self.running[task] = self.disk[task.service]
            self.told[task] = self.used(task.service)
            if task.kind in WRITING:
                assert not self.writes(task.service) - {task}, "two patches in flight"
            assert not self.state.paused or task.kind in DURING_A_PAUSE
            if task.kind is TaskKind.DEPLOY:
                iteration = self.state.services[task.service].iteration
                assert iteration is not None
                assert iteration.image is not None
                newest = self.state.services[task.service].scan
                assert newest is not None
                # A superseded image is never deployed: what is deployed is the newest scan, but
                # for one in a while where saves come faster than builds end.
                if iteration.let_through is None and not iteration.back:
                    assert iteration.image == image_of(newest.fingerprint.build)
                    self.check_needs(task.service, newest)

    def used(self, service: str) -> Mapping[str, str]:
        """The images that its build uses."""
        if not self.builds:
            return {}
        return images_for(self.state, self.state.services[service])

    def check_needs(self, service: str, newest: Scan) -> None:
        """What is deployed was made from the newest of what it needs, which is ready."""
        for name in self.needs.get(service, ()):
            other = self.state.services.get(name)
            if other is None:
                continue  # it was taken out, and whoever needs it has other settings in a moment
            assert other.proof is not None
            assert other.failure is None or other.served is not None
            if self.builds and not other.back:
                assert other.scan is not None
                fingerprint = other.scan.fingerprint.build
                assert newest.needs == {name: image_of(fingerprint).as_base}

    def writes(self, service: str) -> set[Task]:
        return {t for t in self.running if t.service == service and t.kind in WRITING}

    def end(self, task: Task, result: Result) -> None:
        del self.running[task]
        self.told.pop(task, None)
        self.cancelled.discard(task)
        self.apply(Ended(task, result))
        self.follow_plan()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.follow_plan()

    # --- the outside world ---------------------------------------------------------------------

    @rule(service=st.sampled_from(SERVICES), content=st.integers(0, 3), hints=st.integers(0, 2))
    def edit(self, service: str, content: int, hints: int) -> None:
        self.disk[service] = content
        self.unreadable.discard(service)
        if hints == 0:
            self.unhinted.add(service)
        for _ in range(hints):
            self.apply(Hinted(service=service, paths=frozenset({ROOT / "app.py"})))
        self.follow_plan()

    @rule(service=st.sampled_from(SERVICES))
    def lose_the_source(self, service: str) -> None:
        self.unreadable.add(service)
        self.apply(Hinted(service=service, paths=frozenset({ROOT / "Dockerfile"})))
        self.follow_plan()

    @rule(service=st.sampled_from(SERVICES))
    def noise(self, service: str) -> None:
        self.apply(Hinted(service=service, paths=frozenset({ROOT / "app.py"})))
        self.follow_plan()

    @rule(service=st.sampled_from(SERVICES), back=st.booleans())
    def somebody_changes_what_runs(self, service: str, *, back: bool) -> None:
        """Told only between two writes, as the watch does; `back`: puts it as it was."""
        writing = {TaskKind.DEPLOY, TaskKind.ROLLBACK, TaskKind.CATCH_UP}
        if any(t.kind in writing and t.service == service for t in self.running):
            return
        if not back:
            self.cluster[service] = "somebody's"
        change = Diagnosis(code=Code.SAFETY_CHANGED_OUTSIDE, message="it was changed")
        self.apply(ChangedOutside(service, None if back else change))
        self.follow_plan()

    @rule(service=st.sampled_from(SERVICES), fresh=st.booleans())
    def somebody_asks(self, service: str, fresh: bool) -> None:
        self.asks += 1
        self.apply(Asked(service=service, id=self.asks, fresh=fresh))
        self.follow_plan()

    @rule(service=st.sampled_from(SERVICES))
    def somebody_goes_back(self, service: str) -> None:
        self.asks += 1
        self.apply(AskedBack(service=service, id=self.asks))
        self.follow_plan()

    @rule(service=st.sampled_from(SERVICES), proves=st.booleans())
    def devloop_yaml_has_other_settings(self, service: str, proves: bool) -> None:
        now = self.state.services[service]
        self.seen[service] = None
        self.apply(
            Reconfigured(
                service=service,
                keys=("a", "b"),
                # As a session does: a new syncer knows nothing of what runs.
                proves=proves or now.syncs,
                roll_back=now.roll_back,
                syncs=now.syncs,
                needs=now.needs,
            )
        )
        self.follow_plan()

    @rule(service=st.sampled_from(SERVICES), at_once=st.booleans())
    def a_service_goes_and_comes_back(self, service: str, at_once: bool) -> None:
        now = self.state.services[service]
        for looks in filter(None, (now.dirty, now.looking_at)):
            self.in_vain.update(looks.asks)
        self.apply(Removed(service))
        self.follow_plan()
        if not at_once:
            for task in [task for task in self.running if task.service == service]:
                self.succeed(task)
            assert service not in self.state.services
        self.seen[service] = None
        if self.left != self.cluster[service]:
            self.left = None
        self.apply(
            Reconfigured(
                service=service,
                keys=(),
                proves=True,
                roll_back=now.roll_back,
                syncs=now.syncs,
                needs=now.needs,
            )
        )
        self.follow_plan()

    @rule(pause=st.booleans())
    def somebody_pauses_or_resumes(self, pause: bool) -> None:
        self.apply(Paused("paused") if pause else Continued())
        self.follow_plan()

    @rule(seconds=st.sampled_from([0.001, 0.02, 1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.wait(seconds)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_worker_succeeds(self, data: st.DataObject) -> None:
        self.succeed(data.draw(st.sampled_from(sorted(self.running, key=str))))

    @rule(service=st.sampled_from(SERVICES), steps=st.integers(1, 4))
    def things_go_well(self, service: str, steps: int) -> None:
        for _ in range(steps):
            self.wait(0.05)
            mine = [t for t in self.running if t.service == service and t not in self.cancelled]
            if mine:
                self.succeed(min(mine, key=str))

    @precondition(lambda self: any(t.kind is TaskKind.SYNC for t in self.running))
    @rule(data=st.data())
    def a_change_cannot_be_synced(self, data: st.DataObject) -> None:
        tasks = [t for t in self.running if t.kind is TaskKind.SYNC]
        self.end(data.draw(st.sampled_from(tasks)), Done(NotSynced("no rule covers app.py")))

    def succeed(self, task: Task) -> None:
        service = self.state.services[task.service]
        iteration = service.iteration
        if task in self.cancelled and task.kind is not TaskKind.SCAN:
            if task.kind in {TaskKind.DEPLOY, TaskKind.SYNC}:
                self.apply(Began(task, Step.SYNC))
                self.cluster[task.service] = "unknown"
            if task.kind is TaskKind.DEPLOY:
                self.half_done.add(task.service)
            self.end(task, Stopped())
            return
        if task.kind is TaskKind.RESUME:
            assert iteration is not None
            self.end(task, Done(self.resumed(task.service, iteration.scan)))
            return
        match task.kind:
            case TaskKind.SCAN:
                self.end(task, self.scanned(task.service, self.told[task]))
            case TaskKind.SYNC:
                assert iteration is not None
                assert service.proof is not None or service.taken is not None
                assert task.service not in self.half_done
                self.apply(Began(task, Step.SYNC))
                self.cluster[task.service] = iteration.scan.fingerprint.build
                self.end(task, Done(Served(image=image_of("before"), pods=("web-1",))))
            case TaskKind.CATCH_UP | TaskKind.RECOVER | TaskKind.AWAIT_CAUSE:
                self.succeed_beside(task)
            case TaskKind.BUILD:
                assert iteration is not None
                self.apply(Began(task, Step.BUILD))
                self.apply(Finished(task, Step.BUILD, StepOutcome.DONE))
                self.apply(Began(task, Step.PUSH))
                self.end(task, Done(image_of(iteration.scan.fingerprint.build)))
            case TaskKind.DEPLOY:
                assert iteration is not None
                assert iteration.image is not None
                self.apply(Began(task, Step.DEPLOY))
                self.cluster[task.service] = iteration.image.tag
                self.half_done.discard(task.service)
                self.deploys += 1
                self.end(task, Done(self.deployed(iteration.image)))
            case TaskKind.FOLLOW:
                assert iteration is not None
                assert iteration.image is not None
                self.apply(Began(task, Step.ROLLOUT))
                self.end(task, Done(Served(image=iteration.image, pods=("web-1",))))
            case TaskKind.ROLLBACK:
                self.cluster[task.service] = "previous"
                self.end(task, Done(None))

    def succeed_beside(self, task: Task) -> None:
        """What goes on while there is no iteration."""
        service = self.state.services[task.service]
        if task.kind is TaskKind.CATCH_UP:
            assert service.behind is not None
            image = image_of(service.behind.scan.fingerprint.build)
            self.end(task, Done(CaughtUp(image, adopted=True)))
            return
        if task.kind is TaskKind.AWAIT_CAUSE:
            assert service.failure is not None
            self.end(task, Done(CauseMended("the namespace 'dev'")))
            return
        assert service.unserved is not None
        image = service.unserved.deployed.image
        assert self.cluster[task.service] == image.tag
        self.end(task, Done(Served(image=image, pods=("web-1",))))

    def scanned(self, service: str, needs: Mapping[str, str] = MappingProxyType({})) -> Result:
        if service in self.unreadable:
            return failure("config/dockerfile-missing")
        content, before = self.disk[service], self.seen[service]
        self.seen[service] = content
        return Done(scan_of(content, before, needs))

    def resumed(self, service: str, scan: Scan) -> Resumed | NotSynced:
        if self.left is None or self.cluster[service] != self.left:
            return NotSynced("")
        return Resumed(image=image_of(self.left), current=scan.fingerprint.build == self.left)

    def deployed(self, image: ImageRef) -> Deployed:
        web = DeployedWorkload(
            workload=WorkloadRef("deployment", "web", "default"),
            uid="u",
            generation=1,
            image=image,
            containers=("web",),
            alone=self.deploys % 2 == 1,
            previous={"web": "before"},
        )
        return Deployed(image=image, workloads=(web,))

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        code=st.sampled_from(
            [
                "build/run-failed",
                "registry/unreachable",
                "pod/crash-loop",
                "build/context-changed",
                "sync/failed",
                "cluster/not-found",
            ]
        ),
    )
    def a_worker_fails(self, data: st.DataObject, code: str) -> None:
        tasks = [t for t in self.running if t.kind is not TaskKind.SCAN]
        if not tasks:
            return
        task = data.draw(st.sampled_from(sorted(tasks, key=str)))
        if task.kind in WRITING:
            self.cluster[task.service] = "unknown"
        if task.kind is TaskKind.DEPLOY:
            self.half_done.add(task.service)
        self.apply(Began(task, Step.SYNC if task.kind is TaskKind.SYNC else Step.BUILD))
        self.end(task, failure(code))

    # --- what must always hold -----------------------------------------------------------------

    @invariant()
    def one_write_at_a_time(self) -> None:
        for service in SERVICES:
            assert len(self.writes(service)) <= 1

    @invariant()
    def at_most_one_build_is_wanted(self) -> None:
        for service in SERVICES:
            wanted = [
                t
                for t in plan(self.state, self.now).tasks
                if t.service == service and t.kind is not TaskKind.SCAN
            ]
            assert len(wanted) <= 1

    @invariant()
    def what_was_restarted_alone_serves_no_more(self) -> None:
        for service in self.state.services.values():
            going_on = service.iteration
            if going_on and going_on.deployed and going_on.deployed.alone:
                assert service.proof is None

    @invariant()
    def never_more_finished_than_started(self) -> None:
        started, finished = self.counts()
        assert not finished - started
        for service in self.state.services.values():
            open_ = started - finished
            mine = [key for key in open_ if key[1] == service.name and key[2] == ""]
            assert len(mine) == (service.iteration is not None)

    def counts(self) -> tuple[Counter[tuple[int, str, str]], Counter[tuple[int, str, str]]]:
        started: Counter[tuple[int, str, str]] = Counter()
        finished: Counter[tuple[int, str, str]] = Counter()
        for event in self.events:
            match event:
                case IterationStarted():
                    started[event.iter, event.service, ""] += 1
                case IterationFinished():
                    finished[event.iter, event.service, ""] += 1
                case StepStarted():
                    started[event.iter, event.service, event.step] += 1
                case StepFinished():
                    finished[event.iter, event.service, event.step] += 1
                case _:
                    pass
        return started, finished

    # --- and in the end ------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything works from here on: what is on disk must get served, or have its reason."""
        self.apply(Continued())
        self.follow_plan()
        for service in self.unhinted:
            self.apply(Hinted(service=service, paths=None))
        self.unhinted.clear()
        for _ in range(200):
            self.wait(0.5)
            if self.running:
                self.succeed(min(self.running, key=str))
            elif all(
                (s.settled and not s.behind) or self.waits_in_vain(s)
                for s in self.state.services.values()
            ):
                return
        raise AssertionError(f"never settles: {self.state}")

    def waits_in_vain(self, service: ServiceState) -> bool:
        """What it needs failed, or has no image of what was left, and it says so."""
        hold = plan(self.state, self.now).holds.get(service.name)
        other = self.state.services.get(hold.on) if hold is not None else None
        return other is not None and (other.failure is not None or other.taken is not None)

    def check_answers(self) -> None:
        """Whoever asked was answered with an iteration, which ended or waits in vain; whoever
        asked for a service that went learns that it did."""
        taken = [number for e in self.events if isinstance(e, TriggerTaken) for number in e.ids]
        services = self.state.services.values()
        for service in services:
            self.in_vain.update(service.dirty.asks if service.dirty is not None else ())
        assert sorted(taken) == sorted(set(range(1, self.asks + 1)) - self.in_vain)
        waiting = {
            (s.iteration.number, s.name) for s in services if s.iteration and self.waits_in_vain(s)
        }
        _, finished = self.counts()
        for event in self.events:
            if isinstance(event, TriggerTaken):
                ended = (event.iter, event.service, "") in finished
                assert ended or (event.iter, event.service) in waiting

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        self.settle()
        self.check_answers()
        for name, service in self.state.services.items():
            wanted = scan_of(self.disk[name], None, self.used(name)).fingerprint
            if self.waits_in_vain(service):
                assert self.needs[name]
            elif service.back and service.failure is None:
                assert service.served is not None
                assert service.served == service.good[-1].fingerprint
                assert self.cluster[name] == service.served.build
            elif name in self.unreadable:
                assert service.failure is not None
                assert service.failure.fingerprint is None
            elif service.back:
                assert service.served is None
            elif service.failure is not None:
                assert service.failure.fingerprint == wanted
                assert any(isinstance(e, DiagnosticRaised) for e in self.events)
            elif service.taken is not None:
                assert service.served is None
            else:
                assert service.served == wanted
                assert self.cluster[name] == wanted.build
        started, finished = self.counts()
        waiting = [s for s in self.state.services.values() if s.iteration is not None]
        assert (started == finished) or waiting
        self.stop_at_once()

    def stop_at_once(self) -> None:
        """A stop in the middle of something closes what is open, and nothing starts again."""
        self.edit("web", 9, 1)
        self.wait(1.0)
        self.apply(StopRequested(ExitStatus.INTERRUPTED))
        started, finished = self.counts()
        assert started == finished
        assert plan(self.state, self.now).tasks == frozenset()


def advanced(*steps: TaskKind, syncs: bool = False, roll_back: bool = False) -> World:
    """A world with one service's first iteration past `steps`; no session was before it."""
    world = World()
    world.start(roll_back=roll_back, syncs=syncs)
    if syncs:
        steps = (*steps[:1], TaskKind.RESUME, *steps[1:])
    for kind in steps:
        world.succeed(next(t for t in world.running if t.kind is kind and t.service == "web"))
        world.wait(0.05)
    return world


def web_tasks(world: World) -> list[TaskKind]:
    return [t.kind for t in plan(world.state, world.now).tasks if t.service == "web"]


def test_what_may_be_superseded_is_not_deployed() -> None:
    world = advanced(TaskKind.SCAN)
    world.edit("web", 1, 1)
    build = next(t for t in world.running if t.kind is TaskKind.BUILD and t.service == "web")
    world.succeed(build)
    assert web_tasks(world) == [TaskKind.SCAN]


def test_the_disk_is_looked_at_at_once_but_not_while_hints_keep_coming() -> None:
    world = advanced(TaskKind.SCAN)
    world.edit("web", 1, 1)
    assert TaskKind.SCAN in web_tasks(world)
    scan = next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 2)
    for content in (2, 3):
        world.edit("web", content, 1)
        world.wait(REST / 2)
    world.succeed(scan)
    assert TaskKind.SCAN not in web_tasks(world)
    world.wait(REST)
    assert TaskKind.SCAN in web_tasks(world)


def test_a_new_patch_waits_for_the_cancelled_one() -> None:
    world = advanced(TaskKind.SCAN, TaskKind.BUILD)
    old = next(t for t in world.running if t.kind is TaskKind.DEPLOY and t.service == "web")
    world.edit("web", 1, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 2))
    assert old in world.cancelled
    build = next(t for t in world.running if t.kind is TaskKind.BUILD and t.service == "web")
    world.succeed(build)
    assert web_tasks(world) == []
    world.succeed(old)
    assert web_tasks(world) == [TaskKind.DEPLOY]


def test_going_back_after_a_patch_was_sent_deploys_again() -> None:
    steps = (TaskKind.SCAN, TaskKind.BUILD, TaskKind.DEPLOY, TaskKind.FOLLOW)
    world = advanced(*steps)
    assert world.cluster["web"] == "content-0"
    world.edit("web", 1, 1)
    world.wait(0.05)
    for kind in (TaskKind.SCAN, TaskKind.BUILD, TaskKind.DEPLOY):
        world.succeed(next(t for t in world.running if t.kind is kind and t.service == "web"))
    assert world.cluster["web"] == "content-1"
    world.edit("web", 0, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 3))
    world.settle()
    assert world.cluster["web"] == "content-0"


FIRST = (TaskKind.SCAN, TaskKind.BUILD, TaskKind.DEPLOY, TaskKind.FOLLOW)


def test_a_sync_is_served_without_an_image_and_the_image_follows_when_it_is_quiet() -> None:
    world = advanced(*FIRST, syncs=True)
    world.edit("web", 1, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 2))
    assert web_tasks(world) == [TaskKind.SYNC]
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SYNC))
    web = world.state.services["web"]
    assert web.served == scan_of(1, None).fingerprint
    assert web_tasks(world) == []
    world.wait(1.1)
    assert web_tasks(world) == [TaskKind.CATCH_UP]
    world.edit("web", 2, 1)
    assert web_tasks(world) == [TaskKind.SCAN]
    world.settle()
    assert world.cluster["web"] == "content-2"
    assert world.state.services["web"].behind is None


def test_what_cannot_be_synced_is_built() -> None:
    world = advanced(*FIRST, syncs=True)
    world.edit("web", 1, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 2))
    sync = next(t for t in world.running if t.kind is TaskKind.SYNC)
    world.end(sync, Done(NotSynced("no rule covers app.py")))
    assert web_tasks(world) == [TaskKind.BUILD]
    skipped = [e for e in world.events if isinstance(e, StepFinished) and e.step is Step.SYNC]
    assert [(e.outcome, e.detail) for e in skipped] == [
        (StepOutcome.SKIPPED, "no rule covers app.py")
    ]
    world.edit("web", 0, 1)
    world.settle()
    # Nothing was written, so going back to what is served needs nothing.
    assert [t for t in world.running if t.kind is not TaskKind.SCAN] == []
    assert world.state.services["web"].served == scan_of(0, None).fingerprint


def test_a_failed_sync_is_told_and_the_image_is_built() -> None:
    world = advanced(*FIRST, syncs=True)
    world.edit("web", 1, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 2))
    sync = next(t for t in world.running if t.kind is TaskKind.SYNC)
    world.apply(Began(sync, Step.SYNC))
    world.end(sync, failure("sync/failed"))
    assert web_tasks(world) == [TaskKind.BUILD]
    told = [e for e in world.events if isinstance(e, DiagnosticRaised)]
    assert [(e.code, e.severity) for e in told] == [("sync/failed", "warning")]


def changed_outside(world: World) -> None:
    change = Diagnosis(
        code=Code.SAFETY_CHANGED_OUTSIDE, severity="warning", message="web was changed by anna"
    )
    world.cluster["web"] = "anna's"
    world.apply(ChangedOutside("web", change))
    world.follow_plan()


def test_a_save_of_the_same_bytes_takes_back_what_somebody_changed_but_no_audit_does() -> None:
    world = advanced(*FIRST, syncs=True)
    changed_outside(world)
    told = [e.message for e in world.events if isinstance(e, DiagnosticRaised)]
    assert told == ["web was changed by anna"]
    world.apply(Hinted(service="web", paths=None))
    world.settle()
    assert world.cluster["web"] == "anna's"
    world.edit("web", 0, 1)
    world.settle()
    assert world.cluster["web"] == "content-0"
    assert web_outcomes(world)[-1].value == "ready"


def test_what_was_synced_is_not_brought_into_a_workload_that_somebody_changed() -> None:
    world = advanced(*FIRST, syncs=True)
    saved(world, 1)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SYNC))
    changed_outside(world)
    world.wait(5.0)
    assert TaskKind.CATCH_UP not in web_tasks(world)
    assert world.cluster["web"] == "anna's"
    # The next save is no sync into pods of an unknown image.
    world.edit("web", 2, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web"))
    assert web_tasks(world) == [TaskKind.BUILD]


def test_no_message_says_the_opposite_of_what_somebody_made_of_it() -> None:
    world = advanced(*FIRST)
    changed_outside(world)
    world.edit("web", 1, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web"))
    build = next(t for t in world.running if t.kind is TaskKind.BUILD and t.service == "web")
    world.end(build, failure("build/run-failed"))
    finished = [e for e in world.events if isinstance(e, IterationFinished)][-1]
    assert finished.serving is None


def saved(world: World, content: int) -> None:
    """A save of web, up to where the sync of it runs."""
    world.edit("web", content, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web"))
    assert TaskKind.SYNC in web_tasks(world)


def test_a_sync_that_begins_as_its_save_is_taken_back_is_taken_back_as_well() -> None:
    world = advanced(*FIRST, syncs=True)
    before = world.disk["web"]
    saved(world, 1)
    sync = next(t for t in world.running if t.kind is TaskKind.SYNC)
    world.edit("web", before, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web"))
    assert sync in world.cancelled
    world.succeed(sync)
    assert world.cluster["web"] == "unknown"
    world.settle()
    assert world.cluster["web"] == f"content-{before}"


def test_why_a_change_cannot_be_synced_is_told_once_for_the_same_reason() -> None:
    world = advanced(*FIRST, syncs=True)
    reasons = ["A", "A", "B", "B", "A"]
    for content, reason in enumerate(reasons, start=1):
        saved(world, content)
        sync = next(t for t in world.running if t.kind is TaskKind.SYNC)
        world.end(sync, Done(NotSynced(reason)))
        for kind in FIRST[1:]:
            world.succeed(next(t for t in world.running if t.kind is kind and t.service == "web"))
            world.wait(0.05)
    told = [e.detail for e in world.events if isinstance(e, StepFinished) and e.step is Step.SYNC]
    assert told == ["A", "B", "A"]


def test_a_process_that_ends_at_a_sync_fails_the_iteration_and_the_next_save_syncs_again() -> None:
    world = advanced(*FIRST, syncs=True)
    saved(world, 1)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SYNC))
    for content in (2, 3):
        saved(world, content)
        sync = next(t for t in world.running if t.kind is TaskKind.SYNC)
        world.apply(Began(sync, Step.SYNC))
        world.end(sync, failure("pod/process-ended"))
        web = world.state.services["web"]
        assert (web.iteration, web.behind, web.served) == (None, None, None)
        assert web_tasks(world) == []
        ended = [e for e in world.events if isinstance(e, IterationFinished)][-1]
        assert (ended.outcome, ended.failed_step) == (Outcome.FAILED, Step.SYNC)
        assert ended.serving is None
        world.wait(60)
        assert web_tasks(world) == []
    told = [e for e in world.events if isinstance(e, DiagnosticRaised)]
    assert [(e.code, e.severity) for e in told] == [("pod/process-ended", "error")] * 2
    # What was synced last and what the image holds are both no longer what runs.
    for content in (1, 0):
        saved(world, content)
        world.succeed(next(t for t in world.running if t.kind is TaskKind.SYNC))
        assert world.state.services["web"].served == scan_of(content, None).fingerprint
        assert world.state.services["web"].behind is not None
    assert world.deploys == 1


def test_going_back_after_a_sync_began_syncs_again() -> None:
    world = advanced(*FIRST, syncs=True)
    world.edit("web", 1, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 2))
    sync = next(t for t in world.running if t.kind is TaskKind.SYNC)
    world.apply(Began(sync, Step.SYNC))
    world.edit("web", 0, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.key == 3))
    assert web_tasks(world) == []
    world.end(sync, Stopped())
    assert web_tasks(world) == [TaskKind.SYNC]


def superseded(world: World, content: int) -> None:
    """A save while the image is built."""
    assert TaskKind.BUILD in web_tasks(world)
    world.edit("web", content, 1)
    world.wait(0.05)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web"))
    for task in [t for t in world.cancelled if t.service == "web"]:
        world.succeed(task)


def warnings(world: World) -> list[DiagnosticRaised]:
    return [e for e in world.events if isinstance(e, DiagnosticRaised)]


def web_outcomes(world: World) -> list[Outcome]:
    return [
        e.outcome for e in world.events if isinstance(e, IterationFinished) and e.service == "web"
    ]


def test_after_three_supersedings_one_build_is_deployed_and_the_path_is_named() -> None:
    world = advanced(TaskKind.SCAN)
    for content in (1, 2):
        assert world.state.services["web"].passing == frozenset()
        superseded(world, content)
    assert warnings(world) == []
    # The next look keeps what it reads of it, for the build that may be let through.
    assert world.state.services["web"].passing == {"app.py"}
    superseded(world, 3)
    (warning,) = warnings(world)
    assert (warning.code, warning.severity) == ("build/keeps-changing", "warning")
    assert warning.message.startswith("app.py ")
    assert warning.suggestions[0].endswith(".dockerignore: app.py")
    # From here on nothing supersedes it, not even what is known to have changed.
    superseded(world, 0)
    for kind in (TaskKind.BUILD, TaskKind.DEPLOY):
        world.edit("web", 1, 1)
        assert kind in web_tasks(world)
        world.succeed(next(t for t in world.running if t.kind is kind and t.service == "web"))
    assert world.cluster["web"] == "content-3"
    assert web_outcomes(world) == [Outcome.CANCELLED] * 3
    # The same path does not break the rollout off; what it changed to is next.
    world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web"))
    assert TaskKind.FOLLOW in web_tasks(world)
    world.succeed(next(t for t in world.running if t.kind is TaskKind.FOLLOW))
    assert web_outcomes(world)[-1] is Outcome.READY
    assert TaskKind.BUILD in web_tasks(world)
    for content in (2, 0, 2):
        superseded(world, content)
    assert len(warnings(world)) == 1  # named once
    world.settle()
    assert world.cluster["web"] == "content-2"


def saved_and_served(world: World, times: int, pause: float) -> None:
    for content in range(1, times + 1):
        world.edit("web", content % 2, 1)
        while tasks := [t for t in world.running if t.service == "web"]:
            world.succeed(tasks[0])
        world.wait(pause)


def test_a_path_that_alone_begins_iterations_all_the_time_is_named_once() -> None:
    world = advanced(*FIRST)
    saved_and_served(world, 19, 0.5)
    assert warnings(world) == []
    saved_and_served(world, 22, 0.5)
    (warning,) = warnings(world)
    assert (warning.code, warning.severity) == ("build/keeps-changing", "warning")
    assert warning.message == "app.py changes all the time, and each change is an iteration"
    assert warning.suggestions[0].endswith(".dockerignore: app.py")


def test_saves_of_one_file_by_a_person_are_not_all_the_time() -> None:
    world = advanced(*FIRST)
    saved_and_served(world, 30, 1.1)
    assert warnings(world) == []


def test_a_path_outside_the_build_context_is_named_without_a_line_for_dockerignore() -> None:
    world = advanced(TaskKind.SCAN)
    for content in (1, 2, 3):
        world.edit("web", content, 1)
        world.wait(0.05)
        scan = next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web")
        found = replace(scan_of(content, None), changed=("../k8s/web.yaml",))
        world.end(scan, Done(found))
    (warning,) = warnings(world)
    assert warning.message.startswith("../k8s/web.yaml ")
    assert "add this line" not in warning.suggestions[0]


def test_the_line_for_dockerignore_names_a_path_with_brackets_as_docker_reads_it() -> None:
    world = advanced(TaskKind.SCAN)
    for content in (1, 2, 3):
        world.edit("web", content, 1)
        world.wait(0.05)
        scan = next(t for t in world.running if t.kind is TaskKind.SCAN and t.service == "web")
        found = scan_of(content, None)
        entries = {"pages/[id].js": next(iter(found.snapshot.entries.values()))}
        snapshot = replace(found.snapshot, entries=entries)
        world.end(scan, Done(replace(found, snapshot=snapshot, changed=("pages/[id].js",))))
    (warning,) = warnings(world)
    assert warning.suggestions[0].endswith(r".dockerignore: pages/\[id\].js")


def test_a_build_that_finds_its_context_changed_again_and_again_ends_a_run() -> None:
    world = World()
    world.start(roll_back=False)
    world.state = initial({"web": False}, mode="run", root=ROOT, now=world.now)
    world.running.clear()
    world.follow_plan()
    for content in range(1, 5):
        world.succeed(next(t for t in world.running if t.kind is TaskKind.SCAN))
        world.disk["web"] = content
        build = next(t for t in world.running if t.kind is TaskKind.BUILD)
        world.end(build, failure("build/context-changed"))
    assert web_outcomes(world) == [Outcome.CANCELLED] * 3 + [Outcome.FAILED]
    assert world.state.statuses["web"] is ExitStatus.FAILED
    assert world.state.services["web"].settled
    assert [w.code for w in warnings(world)] == ["build/keeps-changing", "build/context-changed"]


def test_a_worker_that_ends_as_if_cancelled_again_and_again_is_a_bug() -> None:
    world = advanced(TaskKind.SCAN)
    for attempt in range(4):
        world.end(Task(TaskKind.BUILD, "web", 0, attempt), Stopped())
    assert web_outcomes(world) == [Outcome.FAILED]
    assert [w.code for w in warnings(world)] == ["internal/bug"]


def test_a_plan_says_what_each_service_waits_for() -> None:
    names = [f"s{number}" for number in range(MAX_BUILDS + 1)]
    state = initial(dict.fromkeys(names, False), mode="dev", root=ROOT, now=0.0)
    for name in names:
        scan = Task(TaskKind.SCAN, name, 1)
        for fact in (Started(scan), Ended(scan, Done(scan_of(0, None)))):
            state, _ = reduce(state, fact, 0.0)
    wanted = plan(state, 0.0)
    assert len(wanted.tasks) == MAX_BUILDS
    assert {name: hold.reason for name, hold in wanted.holds.items()} == {
        names[-1]: f"waits for one of {MAX_BUILDS} builds to end"
    }
    assert wanted.wake is None


World.TestCase.settings = settings(max_examples=examples(100), stateful_step_count=50)
TestWorld = World.TestCase


def test_a_hold_is_announced_and_tried_again() -> None:
    world = World()
    world.start(roll_back=False)
    world.succeed(Task(TaskKind.SCAN, "web", 1))
    world.end(Task(TaskKind.BUILD, "web", 0), failure("registry/unreachable"))
    hold = plan(world.state, world.now).holds["web"]
    assert (hold.code, hold.until, hold.attempt) == ("registry/unreachable", 1.0, 1)
    assert not any(t.kind is TaskKind.BUILD for t in world.running)
    world.wait(1.1)
    assert Task(TaskKind.BUILD, "web", 0, 1) in world.running
    world.settle()
    outcomes = [e.outcome for e in world.events if isinstance(e, IterationFinished)]
    assert outcomes.count(Outcome.READY) == 2
    assert len(outcomes) == 2
