"""Hooks of a chart: which run when, and in which order."""

from __future__ import annotations

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.chart_hooks import hooks_for
from devloop.cluster.deploy.objects import PlannedHook, PlannedObject
from devloop.errors import Location
from devloop.model import Hook


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
