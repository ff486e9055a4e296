"""What reopens an iteration that failed: pods that become ready by themselves, a save of the same
bytes, the user's word. By the driver of the engine's model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devloop.engine.facts import Asked, CauseMended, Continued, Done, Hinted, Paused, Stopped
from devloop.engine.state import TaskKind
from devloop.events import (
    DiagnosticRaised,
    IterationFinished,
    IterationStarted,
    StepFinished,
    TriggerTaken,
)
from devloop.model import Outcome, Served, Step
from tests.unit.engine.test_model import (
    FIRST,
    ROOT,
    advanced,
    failure,
    image_of,
    scan_of,
    web_tasks,
)

if TYPE_CHECKING:
    from devloop.engine.state import Task
    from tests.unit.engine.test_model import World

SAVE = Hinted(service="web", paths=frozenset({ROOT / "app.py"}))


def task_of(world: World, kind: TaskKind) -> Task:
    return next(t for t in world.running if t.service == "web" and t.kind is kind)


def failed_at(kind: TaskKind, code: str) -> World:
    """A world whose first iteration failed at `kind`."""
    world = advanced(*FIRST[: FIRST.index(kind)])
    world.end(task_of(world, kind), failure(code))
    return world


def saved_again(world: World) -> None:
    """A save of the same bytes, and the look at the disk that follows."""
    world.apply(SAVE)
    world.wait(0.05)
    world.succeed(task_of(world, TaskKind.SCAN))


def last(world: World) -> tuple[IterationStarted, IterationFinished | None]:
    began = [e for e in world.events if isinstance(e, IterationStarted) and e.service == "web"][-1]
    ended = [e for e in world.events if isinstance(e, IterationFinished) and e.iter == began.iter]
    return began, next(iter(ended), None)


def test_pods_that_become_ready_after_a_failed_rollout_make_the_iteration_ready() -> None:
    world = failed_at(TaskKind.FOLLOW, "pod/crash-loop")
    assert web_tasks(world) == [TaskKind.RECOVER]
    world.wait(40)
    image = image_of("content-0")
    world.end(task_of(world, TaskKind.RECOVER), Done(Served(image=image, pods=("web-1",))))
    began, ended = last(world)
    assert began.trigger.kind == "recovered"
    assert ended is not None
    assert (ended.outcome, ended.ms) == (Outcome.READY, 40_000)
    assert "became ready by themselves" in ended.why
    steps = [e for e in world.events if isinstance(e, StepFinished) and e.iter == began.iter]
    assert [(s.step, s.ms) for s in steps] == [(Step.ROLLOUT, 40_000)]
    web = world.state.services["web"]
    assert (web.failure, web.unserved) == (None, None)
    assert web.served == scan_of(0, None).fingerprint
    assert web_tasks(world) == []


def test_a_workload_that_is_gone_is_not_looked_at_any_more_and_stays_failed() -> None:
    world = failed_at(TaskKind.FOLLOW, "pod/crash-loop")
    before = len(world.events)
    world.end(task_of(world, TaskKind.RECOVER), failure("cluster/not-found"))
    assert web_tasks(world) == []
    assert world.state.services["web"].failure is not None
    assert world.events[before:] == []


def test_a_look_that_breaks_off_is_taken_up_again_but_not_for_ever() -> None:
    world = failed_at(TaskKind.FOLLOW, "pod/crash-loop")
    for _ in range(4):
        world.end(task_of(world, TaskKind.RECOVER), Stopped())
    assert web_tasks(world) == []


def test_what_was_rolled_back_is_not_looked_at_on() -> None:
    world = advanced(*FIRST[:-1], roll_back=True)
    world.end(task_of(world, TaskKind.FOLLOW), failure("pod/crash-loop"))
    world.succeed(task_of(world, TaskKind.ROLLBACK))
    assert web_tasks(world) == []


def test_a_newer_save_ends_the_look_at_what_failed() -> None:
    world = failed_at(TaskKind.FOLLOW, "pod/crash-loop")
    world.edit("web", 1, 1)
    world.wait(0.05)
    world.succeed(task_of(world, TaskKind.SCAN))
    assert task_of(world, TaskKind.RECOVER) in world.cancelled
    assert TaskKind.BUILD in web_tasks(world)
    assert world.state.services["web"].unserved is None


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (TaskKind.BUILD, "build/run-failed"),
        (TaskKind.DEPLOY, "cluster/not-found"),
        (TaskKind.FOLLOW, "pod/config-error"),
    ],
)
def test_a_save_of_the_same_bytes_after_a_failure_tries_again(kind: TaskKind, code: str) -> None:
    world = failed_at(kind, code)
    world.wait(5)
    saved_again(world)
    began, ended = last(world)
    assert (began.trigger.kind, began.trigger.paths) == ("retry", ("app.py",))
    assert ended is None
    assert TaskKind.BUILD in web_tasks(world)


def test_what_a_deploy_missed_is_tried_again_when_it_is_there() -> None:
    world = failed_at(TaskKind.DEPLOY, "cluster/not-found")
    assert web_tasks(world) == [TaskKind.AWAIT_CAUSE]
    world.end(task_of(world, TaskKind.AWAIT_CAUSE), Done(CauseMended("the namespace 'dev'")))
    said = [e for e in world.events if isinstance(e, DiagnosticRaised)][-1]
    assert (said.code, said.severity) == ("cluster/not-found", "info")
    assert said.message == "the namespace 'dev' is there now: it is tried again"
    world.succeed(task_of(world, TaskKind.SCAN))
    began, ended = last(world)
    assert (began.trigger.kind, ended) == ("retry", None)
    assert web_tasks(world) == [TaskKind.BUILD]


def test_what_nobody_can_wait_for_is_not_asked_for_again() -> None:
    world = failed_at(TaskKind.DEPLOY, "cluster/not-found")
    world.end(task_of(world, TaskKind.AWAIT_CAUSE), Done())
    assert web_tasks(world) == []
    assert world.state.services["web"].failure is not None


def test_a_save_ends_the_wait_for_what_a_deploy_missed() -> None:
    world = failed_at(TaskKind.DEPLOY, "cluster/not-found")
    world.wait(5)
    saved_again(world)
    assert task_of(world, TaskKind.AWAIT_CAUSE) in world.cancelled
    assert TaskKind.BUILD in web_tasks(world)


def test_during_a_pause_nothing_is_asked_for() -> None:
    world = failed_at(TaskKind.DEPLOY, "cluster/not-found")
    world.apply(Paused("paused"))
    world.end(task_of(world, TaskKind.AWAIT_CAUSE), Done(CauseMended("the namespace 'dev'")))
    assert web_tasks(world) == []
    world.apply(Continued())
    world.follow_plan()
    assert web_tasks(world) == [TaskKind.SCAN]


def test_what_a_failed_build_wrote_itself_does_not_try_again() -> None:
    world = failed_at(TaskKind.BUILD, "build/command-failed")
    saved_again(world)
    _, ended = last(world)
    assert ended is not None
    assert ended.outcome is Outcome.UNCHANGED
    assert "which failed" in ended.why


def test_an_audit_that_finds_the_same_bytes_does_not_try_again() -> None:
    world = failed_at(TaskKind.BUILD, "build/run-failed")
    world.wait(60)
    world.apply(Hinted(service="web", paths=None))
    world.wait(0.05)
    before = len(world.events)
    world.succeed(task_of(world, TaskKind.SCAN))
    assert world.events[before:] == []


def test_who_asks_for_another_try_gets_one_at_once_whatever_the_disk_has() -> None:
    world = advanced(*FIRST)
    for _ in range(2):
        world.apply(Asked(service="web"))
        world.follow_plan()
        world.succeed(task_of(world, TaskKind.SCAN))
        assert last(world)[0].trigger.kind == "retry"
        for kind in FIRST[1:]:
            world.succeed(task_of(world, kind))
        ended = last(world)[1]
        assert ended is not None
        assert ended.outcome is Outcome.READY


def test_a_save_ends_the_wait_for_what_may_be_there_by_now() -> None:
    world = failed_at(TaskKind.BUILD, "registry/unreachable")
    for _ in range(3):
        world.wait(10)
        world.end(task_of(world, TaskKind.BUILD), failure("registry/unreachable"))
    assert TaskKind.BUILD not in web_tasks(world)
    saved_again(world)
    assert TaskKind.BUILD in web_tasks(world)


def test_what_its_own_build_wrote_belongs_to_the_iteration() -> None:
    world = advanced(*FIRST[:2])
    world.apply(SAVE)
    world.wait(0.05)
    task = task_of(world, TaskKind.SCAN)
    world.end(task, Done(scan_of(7, 0), spares=last(world)[0].iter, wrote=True))
    for kind in FIRST[2:]:
        world.succeed(task_of(world, kind))
        world.wait(0.05)
    assert world.state.services["web"].served == scan_of(7, None).fingerprint
    assert web_tasks(world) == []


def test_what_a_failed_build_wrote_last_is_no_change() -> None:
    world = failed_at(TaskKind.BUILD, "build/command-failed")
    world.apply(SAVE)
    world.wait(0.05)
    before = len(world.events)
    world.end(task_of(world, TaskKind.SCAN), Done(scan_of(7, None), wrote=True))
    assert (web_tasks(world), world.events[before:]) == ([], [])


def asked(world: World, number: int, *, fresh: bool = False) -> None:
    world.apply(Asked(service="web", id=number, fresh=fresh))
    world.follow_plan()


def taken(world: World) -> list[tuple[tuple[int, ...], int]]:
    return [(e.ids, e.iter) for e in world.events if isinstance(e, TriggerTaken)]


def test_who_asks_during_a_look_is_answered_by_the_next_one() -> None:
    """The look may have been there before what was saved just now."""
    world = advanced(*FIRST)
    asked(world, 1)
    first = task_of(world, TaskKind.SCAN)
    asked(world, 2)
    asked(world, 3)
    world.succeed(first)
    begun = last(world)[0].iter
    assert taken(world) == [((1,), begun)]
    world.wait(1)
    world.succeed(task_of(world, TaskKind.SCAN))
    # Nothing has changed meanwhile, so the iteration under way is theirs as well.
    assert taken(world) == [((1,), begun), ((2, 3), begun)]


def test_who_asks_right_after_a_failed_build_that_wrote_files_gets_another_try() -> None:
    world = failed_at(TaskKind.BUILD, "build/run-failed")
    asked(world, 1)
    task = task_of(world, TaskKind.SCAN)
    found = world.scanned("web")
    assert isinstance(found, Done)
    world.end(task, replace(found, wrote=True))
    service = world.state.services["web"]
    assert service.iteration is not None
    assert taken(world) == [((1,), service.iteration.number)]


def test_a_full_build_is_not_spared_by_the_iteration_under_way_nor_lost_with_a_newer_save() -> None:
    world = advanced(*FIRST)
    asked(world, 1)
    world.succeed(task_of(world, TaskKind.SCAN))
    asked(world, 2, fresh=True)
    world.succeed(task_of(world, TaskKind.SCAN))
    service = world.state.services["web"]
    assert service.iteration is not None
    assert service.iteration.fresh
    world.disk["web"] = 7
    world.apply(SAVE)
    world.wait(1)
    world.succeed(task_of(world, TaskKind.SCAN))
    service = world.state.services["web"]
    assert service.iteration is not None
    assert service.iteration.fresh
    world.succeed(next(t for t in world.running if t.key == service.iteration.number))
    assert not world.state.services["web"].fresh
