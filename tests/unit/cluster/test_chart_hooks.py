"""Hooks of a chart: which run when, and in which order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.chart_hooks import ChartHooks, hooks_for
from devloop.cluster.deploy.objects import PlannedHook, PlannedObject
from devloop.cluster.replace.strategy import Written
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError, Location
from devloop.model import Hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.deploy.apply import Applier


def hook(name: str, events: str, *, weight: int = 0, kind: str = "Job") -> PlannedHook:
    resource = Resource("batch/v1", kind, f"{kind.lower()}s")
    thing = {"kind": kind, "metadata": {"name": name}}
    planned = PlannedObject(
        object=thing, resource=resource, namespace="shop", location=Location("a.yaml", 1, 1)
    )
    return PlannedHook(planned=planned, hook=Hook(events=frozenset(events.split()), weight=weight))


HOOKS = (
    hook("seed", "post-install", weight=5),
    hook("migrate", "pre-install pre-upgrade", weight=1),
    hook("check", "pre-install", weight=-1),
    hook("b", "pre-install"),
    hook("settings", "pre-install", kind="ConfigMap"),
    hook("a", "pre-install"),
    hook("smoke", "test"),
)


def names(when: str, *, first: bool) -> list[str]:
    found = hooks_for(HOOKS, "before" if when == "before" else "after", first=first)
    return [each.planned.name for each in found]


def test_hooks_run_by_weight_then_kind_then_name() -> None:
    assert names("before", first=True) == ["check", "settings", "a", "b", "migrate"]


def test_an_upgrade_has_hooks_of_its_own() -> None:
    assert names("before", first=False) == ["migrate"]
    assert names("after", first=False) == ["smoke"]


def test_tests_run_after_the_rest() -> None:
    assert names("after", first=True) == ["smoke", "seed"]


class Cluster:
    """In place of an `Applier` and its connection: each look at a hook sees the next of `states`,
    the last one again and again."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.there: dict[str, str] = {}
        self.done: list[str] = []
        self.connection = self

    def apply(self, planned: PlannedObject, _notify: object, _cancel: Cancel) -> Written:
        self.done.append(f"create {planned.name}")
        self.there[planned.path] = f"uid-{len(self.done)}"
        return Written(object=self.find(planned.path) or {})

    def forget(self, _path: str) -> None:
        pass

    def find(self, path: str) -> dict[str, Any] | None:
        if path not in self.there:
            return None
        state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        conditions = [{"type": state, "status": "True", "message": "BackoffLimitExceeded"}]
        return {
            "metadata": {"uid": self.there[path]},
            "status": {"conditions": conditions if state != "Running" else []},
        }

    def request(self, method: str, path: str, _body: object) -> None:
        self.done.append(f"{method.lower()} {path.rpartition('/')[2]}")
        del self.there[path]

    def stream(self, *_: object, **__: object) -> Any:
        raise AssertionError


def run(cluster: Cluster, *hooks: PlannedHook, now: Iterator[int] | None = None) -> None:
    clock = now or itertools.repeat(0)
    made = ChartHooks(
        applier=cast("Applier", cluster), timeout=60, clock=lambda: next(clock), poll=0
    )
    made.run(hooks, SilentReporter(), Cancel())


def test_a_hook_is_waited_for_and_made_anew_the_next_time() -> None:
    cluster = Cluster("Running", "Running", "Complete")
    run(cluster, HOOKS[0])
    run(cluster, HOOKS[0])
    assert cluster.done == ["create seed", "delete seed", "create seed"]


def test_a_hook_that_is_to_go_once_it_succeeded_goes_after_all_of_them() -> None:
    cluster = Cluster("Complete")
    policy = frozenset({"hook-succeeded"})
    going = replace(HOOKS[0], hook=replace(HOOKS[0].hook, delete=policy))
    run(cluster, going, HOOKS[1])
    assert cluster.done == ["create seed", "create migrate", "delete seed"]


def test_a_hook_that_fails_ends_the_deploy_at_its_template() -> None:
    with pytest.raises(DevloopError) as raised:
        run(Cluster("Failed"), HOOKS[0], HOOKS[1])
    found = raised.value.diagnosis
    assert (found.code, found.cause) == (Code.POD_RUN_FAILED, "BackoffLimitExceeded")
    assert str(found.location) == "a.yaml:1:1"


def test_a_hook_that_does_not_end_is_not_waited_for_for_ever() -> None:
    with pytest.raises(DevloopError) as raised:
        run(Cluster("Running"), HOOKS[0], now=itertools.count(step=50))
    assert raised.value.code is Code.POD_DEADLINE
