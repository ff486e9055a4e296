"""Which stream to read next, how far it was read, how fast it may be."""

from __future__ import annotations

import pytest

from devloop.logs.lines import Piece
from devloop.logs.reading import (
    End,
    Instance,
    Position,
    RateLimit,
    Read,
    ReadProgress,
    Trail,
    backoff,
    learned,
    next_read,
    outdated,
)

CURRENT, FOLLOWING, PREVIOUS = Read(), Read(follows_on=True), Read(previous=True)


@pytest.mark.parametrize(
    ("progress", "instance", "read"),
    [
        (ReadProgress(), Instance(id=""), None),
        (ReadProgress(), Instance(id="a"), CURRENT),
        (ReadProgress(), Instance(id="b", restarts=1), PREVIOUS),
        (ReadProgress(before="b"), Instance(id="b", restarts=1), CURRENT),
        (ReadProgress(begun="a"), Instance(id="a"), FOLLOWING),
        (ReadProgress(begun="a"), Instance(id="a", over=True), FOLLOWING),
        (ReadProgress(begun="a", done="a"), Instance(id="a", over=True), None),
        (ReadProgress(begun="a", done="a"), Instance(id="b", restarts=1), PREVIOUS),
        (ReadProgress(begun="a", before="b"), Instance(id="b", restarts=1), CURRENT),
        (ReadProgress(begun="a"), Instance(id="b"), PREVIOUS),
        (ReadProgress(begun="a", trail=Trail.LOST), Instance(id="a"), PREVIOUS),
        (ReadProgress(begun="a", before="a", trail=Trail.FOUND), Instance(id="a"), CURRENT),
    ],
)
def test_next_read(progress: ReadProgress, instance: Instance, read: Read | None) -> None:
    assert next_read(progress, instance) == read


A, OVER, GONE = (
    Instance(id="a"),
    Instance(id="a", over=True),
    Instance(id="a", over=True, gone=True),
)
DONE = ReadProgress(begun="a", done="a")


@pytest.mark.parametrize(
    ("read", "instance", "end", "failures", "progress"),
    [
        (CURRENT, A, End.CLOSED, 1, ReadProgress(begun="a")),
        (CURRENT, A, End.BROKEN, 0, ReadProgress(begun="a")),
        (CURRENT, A, End.BROKEN, 1, ReadProgress()),
        (CURRENT, A, End.CUT, 0, ReadProgress(begun="a")),
        (CURRENT, OVER, End.CUT, 1, ReadProgress()),
        (CURRENT, A, End.REFUSED, 9, ReadProgress()),
        (CURRENT, A, End.FINAL, 1, DONE),
        (CURRENT, OVER, End.CLOSED, 1, DONE),
        (CURRENT, OVER, End.BROKEN, 9, ReadProgress()),
        (CURRENT, OVER, End.REFUSED, 2, ReadProgress()),
        (CURRENT, OVER, End.REFUSED, 3, DONE),
        (CURRENT, GONE, End.REFUSED, 1, DONE),
        (CURRENT, GONE, End.BROKEN, 2, ReadProgress()),
        (CURRENT, GONE, End.BROKEN, 3, DONE),
        (FOLLOWING, A, End.ASTRAY, 1, ReadProgress(trail=Trail.LOST)),
        (PREVIOUS, A, End.CLOSED, 0, ReadProgress(before="a")),
        (PREVIOUS, A, End.REFUSED, 1, ReadProgress(before="a")),
        (PREVIOUS, A, End.CUT, 9, ReadProgress()),
        (PREVIOUS, A, End.AWAY, 9, ReadProgress()),
        (CURRENT, GONE, End.AWAY, 9, ReadProgress()),
        (PREVIOUS, A, End.BROKEN, 2, ReadProgress()),
        (PREVIOUS, A, End.BROKEN, 3, ReadProgress(before="a")),
    ],
)
def test_what_a_stream_teaches(
    read: Read, instance: Instance, end: End, failures: int, progress: ReadProgress
) -> None:
    assert learned(ReadProgress(), read, instance, end, failures) == progress


