"""How long a rollout in place waits until the controllers have its ReplicaSet."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.replace import live_objects
from devloop.cluster.replace.live_objects import LiveObjects
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRITTEN = {"metadata": {"name": "web-1", "uid": "u", "generation": 3}}


class Slow:
    """The view of ReplicaSets: each look but the last finds that the controllers are behind, and
    with `news` there is soon something to look at again."""

    def __init__(self, looks: int, *, news: bool) -> None:
        self.looks = looks
        self._news = news
        self._changed: Callable[[object], object] = lambda _: None

    @contextlib.contextmanager
    def subscribe(self, changed: Callable[[object], object]) -> Iterator[None]:
        self._changed = changed
        yield

    def get(self, _name: str) -> dict[str, Any]:
        self.looks -= 1
        if self._news:
            self._changed(None)
        return {**WRITTEN, "status": {"observedGeneration": 2 if self.looks else 3}}


@pytest.mark.parametrize(("ends", "left"), [(False, 0), (True, 3)])
def test_they_are_waited_for_longer_than_by_who_is_at_the_end(
    monkeypatch: pytest.MonkeyPatch, *, ends: bool, left: int
) -> None:
    monkeypatch.setattr(live_objects, "_HURRIED_SECONDS", -1.0)
    sets, cancel = Slow(5, news=not ends), Cancel()
    if ends:
        cancel.set()
    view = SimpleNamespace(workload=lambda _: None, view=lambda *_: sets)
    objects = LiveObjects(cast("Any", view), WorkloadRef("deployment", "web", "dev"))
    objects.wait_observed(WRITTEN, cancel)
    assert sets.looks == left
