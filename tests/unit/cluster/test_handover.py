"""When `devloop run` may end: once nobody is sent to an old pod any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.rollout.handover import PodsReplaced, wait_for_handover
from devloop.errors import Code, DevloopError
from devloop.model import WorkloadRef
from tests.support.cluster_objects import pod, running

if TYPE_CHECKING:
    from collections.abc import Callable

WEB = WorkloadRef("deployment", "web", "dev")


class World:
    """A cluster in which time passes while somebody waits. `then` maps a moment to what happens.

    `pods` are there, `slices` maps those that the EndpointSlices name to whether they are ready."""

    def __init__(self, pods: set[str], slices: dict[str, bool]) -> None:
        self.now = 0.0
        self.pods, self.slices = pods, slices
        self.then: dict[float, Callable[[], object]] = {}
        self.told: list[tuple[str, str]] = []
        self.error: DevloopError | None = None
        self.stopped = False

    # --- as a connection, a view and a switch ---------------------------------------------------

    def request(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        assert path == "/apis/discovery.k8s.io/v1/namespaces/dev/endpointslices"
        self.now = round(self.now + 0.001, 3)
        if self.error is not None:
            raise self.error
        endpoints = [
            {"targetRef": {"name": name}, "conditions": {"ready": ready, "serving": True}}
            for name, ready in self.slices.items()
        ]
        return {"items": [{"endpoints": endpoints}]}

    def view(self, kind: str, namespace: str) -> World:
        assert (kind, namespace) == ("pods", "dev")
        return self

    def items(self) -> list[Any]:
        return [pod(running(), name=name) for name in sorted(self.pods)]

    def wait(self, seconds: float) -> bool:
        self.now = round(self.now + seconds, 3)
        for moment in [m for m in self.then if m <= self.now]:
            self.then.pop(moment)()
        return self.stopped

    def seconds(self) -> float:
        """How long the wait takes."""
        replaced = PodsReplaced(service="web", workloads=frozenset({WEB}), pods=frozenset({"new"}))
        world: Any = self
        wait_for_handover(
            world,
            world,
            [replaced],
            lambda service, reason: self.told.append((service, reason)),
            world,
            clock=lambda: self.now,
        )
        return round(self.now, 1)


def test_the_end_waits_until_the_old_pod_is_gone_and_the_proxies_know() -> None:
    world = World({"old", "new"}, {"old": True, "new": True})
    world.then[0.2] = lambda: world.slices.update(old=False)
    world.then[0.5] = lambda: world.slices.pop("old")
    world.then[0.6] = lambda: world.pods.discard("old")
    assert world.seconds() == 1.6
    assert world.told == [("web", "waits until no Service leads to the old pods any more: old")]


def test_an_old_pod_that_still_answers_holds_the_end_up() -> None:
    world = World({"old", "new"}, {"old": False, "new": True})
    world.then[0.3] = lambda: world.pods.discard("old")
    world.then[0.7] = lambda: world.slices.pop("old")
    assert world.seconds() == 1.7


def test_the_end_comes_after_two_seconds_whatever_is_left() -> None:
    world = World({"old", "new"}, {"old": True, "new": True})
    assert world.seconds() == 2.0


@pytest.mark.parametrize(
    ("pods", "slices"),
    [
        ({"new"}, {"new": True}),  # nothing was replaced
        ({"old", "new"}, {"other": True}),  # no Service
        ({"old", "new"}, {}),
    ],
)
def test_there_is_no_wait_without_an_old_pod_or_without_a_service(
    pods: set[str], slices: dict[str, bool]
) -> None:
    world = World(pods, slices)
    assert world.seconds() == 0.0
    assert world.told == []


def test_who_may_not_see_endpoint_slices_does_not_wait() -> None:
    world = World({"old", "new"}, {"old": True})
    world.error = DevloopError.of(Code.CLUSTER_FORBIDDEN, "no")
    assert world.seconds() == 0.0


def test_a_stop_ends_the_wait() -> None:
    world = World({"old", "new"}, {"old": True})
    world.then[0.3] = lambda: setattr(world, "stopped", True)
    assert world.seconds() == 0.3
