"""When what stands in the cluster may be gone on with, and when not."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api.view import ClusterView
from devloop.engine.reporters import SilentReporter
from devloop.model import Standing
from tests.support.cluster_objects import running
from tests.support.in_place_stage import PODS, SET, WEB, InPlaceStage, image
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from tests.support.fake_api import FakeApi

KNOWN = {image(letter).digest: image(letter) for letter in "ab"}
NAMES = ("web-new-x", "web-new-y", "web-new-z")


@pytest.fixture
def stage(api: FakeApi, connection: Connection, tmp_path: Path) -> Iterator[InPlaceStage]:
    view = ClusterView(connection)
    root = tmp_path / "project"
    root.mkdir()
    made = InPlaceStage(api, connection, view, root)
    yield made
    made.deployments.close()
    view.close()


def stands(stage: InPlaceStage) -> Standing | str:
    return stage.deployer.standing(KNOWN, Cancel())


def soon(stage: InPlaceStage, wanted: Standing | str) -> None:
    """The watch is behind."""
    with contextlib.suppress(AssertionError):
        until(lambda: stands(stage) == wanted, 5)
    assert stands(stage) == wanted


def test_all_pods_are_there_and_ready(stage: InPlaceStage) -> None:
    assert stands(stage) == Standing(image=image("a"), pods=NAMES)
    assert {call.method for call in stage.api.calls} == {"GET"}
    deployed = stage.deployer.deploy(image("a"), SilentReporter(), Cancel())
    assert not deployed.changed


def test_pods_may_have_an_older_image(stage: InPlaceStage) -> None:
    assert stage.deployer.adopt(image("b"), Cancel()) is None
    edit(stage.api, WEB, lambda t: t.update(status={"observedGeneration": 99}))
    soon(stage, Standing(image=image("b"), pods=NAMES))


def edit(api: FakeApi, path: str, change: Callable[[dict[str, Any]], object]) -> None:
    thing = copy.deepcopy(api.objects[path])
    change(thing)
    api.put(path, thing)


@pytest.mark.parametrize(
    ("path", "change", "why"),
    [
        (WEB, lambda t: t["spec"].update(paused=True), "it is paused"),
        (WEB, lambda t: t["spec"].update(replicas=4), "a rollout is under way"),
        (WEB, lambda t: t["status"].update(observedGeneration=0), "a rollout is under way"),
        (
            WEB,
            lambda t: t["spec"]["template"]["spec"]["containers"][0].update(image="web:1"),
            "deployment/web has an image that is not of an earlier session",
        ),
        (
            WEB,
            lambda t: t["spec"]["template"]["spec"]["containers"][0].update(
                image=image("b").pinned
            ),
            "a rollout is under way",
        ),
        (SET, lambda t: t["metadata"].update(annotations={}), "a rollout is under way"),
        (
            f"{PODS}/web-new-y",
            lambda t: t["status"]["conditions"].clear(),
            "pod web-new-y is not ready",
        ),
        (
            f"{PODS}/web-new-z",
            lambda t: t["spec"]["containers"][0].update(image=image("b").pinned),
            "pod web-new-z is about to start with another image",
        ),
    ],
)
def test_something_is_on_its_way(
    stage: InPlaceStage, path: str, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    edit(stage.api, path, change)
    soon(stage, why)


def test_there_is_nothing(stage: InPlaceStage) -> None:
    until(lambda: len(stage.api.watchers) == 3)  # of what is gone before, it would not be told
    stage.api.remove(WEB)
    soon(stage, "")


def test_pods_that_are_recreated_are_gone_at_the_end(stage: InPlaceStage) -> None:
    deployed = stage.deployer.deploy(image("a"), SilentReporter(), Cancel())
    stage.deployer.recreate(deployed, ("web-new-x", "web-other"), Cancel())
    assert f"{PODS}/web-new-x" not in stage.api.objects
    assert f"{PODS}/web-new-y" in stage.api.objects
    stage.pod("x", running(image("a").pinned))
    soon(stage, Standing(image=image("a"), pods=NAMES))
