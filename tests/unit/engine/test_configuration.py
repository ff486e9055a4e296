"""Services that get other settings, come and go while the engine runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.engine.facts import Paused, Reconfigured, Removed
from devloop.engine.tasks import ServicePorts
from devloop.events import IterationFinished, IterationStarted
from devloop.model import Outcome
from tests.support.waiting import until
from tests.unit.engine.test_loop import PROJECT, Running, ScriptedHints, World

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel


def settings(name: str = "web", *keys: str, proves: bool = True) -> Reconfigured:
    return Reconfigured(service=name, keys=keys, proves=proves, roll_back=False, syncs=False)


def ports(world: World) -> ServicePorts:
    return ServicePorts(source=world, builder=world, deployer=world)


def begun(world: World) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (e.service, e.trigger.kind, e.trigger.paths)
        for e in world.events
        if isinstance(e, IterationStarted)
    ]


def ended(world: World, name: str = "web") -> list[Outcome]:
    return [
        e.outcome for e in world.events if isinstance(e, IterationFinished) and e.service == name
    ]


def test_other_settings_are_one_iteration_of_that_service_with_the_keys_named() -> None:
    world, other = World(), World()
    running = Running(world.engine("dev", ScriptedHints()))
    until(lambda: len(ended(world)) == 1)
    other.content = "b"
    released = running.engine.take_over(settings("web", "services.web.image"), ports(other))
    assert released.wait(30)
    until(lambda: len(ended(world)) == 2)
    running.stop()
    assert begun(world)[1:] == [("web", "config", ("services.web.image",))]
    assert (world.built, other.built) == (["a"], ["b"])


def test_settings_that_prove_nothing_are_used_from_the_next_save_on() -> None:
    world, other, hints = World(), World(), ScriptedHints()
    running = Running(world.engine("dev", hints))
    until(lambda: len(ended(world)) == 1)
    running.engine.take_over(settings(proves=False), ports(other)).wait(30)
    until(lambda: other.scanned == "a")
    other.content = "b"
    hints.give(frozenset({PROJECT / "app.py"}))
    until(lambda: len(ended(world)) == 2)
    running.stop()
    assert [kind for _, kind, _ in begun(world)] == ["start", "files"]
    assert other.built == ["b"]


def test_a_build_with_the_settings_of_before_is_cancelled_and_then_nobody_has_them() -> None:
    world, other = World(), World()
    going, may_end = threading.Event(), threading.Event()

    def build(_content: str, cancel: Cancel) -> None:
        going.set()
        with cancel.closing(may_end.set):
            may_end.wait(30)
        raise Cancelled

    world.on_build = build
    running = Running(world.engine("dev", ScriptedHints()))
    assert going.wait(30)
    assert running.engine.take_over(settings(), ports(other)).wait(30)
    until(lambda: ended(world) == [Outcome.CANCELLED, Outcome.READY])
    running.stop()
    assert (world.deployed, other.deployed) == ([], ["a"])


def test_a_service_that_comes_is_started_and_one_that_goes_is_let_alone() -> None:
    world, api, hints = World(), World(), ScriptedHints()
    running = Running(world.engine("dev", hints))
    engine = running.engine
    until(lambda: len(ended(world)) == 1)
    engine.take_over(settings("api"), ports(api))
    until(lambda: ended(world, "api") == [Outcome.READY])
    assert set(engine.services) == {"web", "api"}
    assert engine.take_over(Removed("api"), None).wait(30)
    until(lambda: set(engine.services) == {"web"})
    api.content = world.content = "b"
    hints.give(frozenset({PROJECT / "app.py"}))
    until(lambda: len(ended(world)) == 2)
    running.stop()
    assert api.built == ["a"]
    assert begun(world)[1] == ("api", "start", ())


def test_one_that_goes_in_the_middle_of_a_write_and_comes_back_waits_for_its_end() -> None:
    world, other = World(), World()
    going, may_end, order = threading.Event(), threading.Event(), list[str]()
    deploy = world.deploy

    def slow(image: object, reporter: object, cancel: Cancel) -> object:
        going.set()
        may_end.wait(30)
        order.append("before")
        raise Cancelled

    def next_(image: object, reporter: object, cancel: Cancel) -> object:
        order.append("after")
        return deploy(image, reporter, cancel)  # type: ignore[arg-type]

    world.deploy = slow  # type: ignore[method-assign, assignment]
    other.deploy = next_  # type: ignore[method-assign, assignment]
    running = Running(world.engine("dev", ScriptedHints()))
    assert going.wait(30)
    left = running.engine.take_over(Removed("web"), None)
    running.engine.take_over(settings(), ports(other))
    until(lambda: other.built == ["a"])
    assert not left.is_set()
    may_end.set()
    until(lambda: ended(world) == [Outcome.CANCELLED, Outcome.READY])
    running.stop()
    assert left.is_set()
    assert order == ["before", "after"]


def test_in_a_pause_the_keys_are_gathered() -> None:
    world = World()
    running = Running(world.engine("dev", ScriptedHints()))
    until(lambda: len(ended(world)) == 1)
    running.engine.post(Paused("a pause"))
    for key in ("a", "b"):
        running.engine.take_over(settings("web", key), ports(World())).wait(30)
    until(lambda: running.engine._state.services["web"].dirty is not None)
    state = running.engine._state.services["web"]
    running.stop()
    assert state.dirty is not None
    assert state.dirty.keys == ("a", "b")
    assert len(begun(world)) == 1
    assert state.iteration is None
