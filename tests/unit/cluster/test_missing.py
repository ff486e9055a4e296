"""What a deploy missed, and when it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.deploy import missing
from devloop.cluster.deploy.missing import MissingObject, await_object
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.cluster.api.connection import Connection
    from tests.support.fake_api import FakeApi

PATH = "/api/v1/namespaces/late"
MISSING = MissingObject(
    Diagnosis(code=Code.CLUSTER_NOT_FOUND, message="it does not exist"),
    path=PATH,
    what="the namespace 'late'",
)


class Pauses(Cancel):
    """Notes the pauses instead of making them, and does `then` in the last of them."""

    def __init__(self, count: int, then: Callable[[], object]) -> None:
        super().__init__()
        self.noted: list[float] = []
        self._count = count
        self._then = then

    def wait(self, seconds: float | None = None) -> bool:
        if seconds is not None and seconds >= missing._FIRST:
            self.noted.append(seconds)
            if len(self.noted) == self._count:
                self._then()
        return self.is_set()


def _namespace(phase: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "late"},
        "status": {"phase": phase},
    }


def test_it_is_asked_for_less_and_less_often_until_it_is_there(
    api: FakeApi, connection: Connection
) -> None:
    api.put(PATH, _namespace("Terminating"))
    cancel = Pauses(5, lambda: api.put(PATH, _namespace("Active")))
    assert await_object(connection, MISSING, cancel) == "the namespace 'late'"
    assert cancel.noted == [2, 4, 8, 10, 10]


def test_a_cancelled_wait_ends(connection: Connection) -> None:
    cancel = Pauses(2, lambda: cancel.set())  # noqa: PLW0108 - it is not there yet
    with pytest.raises(Cancelled):
        await_object(connection, MISSING, cancel)
