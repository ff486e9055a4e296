"""Each line once: through faults, restarts, deletions, floods and the end."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.errors import Code, DevloopError
from devloop.events import DiagnosticRaised, LogLine
from devloop.logs import LogFollower
from devloop.model import ContainerView, PodView
from tests.unit.logs.kubelet import Kubelet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.events import Event


class Log:
    """Collects what is published."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    @property
    def texts(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, LogLine)]

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 5), self.texts

    def wait_for(self, *texts: str) -> None:
        self.wait(lambda: len(self.texts) >= len(texts))
        assert self.texts == list(texts)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def kubelet() -> Kubelet:
    return Kubelet()


@pytest.fixture
def follower(log: Log, kubelet: Kubelet) -> Iterator[LogFollower]:
    follower = LogFollower(
        kubelet.open_log,
        log,
        patterns={"web": ("*",)},
        since="2026-11-23T13:59:58.5Z",
        backoff=lambda _: 0.01,
        idle=0.0,
    )
    yield follower
    assert follower.close(2) == ()


def at(second: float) -> str:
    return f"2026-11-23T14:31:{second:012.9f}Z"


def test_a_pod_is_shown_from_its_first_line(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    kubelet.write(at(1), b"first")
    follower.pods_changed("web", (kubelet.view(),))
    kubelet.write(at(2), b"second")
    log.wait_for("first", "second")
    assert log.events[0] == LogLine(
        service="web", pod="web-6c9d-x2x7", container="web", text="first", ts=at(1)
    )
    assert kubelet.requests[0].since_time is None
    assert [t.name for t in threading.enumerate() if t.name.startswith("devloop-log")] == [
        "devloop-log-web-x2x7-web"
    ]


def test_an_old_pod_is_shown_from_the_sessions_start(log: Log) -> None:
    kubelet = Kubelet(created="2026-11-23T13:00:00Z")
    follower = LogFollower(
        kubelet.open_log, log, patterns={"web": ("*",)}, since="2026-11-23T14:31:05.5Z"
    )
    kubelet.write(at(1), b"long ago")
    kubelet.write(at(5.2), b"just before")
    kubelet.write(at(5.5), b"now")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("now")
    assert kubelet.requests[0].since_time == "2026-11-23T14:31:05Z"
    assert follower.close() == ()


@pytest.mark.parametrize("fault", [None, OSError("reset"), ValueError("bug")])
@pytest.mark.parametrize("inside", [False, True])
def test_a_broken_stream_goes_on_where_it_broke(
    follower: LogFollower, kubelet: Kubelet, log: Log, fault: Exception | None, inside: bool
) -> None:
    follower.pods_changed("web", (kubelet.view(),))
    expected: list[str] = []
    for n in range(6):
        text = f"line {n // 2}"
        kubelet.write(at(1 + n // 3), text.encode())
        expected.append(text)
        if n % 2:
            kubelet.break_off(fault, inside_a_line=inside)
    log.wait_for(*expected)


def test_a_crash_loses_no_last_words_and_the_next_instance_starts_at_its_start(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    follower.pods_changed("web", (kubelet.view(),))
    kubelet.write(at(1), b"hello")
    log.wait_for("hello")
    kubelet.break_off(OSError("reset"))
    kubelet.write(at(2), b"last words")
    kubelet.restart()
    kubelet.write(at(3), b"hello again")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("hello", "last words", "hello again")


def test_an_instance_that_was_over_before_anyone_looked(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    kubelet.write(at(1), b"NameError", newline=b"")
    kubelet.restart()
    kubelet.write(at(2), b"NameError")
    kubelet.end()
    follower.pods_changed("web", (kubelet.view(waiting=True),))
    assert follower.drain(30)
    assert log.texts == ["NameError", "NameError"]


def test_a_restart_nobody_told_of_is_noticed_by_the_log_itself(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    view = kubelet.view()
    follower.pods_changed("web", (view,))
    kubelet.write(at(1), b"one")
    log.wait_for("one")
    kubelet.break_off(OSError("asleep"))
    kubelet.write(at(2), b"two")
    kubelet.restart()
    kubelet.write(at(30), b"three")
    log.wait_for("one", "two", "three")
    follower.pods_changed("web", (kubelet.view(),))
    kubelet.write(at(31), b"four")
    log.wait_for("one", "two", "three", "four")


def test_rotation_that_took_the_seen_lines_away_doubles_nothing_and_is_reported(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    follower.pods_changed("web", (kubelet.view(),))
    kubelet.write(at(1), b"one")
    log.wait_for("one")
    kubelet.kept_from = at(2)
    kubelet.break_off(None)
    kubelet.write(at(3), b"two")
    log.wait_for(
        "one",
        "… lines may be missing between 14:31:01.000 and 14:31:03.000 UTC: the log was rotated, "
        "or its container is another",
        "two",
    )


def test_a_deleted_pod_is_read_to_its_end(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    kubelet.write(at(1), b"one")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("one")
    kubelet.write(at(2), b"bye", newline=b"")
    kubelet.delete()
    follower.pods_changed("web", ())
    assert follower.drain(30)
    log.wait_for("one", "bye")


def test_a_finished_container_needs_no_thread(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    kubelet.write(at(1), b"init done")
    kubelet.end()
    for _ in range(3):
        follower.pods_changed("web", (kubelet.view(),))
        assert follower.drain(30)
    assert log.texts == ["init done"]
    assert len(kubelet.requests) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("devloop-log")]


def test_what_is_forbidden_is_told_once_and_not_asked_again(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    kubelet.refuse = DevloopError.of(Code.CLUSTER_FORBIDDEN, "cannot get pods/log")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait(lambda: bool(log.events))
    follower.pods_changed("web", (kubelet.view(),))
    follower.close()
    assert len(kubelet.requests) == 1
    (event,) = log.events
    assert isinstance(event, DiagnosticRaised)
    assert (event.code, event.severity, event.service) == ("cluster/forbidden", "warning", "web")


def test_the_kubelets_own_words_are_not_the_apps(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    kubelet.write("failed", b"to create fsnotify watcher: too many open files")
    kubelet.write(at(1), b"line")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("line")


def test_containers_are_chosen_by_pattern(log: Log) -> None:
    opened: list[str] = []

    def open_log(
        pod: PodView, container: str, *, since_time: str | None, previous: bool, cancel: Cancel
    ) -> Iterator[bytes]:
        opened.append(container)
        return iter([])

    follower = LogFollower(open_log, log, patterns={"web": ("web", "init-*")})
    names = ("web", "init-db", "istio-proxy", "waiting")
    containers = tuple(
        ContainerView(
            name=name,
            image="x",
            container_id="" if name == "waiting" else "id",
            state="terminated",
            init=name == "init-db",
        )
        for name in names
    )
    pod = PodView(name="p", uid="u", namespace="n", containers=containers)
    follower.pods_changed("web", (pod,))
    follower.pods_changed("unknown", (pod,))
    assert follower.drain(30)
    assert follower.close() == ()
    assert sorted(opened) == ["init-db", "web"]


def test_a_container_that_is_not_to_be_shown_for_a_while_goes_on_where_it_was(
    log: Log, kubelet: Kubelet, follower: LogFollower
) -> None:
    kubelet.write(at(1), b"one")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("one")
    follower.show("web", ("other",))
    follower.pods_changed("web", (kubelet.view(),))
    assert not any(t.name.startswith("devloop-log-web") for t in threading.enumerate())
    kubelet.write(at(2), b"two")
    follower.show("web", ("*",))
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("one", "two")
    assert [event for event in log.events if not isinstance(event, LogLine)] == []


def test_a_flood_is_cut_and_the_loss_is_told_even_if_nothing_follows(
    log: Log, kubelet: Kubelet
) -> None:
    follower = LogFollower(
        kubelet.open_log,
        log,
        patterns={"web": ("*",)},
        rate=10,
        clock=lambda: 0.0,
        report_dropped_after=0.05,
    )
    for n in range(35):
        kubelet.write(at(1 + n / 100), f"{n}".encode())
    follower.pods_changed("web", (kubelet.view(),))

    def dropped() -> int:
        notices = (
            re.fullmatch(r"… (\d+) lines? dropped: more than 10 a second", t) for t in texts()
        )
        return sum(int(notice[1]) for notice in notices if notice)

    def texts() -> list[str]:
        return log.texts[10:]

    log.wait(lambda: dropped() == 25)
    assert log.texts[:10] == [*map(str, range(10))]
    assert follower.close() == ()


def test_close_ends_every_thread_and_silences_everything(log: Log) -> None:
    kubelets = [Kubelet() for _ in range(20)]

    def open_log(
        pod: PodView, container: str, *, since_time: str | None, previous: bool, cancel: Cancel
    ) -> Iterator[bytes]:
        return kubelets[int(pod.uid)].open_log(
            pod, container, since_time=since_time, previous=previous, cancel=cancel
        )

    follower = LogFollower(open_log, log, patterns={"web": ("*",)})
    pods = tuple(
        PodView(name=f"p-{n}", uid=str(n), namespace="n", containers=k.view().containers)
        for n, k in enumerate(kubelets)
    )
    follower.pods_changed("web", pods)
    for kubelet in kubelets:
        kubelet.write(at(1), b"x")
    log.wait(lambda: len(log.texts) == 20)
    assert follower.close() == ()
    for kubelet in kubelets:
        kubelet.write(at(2), b"y")
    follower.pods_changed("web", pods)
    assert len(log.texts) == 20
