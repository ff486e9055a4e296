"""The loop with real threads and ports that are scripted: results, bugs, cancelling, the end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import pytest

from devloop.base.cancel import Cancelled
from devloop.base.threads import reporting_bugs
from devloop.engine import loop
from devloop.engine import plan as planning
from devloop.engine import reduce as reducing
from devloop.engine.facts import Hinted, Paused
from devloop.engine.loop import Engine
from devloop.engine.tasks import ServicePorts
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.events import DiagnosticRaised, Event, HoldStarted, IterationFinished, StepFinished
from devloop.model import (
    Deployed,
    DeployedWorkload,
    Fingerprint,
    ImageRef,
    Outcome,
    Resumed,
    Scan,
    Served,
    Snapshot,
    Standing,
    Step,
    WorkloadRef,
)
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Reporter, StandingOf

PROJECT = Path("/project")


class World:
    """One service's source, builder and deployer. `content` is what a scan sees; `on_build` may
    block, fail or edit."""

    def __init__(self) -> None:
        self.content = self.scanned = "a"
        self.built: list[str] = []
        self.deployed: list[str] = []
        self.adopted: list[str] = []
        self.synced: list[str] = []
        self.held: dict[str, str] = {}
        self.events: list[Event] = []
        self.recovers = False
        # What an earlier session left.
        self.earlier: list[ImageRef] = []
        self.stands: Standing | str = "nothing stands"
        self.resumed: Resumed | str = "nothing is known"
        self.astray: tuple[str, ...] = ()
        self.recreated: list[str] = []
        self.untouched: list[Collection[str] | None] = []
        self.on_build: Callable[[str, Cancel], None] = lambda _content, _cancel: None

    def scan(
        self,
        hints: frozenset[Path] | None,
        cancel: Cancel,
        passing: frozenset[str] = frozenset(),
        needs: Mapping[str, str] = MappingProxyType({}),
    ) -> Scan:
        content = self.scanned = self.content
        return Scan(
            fingerprint=Fingerprint(content, ""),
            snapshot=Snapshot(entries=MappingProxyType({}), digest=content, stamp=""),
            files=1,
        )

    def concerns(self, path: Path) -> bool:
        return path.suffix == ".py"

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        content = scan.fingerprint.build
        reporter.started(Step.BUILD)
        self.on_build(content, cancel)
        self.built.append(content)
        return ImageRef(repository="r/web", tag=content, digest=f"sha256:{content}")

    def wrote(self, before: Scan, after: Scan) -> bool:
        return False

    def may_differ(self, before: Scan, after: Scan) -> bool:
        return before.fingerprint.build.rstrip("~") != after.fingerprint.build.rstrip("~")

    def deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        self.deployed.append(image.tag)
        web = DeployedWorkload(
            workload=WorkloadRef("deployment", "web", "default"),
            uid="u",
            generation=1,
            image=image,
            containers=("web",),
        )
        return Deployed(image=image, workloads=(web,))

    def go_back(
        self,
        image: ImageRef,
        untouched: Collection[str] | None,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Deployed:
        self.untouched.append(untouched)
        return self.deploy(image, reporter, cancel)

    def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        return Served(image=deployed.image, pods=("web-1",))

    def await_recovery(self, deployed: Deployed, cancel: Cancel) -> Served:
        while not self.recovers:
            if cancel.wait(0.01):
                raise Cancelled
        return Served(image=deployed.image, pods=("web-1",))

    def await_cause(self, cancel: Cancel) -> str | None:
        return None

    def rollback(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> None:
        raise AssertionError("nothing was there before")

    def adopt(self, image: ImageRef, cancel: Cancel) -> str | None:
        self.adopted.append(image.tag)
        return None

    def standing(self, images: Mapping[str, ImageRef], cancel: Cancel) -> Standing | str:
        return self.stands if images else "nothing stands"

    def recreate(self, deployed: Deployed, pods: Sequence[str], cancel: Cancel) -> None:
        self.recreated += pods
        self.astray = ()

    # --- as a syncer: contents in upper case need an image ---------------------------------

    def image_contains(self, image: ImageRef, scan: Scan) -> None:
        self.held[image.tag] = scan.fingerprint.build

    def image_again(self, image: ImageRef, scan: Scan | None) -> frozenset[str]:
        return frozenset({f"with {image.tag}"})

    def blocker(self, scan: Scan) -> str | None:
        return "upper case" if scan.fingerprint.build.isupper() else None

    def resume(self, scan: Scan, standing: StandingOf, cancel: Cancel) -> Resumed | str:
        if not self.earlier:
            return ""
        stands = standing({image.digest: image for image in self.earlier})
        return stands if isinstance(stands, str) else self.resumed

    def strays(self, cancel: Cancel) -> tuple[str, ...]:
        return self.astray

    def sync(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Served:
        reporter.started(Step.SYNC)
        self.synced.append(scan.fingerprint.build)
        image = ImageRef(repository="r/web", tag=[*map(_tag, self.earlier), *self.deployed][-1])
        return Served(image=image, pods=("web-1",))

    def engine(
        self,
        mode: Literal["dev", "run"],
        hints: ScriptedHints | None = None,
        *,
        syncs: bool = False,
    ) -> Engine:
        ports = ServicePorts(
            source=self, builder=self, deployer=self, syncer=self if syncs else None
        )
        return Engine(
            {"web": ports}, mode=mode, root=PROJECT, publish=self.events.append, hints=hints
        )

    def outcomes(self) -> list[Outcome]:
        return [e.outcome for e in self.events if isinstance(e, IterationFinished)]


def _tag(image: ImageRef) -> str:
    return image.tag


class ScriptedHints:
    """Gives what is put into it, until cancelled."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._pending: list[frozenset[Path] | Exception | None] = []
        self.over = False

    def give(self, hint: frozenset[Path] | Exception | None) -> None:
        with self._condition:
            self._pending.append(hint)
            self._condition.notify()

    def _end(self) -> None:
        with self._condition:
            self.over = True
            self._condition.notify()

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        with cancel.closing(self._end):
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._pending or self.over)
                    if self.over:
                        return
                    hint = self._pending.pop(0)
                if isinstance(hint, Exception):
                    raise hint
                yield hint