def test_a_lost_trail_is_found_by_the_instance_before() -> None:
    lost = ReadProgress(begun="a", trail=Trail.LOST)
    found = learned(lost, PREVIOUS, A, End.CLOSED, 1)
    assert found.trail is Trail.FOUND
    assert learned(found, CURRENT, A, End.BROKEN, 0).trail is Trail.KEPT


def test_streams_are_cut_when_the_container_is_over_or_another() -> None:
    other = Instance(id="b")
    assert outdated(A, other, deleting=False)
    assert outdated(A, other, deleting=True)
    assert outdated(A, OVER, deleting=False)
    assert not outdated(A, OVER, deleting=True)
    assert not outdated(OVER, OVER, deleting=False)
    assert not outdated(A, A, deleting=False)


def test_backoff() -> None:
    assert [backoff(n) for n in (1, 2, 3, 5, 6, 50)] == pytest.approx([0.2, 0.4, 0.8, 3.2, 5, 5])
    assert backoff(0) == pytest.approx(0.1)


def test_rate_limit_keeps_the_first_lines_of_each_second() -> None:
    limit = RateLimit(3)
    seconds = ["01", "01", "01", "01", "01", "02", "02"]
    got = [limit.admit(5.0, second) for second in seconds]
    assert got == [0.0, 0.0, 0.0, None, None, 0.0, 0.0]


def test_lines_that_come_late_wait_and_are_not_dropped() -> None:
    limit = RateLimit(2)
    got = [limit.admit(5.25, str(n // 2)) for n in range(8)]
    assert got == [0.0] * 6 + [1.0, 1.0]
    assert limit.admit(6.25, "4") == 0.0


def piece(second: float, text: str = "x", index: int = 0) -> Piece:
    key = f"2026-11-23T14:31:{second:012.9f}"
    return Piece(key, key + "Z", index, text.encode())


def test_a_resumed_stream_gives_each_line_once() -> None:
    position = Position()
    assert position.open() is None
    first = [piece(7.1), piece(7.1), piece(7.1, "y"), piece(8.2), piece(8.1)]
    assert all(position.is_new(p) for p in first)
    assert position.open() == "2026-11-23T14:31:07Z"
    assert position.repeats(first[0])
    again = [*first, piece(8.2), piece(8.15), piece(9.0), piece(9.0)]
    assert [position.is_new(p) for p in again] == [False] * 5 + [True] * 4


def test_a_log_that_does_not_begin_with_what_was_seen_is_another() -> None:
    position = Position("2026-11-23T14:31:05.5Z")
    assert position.open() == "2026-11-23T14:31:05Z"
    assert not position.is_new(piece(5.4))
    assert position.is_new(piece(5.6))
    position.open()
    assert position.repeats(piece(5.4)), "from before the session"
    assert position.repeats(piece(5.6))
    assert not position.repeats(piece(6.0))
    assert not position.repeats(piece(5.6, index=1))


def test_of_a_flood_the_oldest_lines_count_as_seen_by_their_time() -> None:
    position = Position()
    flood = [piece(10 + n / 20_000, str(n)) for n in range(18_000)]
    assert all(position.is_new(p) for p in flood)
    position.open()
    assert position.repeats(flood[0])
    assert not any(position.is_new(p) for p in flood)
    assert position.is_new(piece(11))


def test_short_logs_are_remembered_whole_long_ones_for_two_seconds() -> None:
    position = Position("2026-11-23T14:31:00.5Z")
    for n in range(1024):
        position.is_new(piece(1 + n / 20))
    assert position.open() == "2026-11-23T14:31:51Z"
    assert position.open(previous=True) == "2026-11-23T14:31:00Z"
    position.is_new(piece(53))
    assert position.open(previous=True) == "2026-11-23T14:31:52Z"
    assert len(position._recent) == 1024
