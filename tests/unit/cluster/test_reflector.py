"""The reflector's contract, after client-go's tools/cache/reflector_test.go, on scripted feeds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.api_errors import connection_error, status_error
from devloop.cluster.api.reflector import Backoff, Reflector, WatchEvent
from devloop.cluster.api.view import View
from devloop.errors import Code, DevloopError
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def refused(code: int, reason: str = "", message: str = "") -> DevloopError:
    body = {"code": code, "reason": reason, "message": message}
    return status_error(code, body, method="GET", path="/api/v1/pods", server="s")


EXPIRED = refused(410, "Expired", "too old resource version")
TOO_LARGE = refused(504, "Timeout", "Too large resource version: 20, current: 10")
BUSY = refused(429, "TooManyRequests")
INTERNAL = refused(500, "InternalError")
DOWN = connection_error(ConnectionRefusedError(), "s")


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def page(version: int, *pods: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "PodList", "metadata": {"resourceVersion": str(version)}, "items": list(pods)}


def event(kind: str, thing: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": thing}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Script:
    """A feed that plays its answers in order and stops the reflector after the last."""

    def __init__(self, *answers: Any, clock: Clock | None = None) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str]] = []
        self.reflector: Reflector | None = None
        self.clock = clock

    def _next(self, call: str, version: str) -> Any:
        self.calls.append((call, version))
        if not self.answers:
            assert self.reflector is not None
            self.reflector.stop()
            raise Cancelled
        expected, answer = self.answers.pop(0)
        assert expected == call, f"{call}({version}) but the script wants {expected}"
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list(self, resource_version: str) -> Mapping[str, Any]:
        answer = self._next("list", resource_version)
        assert isinstance(answer, dict)
        return answer

    def watch(self, resource_version: str, timeout_seconds: int) -> Iterator[Mapping[str, Any]]:
        assert 300 <= timeout_seconds <= 600
        answer = self._next("watch", resource_version)
        return self._events(answer)

    def _events(self, answer: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
        for entry in answer:
            if self.clock is not None:
                self.clock.now += 10
            if isinstance(entry, Exception):
                raise entry
            yield entry

    def shut(self) -> None:
        pass


class Pauses(Backoff):
    """Counts the pauses and makes them none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def next(self) -> float:
        self.count += 1
        return 0.0


def run(*answers: Any) -> tuple[list[tuple[str, str]], list[WatchEvent], int]:
    """Play the answers; returns the calls made, what was told, and how often it backed off."""
    script = Script(*answers)
    told: list[WatchEvent] = []
    pauses = Pauses()
    script.reflector = Reflector(script, told.append, backoff=pauses)
    script.reflector.run()
    return script.calls, told, pauses.count


def types(told: list[WatchEvent]) -> str:
    return " ".join(c.type for c in told)


def test_lists_then_watches_from_that_version() -> None:
    calls, told, pauses = run(
        ("list", page(5, pod("a", 4))),
        ("watch", [event("ADDED", pod("b", 6)), event("DELETED", pod("a", 7))]),
    )
    assert calls == [("list", ""), ("watch", "5"), ("watch", "7")]
    assert types(told) == "SYNC LIVE PUT DELETE"
    assert pauses == 0


def test_a_normal_end_resumes_without_list_or_pause() -> None:
    calls, _, pauses = run(
        ("list", page(5)),
        ("watch", [event("ADDED", pod("a", 6))]),
        ("watch", [event("MODIFIED", pod("a", 9))]),
    )
    assert calls == [("list", ""), ("watch", "5"), ("watch", "6"), ("watch", "9")]
    assert pauses == 0


def test_a_very_short_watch_backs_off() -> None:
    calls, _, pauses = run(("list", page(5)), ("watch", []))
    assert calls == [("list", ""), ("watch", "5"), ("watch", "5")]
    assert pauses == 1


def test_bookmarks_move_the_version() -> None:
    calls, told, _ = run(("list", page(5)), ("watch", [event("BOOKMARK", pod("", 40))]))
    assert calls[-1] == ("watch", "40")
    assert types(told) == "SYNC LIVE"


def test_full_list_if_expired() -> None:
    """An expired watch lists at the last version seen; if that is expired too, the newest."""
    calls, told, _ = run(
        ("list", page(5)),
        ("watch", EXPIRED),
        ("list", EXPIRED),
        ("list", page(20)),
    )
    assert calls == [("list", ""), ("watch", "5"), ("list", "5"), ("list", ""), ("watch", "20")]
    assert types(told) == "SYNC LOST SYNC"