class Running:
    """An engine in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.status: ExitStatus | None = None
        self._thread = threading.Thread(target=self._run, name="devloop-test-engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.status = self.engine.run()

    def stop(self, status: ExitStatus = ExitStatus.INTERRUPTED) -> None:
        self.engine.stop(status)
        self.join()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_run_ends_done() -> None:
    world = World()
    assert world.engine("run").run() is ExitStatus.DONE
    assert world.outcomes() == [Outcome.READY]
    assert world.deployed == ["a"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DevloopError.of(Code.BUILD_RUN_FAILED, "no"), ExitStatus.FAILED, Code.BUILD_RUN_FAILED),
        # `run` does not wait for what is not there.
        (
            DevloopError.of(Code.REGISTRY_UNREACHABLE, "no"),
            ExitStatus.ENVIRONMENT,
            "registry/unreachable",
        ),
        (ZeroDivisionError("surprise"), ExitStatus.BUG, "internal/bug"),
    ],
)
def test_run_ends_with_its_failure(error: Exception, status: ExitStatus, code: str) -> None:
    world = World()

    def fail(_content: str, _cancel: Cancel) -> None:
        raise error

    world.on_build = fail
    assert world.engine("run").run() is status
    assert world.outcomes() == [Outcome.FAILED]
    assert [e.code for e in world.events if isinstance(e, DiagnosticRaised)] == [code]
    assert world.deployed == []


def test_dev_reports_pods_that_become_ready_after_a_failed_rollout() -> None:
    world, hints = World(), ScriptedHints()

    def follow(deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        raise DevloopError.of(Code.POD_CRASH_LOOP, "it crashes")

    world.follow = follow  # type: ignore[method-assign]
    running = Running(world.engine("dev", hints))
    until(lambda: world.outcomes() == [Outcome.FAILED])
    world.recovers = True
    until(lambda: world.outcomes() == [Outcome.FAILED, Outcome.READY])
    running.stop()


def test_dev_goes_on_after_a_failure_and_a_newer_save_cancels_the_build() -> None:
    world, hints = World(), ScriptedHints()
    cancelled: list[str] = []

    def build(content: str, cancel: Cancel) -> None:
        if content == "a":
            raise DevloopError.of(Code.BUILD_RUN_FAILED, "no")
        if content == "b":
            assert cancel.wait(30)
            cancelled.append(content)
            raise Cancelled

    world.on_build = build
    running = Running(world.engine("dev", hints))
    until(lambda: world.outcomes() == [Outcome.FAILED])
    world.content = "b"
    hints.give(frozenset({PROJECT / "app.py"}))
    until(lambda: any(t.name == "devloop-build-web-1" for t in threading.enumerate()))
    world.content = "c"
    hints.give(frozenset({PROJECT / "app.py"}))
    until(lambda: len(world.outcomes()) == 3)
    assert world.outcomes() == [Outcome.FAILED, Outcome.CANCELLED, Outcome.READY]
    until(lambda: cancelled == ["b"])  # its thread may be behind the one that built "c"
    assert world.deployed == ["c"]
    running.stop()
    assert running.status is ExitStatus.INTERRUPTED


def test_what_no_image_depends_on_does_not_end_a_build() -> None:
    world, hints, may_end = World(), ScriptedHints(), threading.Event()

    def build(content: str, cancel: Cancel) -> None:
        with cancel.closing(may_end.set):
            assert may_end.wait(30)
        cancel.check()

    world.on_build = build
    running = Running(world.engine("dev", hints))
    until(lambda: any(t.name == "devloop-build-web-0" for t in threading.enumerate()))
    for content in ("a~", "a~~", "a~~~"):
        world.content = content
        hints.give(frozenset({PROJECT / "app.py"}))
        until(lambda: world.scanned == world.content)
    may_end.set()
    until(lambda: len(world.outcomes()) == 2)
    assert world.outcomes() == [Outcome.READY, Outcome.READY]
    assert world.built == ["a", "a~~~"]
    running.stop()


def test_a_path_that_concerns_nobody_does_nothing() -> None:
    world, hints = World(), ScriptedHints()
    running = Running(world.engine("dev", hints))
    until(lambda: world.outcomes() == [Outcome.READY])
    world.content = "b"
    hints.give(frozenset({PROJECT / "notes.txt"}))
    time.sleep(0.1)  # many times what a save takes to start a build
    assert world.built == ["a"]
    running.stop()


def test_a_build_whose_files_changed_is_made_again() -> None:
    world, hints = World(), ScriptedHints()

    def build(content: str, _cancel: Cancel) -> None:
        if content == "a":
            world.content = "b"
            raise DevloopError.of(Code.BUILD_CONTEXT_CHANGED, "a file changed meanwhile")

    world.on_build = build
    running = Running(world.engine("dev", hints))
    until(lambda: len(world.outcomes()) == 2)
    assert world.outcomes() == [Outcome.CANCELLED, Outcome.READY]
    assert world.deployed == ["b"]
    running.stop()


def test_a_worker_that_does_not_end_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_STOP_LIMIT", 0.05)
    world = World()
    release = threading.Event()

    def hang(_content: str, _cancel: Cancel) -> None:
        release.wait(60)

    world.on_build = hang
    running = Running(world.engine("dev"))
    until(lambda: any(t.name == "devloop-build-web-0" for t in threading.enumerate()))
    running.stop()
    assert running.status is ExitStatus.INTERRUPTED
    assert [e.stopped for e in world.events if isinstance(e, IterationFinished)] == [True]
    release.set()


def test_the_watcher_is_told_to_stop_before_the_workers_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_STOP_LIMIT", 20)
    world, hints = World(), ScriptedHints()

    def build(_content: str, cancel: Cancel) -> None:
        while not hints.over:
            cancel.wait(0.001)

    world.on_build = build
    running = Running(world.engine("dev", hints))
    until(lambda: any(t.name == "devloop-build-web-0" for t in threading.enumerate()))
    running.stop()
    assert running.status is ExitStatus.INTERRUPTED
    assert world.built == ["a"]  # nobody gave it up


def test_a_service_that_waits_for_a_slot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_BUILDS", 1)
    monkeypatch.setattr(loop, "_LASTING", 0.01)
    world = World()

    def build(_content: str, _cancel: Cancel) -> None:
        until(lambda: [e for e in world.events if isinstance(e, HoldStarted)])

    world.on_build = build
    ports = ServicePorts(source=world, builder=world, deployer=world)
    engine = Engine(
        {"api": ports, "web": ports}, mode="run", root=PROJECT, publish=world.events.append
    )
    assert engine.run() is ExitStatus.DONE
    (hold,) = [e for e in world.events if isinstance(e, HoldStarted)]
    assert (hold.reason, hold.code, hold.until) == ("waits for one of 1 builds to end", "", None)
    assert world.outcomes() == [Outcome.READY] * 2


def test_what_is_looked_for_all_the_time_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducing, "LOOK_EVERY", 0.02)
    world, hints = World(), ScriptedHints()
    owned = DevloopError.of(Code.SAFETY_GITOPS_OWNED, "somebody owns it", suggestions=("ask",))
    left = 3

    def deploy(image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        nonlocal left
        if any(isinstance(e, HoldStarted) for e in world.events):
            left -= 1
        if left > 0:
            raise owned
        return World.deploy(world, image, reporter, cancel)

    monkeypatch.setattr(world, "deploy", deploy)
    running = Running(world.engine("dev", hints))
    until(world.outcomes)
    running.stop()
    assert world.outcomes() == [Outcome.READY]
    (hold,) = [e for e in world.events if isinstance(e, HoldStarted)]
    assert (hold.reason, hold.code, hold.until) == (
        "somebody owns it",
        "safety/gitops-owned",
        None,
    )
    (said,) = [e for e in world.events if isinstance(e, DiagnosticRaised)]
    assert (said.severity, said.suggestions) == ("warning", ("ask",))


@pytest.mark.parametrize(("stage", "done"), [("build", "built"), ("test", "tested")])
def test_a_stage_ends_with_the_image_and_claims_to_serve_nothing(
    stage: Literal["build", "test"], done: str
) -> None:
    world = World()
    ports = ServicePorts(source=world, builder=world, deployer=world)
    engine = Engine(
        {"web": ports}, mode="run", until=stage, root=PROJECT, publish=world.events.append
    )
    assert engine.run() is ExitStatus.DONE
    (end,) = [e for e in world.events if isinstance(e, IterationFinished)]
    assert (end.outcome, end.digest, end.serving) == (Outcome.READY, "sha256:a", None)
    assert end.why == f"{done} a"
    assert (world.built, world.deployed) == (["a"], [])


def test_in_a_pause_what_is_under_way_is_not_said_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_LASTING", 0.0)
    world, hints = World(), ScriptedHints()
    engine = world.engine("dev", hints)

    def build(_content: str, _cancel: Cancel) -> None:
        engine.post(Paused("a pause"))
        engine.post(Hinted(service="web", paths=None))
        until(lambda: engine._state.paused and engine._state.services["web"].dirty)

    world.on_build = build
    running = Running(engine)
    until(lambda: [e for e in world.events if isinstance(e, HoldStarted)])
    running.stop()
    told = [e for e in world.events if isinstance(e, HoldStarted | StepFinished)]
    assert [getattr(e, "step", "hold") for e in told] == [Step.SCAN, Step.BUILD, "hold"]


def test_a_watcher_that_dies_ends_the_session() -> None:
    world, hints = World(), ScriptedHints()
    bugs: list[BaseException] = []
    error = RuntimeError("the kernel is on holiday")
    with reporting_bugs(bugs.append):
        running = Running(world.engine("dev", hints))
        until(lambda: world.outcomes() == [Outcome.READY])
        hints.give(error)
        running.join()
    assert running.status is ExitStatus.BUG
    assert bugs == [error]


def test_what_can_be_synced_is_and_its_image_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "CATCH_UP_AFTER", 0.1)
    world, hints = World(), ScriptedHints()
    running = Running(world.engine("dev", hints, syncs=True))
    until(lambda: world.outcomes() == [Outcome.READY])
    assert world.held == {"a": "a"}
    for number, content in enumerate(["b", "C"], start=2):
        world.content = content
        hints.give(frozenset({PROJECT / "app.py"}))
        until(lambda wanted=number: len(world.outcomes()) == wanted)  # type: ignore[misc]
        if content == "b":
            assert world.deployed == ["a"]
            until(lambda: world.adopted == ["b"])
    assert world.synced == ["b"]
    assert world.deployed == ["a", "C"]
    assert world.held == {"a": "a", "b": "b", "C": "C"}
    told = [e.code for e in world.events if isinstance(e, DiagnosticRaised)]
    assert told == ["sync/image"]
    running.stop()


def test_a_start_goes_on_from_what_an_earlier_session_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "CATCH_UP_AFTER", 0.1)
    world, hints = World(), ScriptedHints()
    old = ImageRef(repository="r/web", tag="old", digest="sha256:old")
    world.earlier, world.stands = [old], Standing(image=old, pods=("web-1",))
    world.resumed = Resumed(image=old)
    running = Running(world.engine("dev", hints, syncs=True))
    until(lambda: world.adopted == ["a"])
    assert world.outcomes() == [Outcome.READY]
    assert world.synced == ["a"]
    assert world.deployed == []
    running.stop()


@pytest.mark.parametrize("held", [True, False])
def test_a_start_whose_containers_have_it_all_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    monkeypatch.setattr(planning, "CATCH_UP_AFTER", 0.1)
    world, hints = World(), ScriptedHints()
    old = ImageRef(repository="r/web", tag="old", digest="sha256:old")
    world.earlier, world.stands = [old], Standing(image=old, pods=("web-1",))
    world.resumed = Resumed(image=old, current=True, held=held)
    running = Running(world.engine("dev", hints, syncs=True))
    until(lambda: world.outcomes() == [Outcome.UNCHANGED])
    if not held:
        until(lambda: world.adopted == ["a"])
    world.content = "b"
    hints.give(frozenset({PROJECT / "app.py"}))
    until(lambda: world.outcomes() == [Outcome.UNCHANGED, Outcome.READY])
    assert world.synced == ["b"]
    assert world.deployed == []
    running.stop()


@pytest.mark.parametrize("lacks", ["standing", "content", "images"])
def test_a_start_that_does_not_know_what_runs_deploys(lacks: str) -> None:
    world, hints = World(), ScriptedHints()
    old = ImageRef(repository="r/web", tag="old", digest="sha256:old")
    if lacks != "images":
        world.earlier = [old]
    if lacks == "content":
        world.stands = Standing(image=old, pods=("web-1",))
    running = Running(world.engine("dev", hints, syncs=True))
    until(lambda: world.outcomes() == [Outcome.READY])
    assert world.deployed == ["a"]
    assert world.synced == []
    why = [e.detail for e in world.events if isinstance(e, StepFinished) and e.step is Step.SYNC]
    said = {"standing": "nothing stands", "content": "nothing is known"}
    assert why == [said[lacks]] if lacks in said else why == []
    running.stop()


def test_a_pod_whose_files_nobody_knows_is_replaced() -> None:
    world, hints = World(), ScriptedHints()
    world.astray = ("web-1",)
    running = Running(world.engine("dev", hints, syncs=True))
    until(lambda: world.outcomes() == [Outcome.READY])
    assert world.recreated == ["web-1"]
    running.stop()
