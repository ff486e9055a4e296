"""Going back to the last good image: by the driver of the engine's model, and by a real loop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devloop.engine.back import KEPT, cut_off, with_good
from devloop.engine.facts import AskedBack, Hinted
from devloop.engine.plan import plan
from devloop.engine.state import GoodImage, TaskKind
from devloop.errors import Code, DevloopError
from devloop.events import (
    DiagnosticRaised,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    TriggerTaken,
)
from devloop.model import Fingerprint, Outcome
from tests.support.waiting import until
from tests.unit.engine.test_loop import PROJECT, Running, ScriptedHints
from tests.unit.engine.test_loop import World as Ports
from tests.unit.engine.test_model import FIRST, ROOT, advanced, failure, image_of, web_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel
    from devloop.engine.loop import Engine
    from devloop.engine.state import ServiceState
    from devloop.model import ImageRef
    from tests.unit.engine.test_model import World

HOLD = "back on #0: the next change is deployed again"
REST = (TaskKind.DEPLOY, TaskKind.FOLLOW)


def web(world: World) -> ServiceState:
    return world.state.services["web"]


def done(world: World, *kinds: TaskKind) -> None:
    for kind in kinds:
        world.wait(0.05)
        task = next(
            t
            for t in world.running
            if (t.service, t.kind) == ("web", kind) and t not in world.cancelled
        )
        world.succeed(task)
    world.wait(0.05)


def saved(content: int, world: World) -> None:
    world.edit("web", content, 1)
    done(world, TaskKind.SCAN)


def asked_back(world: World, number: int = 1) -> None:
    world.apply(AskedBack(service="web", id=number))
    world.follow_plan()


def last(world: World) -> tuple[IterationStarted, IterationFinished | None]:
    began = [e for e in world.events if isinstance(e, IterationStarted) and e.service == "web"][-1]
    ended = [e for e in world.events if isinstance(e, IterationFinished) and e.iter == began.iter]
    return began, next(iter(ended), None)


@pytest.fixture
def twice() -> World:
    """Two contents have been served, one after the other."""
    world = advanced(*FIRST)
    saved(1, world)
    done(world, *FIRST[1:])
    return world


def test_back_is_the_image_before_the_one_that_serves_and_nothing_is_built(twice: World) -> None:
    asked_back(twice, 7)
    began, _ = last(twice)
    assert (began.trigger.kind, began.trigger.to) == ("rollback", 0)
    taken = [e for e in twice.events if isinstance(e, TriggerTaken)]
    assert (taken[-1].ids, taken[-1].iter) == ((7,), began.iter)
    assert web_tasks(twice) == [TaskKind.DEPLOY]
    done(twice, *REST)
    _, ended = last(twice)
    assert ended is not None
    assert ended.outcome is Outcome.READY
    assert ended.serving is not None
    assert (ended.serving.iter, ended.serving.image) == (0, image_of("content-0").pinned)
    assert twice.cluster["web"] == "content-0"


def test_what_is_on_disk_stays_there_until_the_next_save(twice: World) -> None:
    asked_back(twice)
    done(twice, *REST)
    assert plan(twice.state, twice.now).holds["web"].reason == HOLD
    before = len(twice.events)
    twice.apply(Hinted(service="web", paths=None))
    done(twice, TaskKind.SCAN)
    assert twice.events[before:] == []
    assert web_tasks(twice) == []
    # The same bytes are a save as well.
    twice.apply(Hinted(service="web", paths=frozenset({ROOT / "app.py"})))
    done(twice, TaskKind.SCAN, *FIRST[1:])
    assert last(twice)[0].trigger.kind == "files"
    assert twice.cluster["web"] == "content-1"
    assert web(twice).back == ""
    assert "web" not in plan(twice.state, twice.now).holds


def test_a_save_of_what_serves_since_ends_the_hold_too(twice: World) -> None:
    asked_back(twice)
    done(twice, *REST)
    saved(0, twice)
    _, ended = last(twice)
    assert ended is not None
    assert ended.outcome is Outcome.UNCHANGED
    assert web(twice).back == ""


def test_once_more_goes_one_further_and_then_there_is_nothing(twice: World) -> None:
    saved(2, twice)
    done(twice, *FIRST[1:])
    for content in (1, 0):
        asked_back(twice)
        done(twice, *REST)
        assert twice.cluster["web"] == f"content-{content}"
    asked_back(twice, 9)
    _, ended = last(twice)
    assert ended is not None
    assert ended.outcome is Outcome.FAILED
    assert twice.events[-2].code == Code.USAGE_NO_ROLLBACK  # type: ignore[attr-defined]
    assert twice.cluster["web"] == "content-0"
    # What holds, holds on.
    assert web(twice).failure is None
    assert web(twice).back == HOLD


@pytest.mark.parametrize("until_now", [(), REST[:1]], ids=["on its way", "broken"])
def test_what_is_broken_or_on_its_way_makes_room_for_the_last_that_was_ready(
    twice: World, until_now: tuple[TaskKind, ...]
) -> None:
    saved(2, twice)
    done(twice, TaskKind.BUILD, *until_now)
    if until_now:
        follow = next(t for t in twice.running if (t.service, t.kind) == ("web", TaskKind.FOLLOW))
        twice.end(follow, failure("pod/crash-loop"))
    else:
        # The patch is out, maybe.
        assert web_tasks(twice) == [TaskKind.DEPLOY]
    asked_back(twice)
    for task in list(twice.cancelled & twice.running.keys()):
        twice.succeed(task)
    done(twice, *REST)
    assert twice.cluster["web"] == "content-1"
    assert web(twice).unserved is None


def test_a_build_is_broken_off_and_a_failed_one_goes_one_back(twice: World) -> None:
    saved(2, twice)
    asked_back(twice)
    assert last(twice)[0].trigger.to == 0
    builds = [t for t in twice.running if (t.service, t.kind) == ("web", TaskKind.BUILD)]
    assert set(builds) <= twice.cancelled


def test_a_save_meanwhile_takes_over(twice: World) -> None:
    asked_back(twice)
    number = last(twice)[0].iter
    saved(3, twice)
    (ended,) = [e for e in twice.events if isinstance(e, IterationFinished) and e.iter == number]
    assert ended.outcome is Outcome.CANCELLED
    assert web(twice).back == ""
    for task in list(twice.cancelled & twice.running.keys()):
        twice.succeed(task)
    done(twice, *FIRST[1:])
    assert twice.cluster["web"] == "content-3"


@pytest.mark.parametrize("proves", [True, False])
def test_a_source_that_was_lost_before_a_reload_is_not_passed_over_for_a_rollback(
    twice: World, proves: bool
) -> None:
    """An edit of devloop.yaml has all looked at, which is an audit only where nobody saved."""
    twice.lose_the_source("web")
    twice.devloop_yaml_has_other_settings("web", proves)
    asked_back(twice)
    done(twice, TaskKind.SCAN)
    assert web(twice).failure is not None
    assert web(twice).back == ""


def test_asked_for_twice_at_once_it_is_one(twice: World) -> None:
    asked_back(twice, 1)
    asked_back(twice, 2)
    taken = [e for e in twice.events if isinstance(e, TriggerTaken)]
    assert len({e.iter for e in taken}) == 1
    done(twice, *REST)
    assert twice.cluster["web"] == "content-0"


def test_one_that_fails_is_not_undone_and_holds_all_the_same(twice: World) -> None:
    asked_back(twice)
    done(twice, TaskKind.DEPLOY)
    follow = next(t for t in twice.running if (t.service, t.kind) == ("web", TaskKind.FOLLOW))
    twice.end(follow, failure("pod/crash-loop"))
    assert web_tasks(twice) == []
    assert web(twice).back == HOLD
    saved(5, twice)
    done(twice, *FIRST[1:])
    assert twice.cluster["web"] == "content-5"


def test_a_change_that_was_synced_is_gone_back_from() -> None:
    world = advanced(*FIRST, syncs=True)
    saved(1, world)
    done(world, TaskKind.SYNC)
    assert world.cluster["web"] == "content-1"
    asked_back(world)
    assert web(world).behind is None
    done(world, *REST)
    assert world.cluster["web"] == "content-0"
    # And the next one is synced again.
    saved(2, world)
    assert web_tasks(world) == [TaskKind.SYNC]


def test_a_change_that_was_synced_can_be_gone_back_to_once_an_image_holds_it() -> None:
    world = advanced(*FIRST, syncs=True)
    saved(1, world)
    done(world, TaskKind.SYNC)
    world.wait(2.0)
    done(world, TaskKind.CATCH_UP)
    saved(2, world)
    done(world, TaskKind.SYNC)
    asked_back(world)
    done(world, *REST)
    assert world.cluster["web"] == "content-1"


def good(*names: str) -> tuple[GoodImage, ...]:
    found = [GoodImage(image=image_of(n), fingerprint=Fingerprint(n, "")) for n in names]
    return tuple(found)


def test_each_image_is_there_once_and_not_for_ever() -> None:
    line: tuple[GoodImage, ...] = ()
    for name in ("a", "b", "a", *map(str, range(20))):
        line = with_good(line, *good(name))
    assert [each.image.tag for each in line] == [str(n) for n in range(20)][-KEPT:]
    assert cut_off(good("a", "b", "c"), image_of("b")) == good("a", "b")
    assert cut_off(good("a"), image_of("z")) == good("a")


# --- a real loop ----------------------------------------------------------------------------------


class Kept:
    """As what later sessions read."""

    def __init__(self, *names: str) -> None:
        self.line = good(*names)
        self.back: list[str] = []

    def known(self) -> tuple[GoodImage, ...]:
        return self.line

    def add(self, image: ImageRef, fingerprint: Fingerprint) -> None:
        self.line = with_good(self.line, GoodImage(image=image, fingerprint=fingerprint))

    def went_back(self, image: ImageRef) -> None:
        self.back.append(image.tag)


class Session:
    def __init__(self, *known: str, syncs: bool = False) -> None:
        self.ports, self.hints, self.kept = Ports(), ScriptedHints(), Kept(*known)
        self.gone: set[str] = set()
        engine = self.ports.engine("dev", self.hints, syncs=syncs)
        ports = replace(engine.services["web"], exists=self._exists, good=self.kept)
        self.running = Running(self._made(engine, ports))
        self.ended(1)

    def _made(self, engine: Engine, ports: object) -> Engine:
        return replace(engine, services={"web": ports})  # type: ignore[dict-item]

    def _exists(self, image: ImageRef, _cancel: Cancel) -> bool:
        return image.tag not in self.gone

    def ended(self, number: int) -> None:
        until(lambda: len(self.ports.outcomes()) >= number)

    def save(self, content: str) -> None:
        number = len(self.ports.outcomes())
        self.ports.content = content
        self.hints.give(frozenset({PROJECT / "app.py"}))
        self.ended(number + 1)

    def back(self) -> str:
        number = len(self.ports.outcomes())
        _, way = self.running.engine.way_back()
        self.running.engine.post(AskedBack(service="web"))
        self.ended(number + 1)
        return way.name


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session()
    yield made
    made.running.stop()


def test_it_is_deployed_without_a_build_and_said_to_be_held(session: Session) -> None:
    session.save("b")
    assert session.back() == "#0"
    until(lambda: any(isinstance(e, HoldStarted) for e in session.ports.events))
    assert session.ports.built == ["a", "b"]
    assert session.ports.deployed == ["a", "b", "a"]
    assert session.ports.untouched == [None]
    hold = next(e for e in session.ports.events if isinstance(e, HoldStarted))
    assert (hold.service, hold.iter, hold.reason) == ("web", None, HOLD)
    assert session.kept.back == ["a"]


def test_an_image_that_the_registry_has_lost_is_passed_over(session: Session) -> None:
    for content in "bc":
        session.save(content)
    session.gone = {"b"}
    session.back()
    assert session.ports.deployed[-1] == "a"
    told = [e for e in session.ports.events if isinstance(e, DiagnosticRaised)]
    assert [(e.code, e.severity) for e in told] == [(Code.REGISTRY_IMAGE_GONE, "warning")]
    assert "#1" in told[0].message


def test_where_all_are_lost_it_is_said_what_to_do(session: Session) -> None:
    session.save("b")
    session.gone = {"a"}
    session.back()
    assert session.ports.deployed == ["a", "b"]
    assert session.ports.outcomes()[-1] is Outcome.FAILED
    (told,) = [e for e in session.ports.events if isinstance(e, DiagnosticRaised)]
    assert told.code == Code.REGISTRY_IMAGE_GONE
    assert "version control" in told.suggestions[0]


def test_there_is_nothing_before_the_first(session: Session) -> None:
    with pytest.raises(DevloopError) as caught:
        session.running.engine.way_back()
    assert caught.value.code is Code.USAGE_NO_ROLLBACK
    assert caught.value.exit_status == 2


def test_images_of_an_earlier_session_are_gone_back_to() -> None:
    session = Session("x", "y")
    try:
        assert session.back() == image_of("y").short
        assert session.ports.deployed == ["a", "y"]
        until(lambda: any(isinstance(e, HoldStarted) for e in session.ports.events))
    finally:
        session.running.stop()


def test_pods_that_were_written_into_are_told_from_those_that_were_not() -> None:
    session = Session(syncs=True)
    try:
        session.save("b")
        session.back()
        assert session.ports.deployed[-1] == "a"
        assert session.ports.untouched == [frozenset({"with a"})]
        # What is in the image is known: no rebuild makes it so.
        assert session.ports.synced == ["b"]
    finally:
        session.running.stop()