def test_expired_inside_the_stream() -> None:
    gone = event("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})
    calls, told, _ = run(
        ("list", page(5)),
        ("watch", [event("ADDED", pod("a", 6)), gone]),
        ("list", page(20, pod("b", 19))),
    )
    assert calls == [("list", ""), ("watch", "5"), ("list", "6"), ("watch", "20")]
    assert types(told) == "SYNC LIVE PUT LOST SYNC"


def test_full_list_if_too_large() -> None:
    calls, _, _ = run(
        ("list", page(20)), ("watch", TOO_LARGE), ("list", TOO_LARGE), ("list", page(10))
    )
    assert calls == [("list", ""), ("watch", "20"), ("list", "20"), ("list", ""), ("watch", "10")]


def test_too_many_requests_backs_off_and_does_not_list() -> None:
    calls, _, pauses = run(("list", page(5)), ("watch", BUSY), ("watch", BUSY))
    assert calls == [("list", ""), ("watch", "5"), ("watch", "5"), ("watch", "5")]
    assert pauses == 2


def test_internal_errors_are_retried_without_a_list() -> None:
    inside = event("ERROR", {"code": 500, "reason": "InternalError"})
    calls, _, pauses = run(("list", page(5)), ("watch", INTERNAL), ("watch", [inside]))
    assert [c for c, _ in calls] == ["list", "watch", "watch", "watch"]
    assert pauses == 2


def test_refused_connection_backs_off_and_resumes() -> None:
    calls, told, pauses = run(
        ("list", DOWN), ("list", DOWN), ("list", page(5)), ("watch", DOWN), ("watch", [])
    )
    assert [c for c, _ in calls] == ["list", "list", "list", "watch", "watch", "watch"]
    assert types(told) == "LOST LOST SYNC LOST LIVE"
    assert pauses == 4


def test_forbidden_starts_over() -> None:
    calls, _, _ = run(("list", page(5)), ("watch", refused(403, "Forbidden")), ("list", page(6)))
    assert calls == [("list", ""), ("watch", "5"), ("list", "5"), ("watch", "6")]


def test_odd_events_are_passed_over() -> None:
    calls, told, _ = run(
        ("list", page(5)),
        ("watch", [{"type": "ADDED"}, {"type": "WAT", "object": pod("a", 9)}, {}]),
    )
    assert types(told) == "SYNC LIVE"
    assert calls[-1] == ("watch", "9")


def test_items_of_a_list_get_their_kind() -> None:
    _, told, _ = run(("list", page(5, pod("a", 1))))
    assert told[0].items[0]["kind"] == "Pod"


def test_backoff_grows_to_its_cap_and_resets_after_health() -> None:
    clock = Clock()
    backoff = Backoff(clock=clock, chance=lambda: 0.0)
    assert [round(backoff.next(), 1) for _ in range(7)] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    clock.now += 121
    assert backoff.next() == 0.8
    assert Backoff(clock=clock, chance=lambda: 1.0).next() == 1.6


def test_stop_ends_a_pause_at_once() -> None:
    script = Script(("list", DOWN))
    lost = threading.Event()
    reflector = Reflector(script, lambda _: lost.set(), backoff=Backoff(base=60))
    reflector.start()
    assert lost.wait(30)
    reflector.close()
    assert not any(t.name == "devloop-watch" for t in threading.enumerate())


class Undecodable(dict[str, Any]):
    def get(self, *_: object) -> Any:
        raise TypeError("a decoder's bug")


@pytest.mark.parametrize("broken", [Undecodable(), TypeError("a feed's bug")])
def test_a_watch_that_ends_by_a_bug_says_so_and_its_view_is_not_believed_any_more(
    broken: object,
) -> None:
    bugs: list[BaseException] = []
    script = Script(("list", page(1, pod("a", 1))), ("watch", [broken]))
    view = View(script, name="test", on_bug=bugs.append)
    events: list[WatchEvent] = []
    view.add(events.append)
    view.start()
    until(lambda: bugs)
    assert [type(bug) for bug in bugs] == [TypeError]
    assert not view.synced.is_set()
    assert view.error is not None
    assert view.error.code is Code.INTERNAL_BUG
    assert events[-1].error is view.error
    with pytest.raises(DevloopError) as caught:
        view.wait_synced(Cancel())
    assert caught.value is view.error
    view.close()


def test_a_listener_that_raises_does_not_end_the_watch() -> None:
    def bad(_: WatchEvent) -> None:
        raise ValueError("a listener's bug")

    bugs: list[BaseException] = []
    answers = [event("ADDED", pod("b", 2)), event("ADDED", pod("c", 3))]
    script = Script(("list", page(1)), ("watch", answers))
    view = View(script, name="test", on_bug=bugs.append)
    script.reflector = view._reflector
    view.add(bad)
    view.start()
    until(lambda: view.get("c"))
    assert view.synced.is_set()
    view.close()
    assert {type(bug) for bug in bugs} == {ValueError}
