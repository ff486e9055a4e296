"""Where the engine has hooks and tests run, and what their end means for the iteration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devloop.engine.loop import Engine
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.events import IterationFinished
from devloop.model import Fingerprint, Outcome, Step, StepOutcome
from tests.support.waiting import until
from tests.unit.engine.test_loop import PROJECT, Running, ScriptedHints, World

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.engine.ports import HookTime, Reporter
    from devloop.model import ImageRef, Scan

SAVE = frozenset({PROJECT / "app.py"})


class Hooked(World):
    """As `World`, with hooks that are written down; the one called `fails` fails. Before a build
    they generate: `a` is built as `a+`."""

    def __init__(self, *, fails: str = "") -> None:
        super().__init__()
        self.fails = fails
        self.ran: list[str] = []
        self.left: set[tuple[str, str]] = set()

    def _did(self, what: str, reporter: Reporter, step: Step = Step.HOOK) -> None:
        reporter.started(step)
        self.ran.append(what)
        if what == self.fails:
            code = Code.TEST_FAILED if what == "test" else Code.HOOK_FAILED
            raise DevloopError.of(code, f"{what} failed")
        reporter.finished(step, StepOutcome.DONE)

    def before_build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Scan:
        del cancel
        self._did("before_build", reporter)
        return replace(scan, fingerprint=Fingerprint(f"{scan.fingerprint.build}+", ""), look=9)

    def before_sync(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Scan:
        del cancel
        self._did("before_sync", reporter)
        return scan

    def run(
        self, when: HookTime, image: ImageRef | None, reporter: Reporter, cancel: Cancel
    ) -> None:
        del image, cancel
        self._did(when, reporter)

    def test(self, image: ImageRef, reporter: Reporter, cancel: Cancel, *, again: bool) -> None:
        del image, cancel, again
        self._did("test", reporter, Step.TEST)

    def wrote(self, before: Scan, after: Scan) -> bool:
        return (before.fingerprint.build, after.fingerprint.build) in self.left

    def may_have_written(self, before: Scan, after: Scan) -> bool:
        return self.wrote(before, after)

    def hooked(
        self, mode: str = "run", hints: ScriptedHints | None = None, *, syncs: bool = False
    ) -> Engine:
        engine = self.engine("dev" if mode == "dev" else "run", hints, syncs=syncs)
        ports = replace(engine.services["web"], hooks=self, tester=self)
        return Engine(
            {"web": ports},
            mode=engine.mode,
            root=PROJECT,
            publish=self.events.append,
            hints=hints,
        )

    @property
    def failed_at(self) -> list[Step | None]:
        return [e.failed_step for e in self.events if isinstance(e, IterationFinished)]


ORDER = ["before_build", "after_build", "test", "before_deploy", "after_deploy"]


def test_hooks_and_the_test_run_in_order_and_what_hooks_made_is_built() -> None:
    world = Hooked()
    assert world.hooked().run() is ExitStatus.DONE
    assert world.ran == ORDER
    assert world.built == world.deployed == ["a+"]
    assert world.outcomes() == [Outcome.READY]


@pytest.mark.parametrize("fails", ORDER)
def test_what_fails_ends_the_iteration_there(fails: str) -> None:
    world = Hooked(fails=fails)
    assert world.hooked().run() is ExitStatus.FAILED
    assert world.ran == ORDER[: ORDER.index(fails) + 1]
    assert world.failed_at == [Step.TEST if fails == "test" else Step.HOOK]
    assert bool(world.deployed) == (fails == "after_deploy")


def test_pods_that_are_ready_do_not_mend_a_hook_after_the_deploy() -> None:
    world, hints = Hooked(fails="after_deploy"), ScriptedHints()
    world.recovers = True
    running = Running(world.hooked("dev", hints))
    try:
        until(world.outcomes)
        world.content, world.fails = "b", ""
        hints.give(SAVE)
        until(lambda: len(world.outcomes()) > 1)
    finally:
        running.stop()
    assert world.outcomes()[:2] == [Outcome.FAILED, Outcome.READY]


def test_what_hooks_left_after_an_iteration_begins_no_other_one() -> None:
    world, hints = Hooked(), ScriptedHints()
    # The log that `after_deploy` wrote into the context, noticed late.
    world.left = {("a+", "a+log"), ("a", "a+log")}
    running = Running(world.hooked("dev", hints))
    try:
        until(world.outcomes)
        world.content = "a+log"
        hints.give(SAVE)
        until(lambda: world.scanned == "a+log")
        world.content = "b"
        hints.give(SAVE)
        until(lambda: len(world.outcomes()) > 1)
    finally:
        running.stop()
    assert world.built == ["a+", "b+"]


def test_a_sync_has_its_own_hooks() -> None:
    world, hints = Hooked(), ScriptedHints()
    running = Running(world.hooked("dev", hints, syncs=True))
    try:
        until(world.outcomes)
        world.ran.clear()
        world.content = "b"
        hints.give(SAVE)
        until(lambda: len(world.outcomes()) > 1)
        done = list(world.ran)
    finally:
        running.stop()
    assert done[:2] == ["before_sync", "after_sync"]
    assert world.synced == ["b"]
