"""A log that the kubelet rotates under a stream: what is left out is shown or reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from devloop.base.cancel import Cancel
from devloop.errors import Code, DevloopError
from devloop.logs import LogFollower
from devloop.logs.followed import FollowedContainer, LogFile
from devloop.logs.reading import Instance, Position
from devloop.logs.rotation import look_if_due
from tests.support.waiting import until
from tests.unit.logs.kubelet import Kubelet
from tests.unit.logs.test_logs_follower import Log, at
from tests.unit.logs.test_logs_reading import piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.logs.output import LineOutput


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def kubelet() -> Kubelet:
    return Kubelet(chunk=1000)


@pytest.fixture
def follower(log: Log, kubelet: Kubelet) -> Iterator[LogFollower]:
    follower = LogFollower(
        kubelet.open_log,
        log,
        patterns={"web": ("*",)},
        backoff=lambda _: 0.01,
        files=kubelet,
        look_every=0,
        tick=0.002,
        idle=0.01,
    )
    yield follower
    assert follower.close(2) == ()


FORBIDDEN = DevloopError.of(Code.CLUSTER_FORBIDDEN, "cannot get nodes/proxy")
MISSING = "… lines may be missing between 14:31:{} and 14:31:{} UTC: "


def begun(follower: LogFollower, kubelet: Kubelet, log: Log) -> None:
    kubelet.write(at(1), b"one")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("one")
    # It is known which line the file begins with.
    until(lambda: all(not e.file.watched for e in follower._containers.values()))


def test_what_was_left_in_the_old_file_is_shown(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    begun(follower, kubelet, log)
    kubelet.rotate(left=[(at(2), b"left"), (at(3), b"over")])
    kubelet.write(at(4), b"two")
    log.wait(lambda: len(log.texts) == 4)
    assert sorted(log.texts) == ["left", "one", "over", "two"]
    kubelet.write(at(5), b"three")
    log.wait(lambda: log.texts[-1] == "three")
    assert len(log.texts) == 5


def test_a_stream_that_stays_with_the_old_file_is_opened_again(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    begun(follower, kubelet, log)
    kubelet.rotate(left=[(at(2), b"left")], silent=True)
    kubelet.write(at(3), b"two")
    for entry in follower._containers.values():
        follower._look(entry)
    log.wait_for("one", "left", "two")


def test_a_file_that_may_not_be_read_is_reported_with_its_times(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    kubelet.refuse_files = FORBIDDEN
    begun(follower, kubelet, log)
    kubelet.rotate(left=[(at(2), b"left")])
    kubelet.write(at(3), b"two")
    log.wait_for("one", "two", MISSING.format("01.000", "03.000") + "the kubelet rotated the log")


def test_what_a_stream_broke_off_before_is_taken_from_the_old_files(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    begun(follower, kubelet, log)
    kubelet.rotate(left=[(at(2), b"two")], silent=True)
    kubelet.rotate(left=[(at(2), b"three"), (at(2.5), b"four")], silent=True)
    kubelet.write(at(2.6), b"five")
    kubelet.break_off(OSError("reset"))
    log.wait_for("one", "two", "three", "four", "five")


def test_the_files_of_the_instance_before_are_read_too(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    begun(follower, kubelet, log)
    kubelet.rotate(left=[(at(2), b"two")], silent=True)
    kubelet.write(at(3), b"last words")
    kubelet.restart()
    kubelet.write(at(4), b"hello")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for("one", "two", "last words", "hello")


def test_an_instance_that_was_rotated_before_it_was_seen_is_read_from_its_first_line(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    begun(follower, kubelet, log)
    kubelet.restart()
    kubelet.write(at(2), b"two")
    kubelet.rotate(left=[(at(3), b"three")])
    kubelet.write(at(4), b"four")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait(lambda: len(log.texts) == 4)
    assert sorted(log.texts) == ["four", "one", "three", "two"]


def test_an_instance_that_nobody_could_read_is_reported(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    begun(follower, kubelet, log)
    for _ in range(3):
        kubelet.restart()
    kubelet.write(at(9), b"hello")
    follower.pods_changed("web", (kubelet.view(),))
    log.wait_for(
        "one",
        MISSING.format("01.000", "09.000") + "the log was rotated, or its container is another",
        "hello",
    )


def test_a_pod_that_is_gone_before_it_was_read_to_its_end_is_reported(
    follower: LogFollower, kubelet: Kubelet, log: Log
) -> None:
    begun(follower, kubelet, log)
    kubelet.refuse = DevloopError.of(Code.CLUSTER_NOT_FOUND, "no such pod")
    kubelet.break_off(OSError("reset"))
    follower.pods_changed("web", ())
    log.wait_for("one", "… lines may be missing after 14:31:01.000 UTC: the pod is gone")


@pytest.mark.parametrize("told", [False, True])
def test_a_file_that_comes_twice_in_a_stream_counts_once(told: bool) -> None:
    position = Position()
    position.open()
    old = [piece(n / 1000, f"old {n}") for n in range(100)]
    new = [piece(1 + n / 1000, f"new {n}") for n in range(100)]
    if told:
        position.heads.append(new[0].key)
    assert all(position.is_new(p) for p in [*old, *new])
    assert not any(position.is_new(p) for p in new)
    assert position.is_new(piece(2))


def test_lines_stamped_a_little_apart_are_no_file_that_comes_twice() -> None:
    position = Position()
    position.open()
    twice = [piece(9.9999), piece(10.0001), piece(9.9999), piece(10.0001)]
    assert all(position.is_new(p) for p in twice)


class _Left(LogFile):
    """A file that the reader leaves as soon as somebody asks whether a look at it is due."""

    entry: FollowedContainer

    @property
    def due(self) -> bool:
        self.entry.file = LogFile()
        return True

    @due.setter
    def due(self, value: bool) -> None: ...


def _entry(kubelet: Kubelet) -> FollowedContainer:
    """Of its first instance one line was seen."""
    position = Position()
    position.is_new(piece(1))
    return FollowedContainer(
        service="web",
        pod=kubelet.view(),
        name="web",
        instance=Instance(id="c0"),
        position=position,
        output=cast("LineOutput", None),
    )


def test_a_look_says_nothing_of_the_file_that_the_reader_is_at_by_then(kubelet: Kubelet) -> None:
    """It is another instance's, of which a first line that is later tells no rotation."""
    entry = _entry(kubelet)
    kubelet.write(at(5), b"first words")
    left = _Left()
    left.entry, entry.file = entry, left
    look_if_due(kubelet, entry, 0.0, 1.0, Cancel())
    assert entry.file is not left
    assert entry.file.pending == ""


def test_a_look_before_the_first_line_is_read_tells_no_rotation(kubelet: Kubelet) -> None:
    """The next instance's log begins with a line that is later than the last one of before."""
    entry = _entry(kubelet)
    entry.file = LogFile(due=True)
    kubelet.write(at(5), b"first words")
    look_if_due(kubelet, entry, 0.0, 1.0, Cancel())
    assert not entry.file.due
    assert entry.file.pending == ""
