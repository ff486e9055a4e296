"""The bus: order, numbers, losses, lost readers and the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from devloop.engine.bus import EventBus
from devloop.events import Dropped, LogLine, Record, SessionEnded, WatchRescanned
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.events import Event


def log(n: int) -> LogLine:
    return LogLine(service="web", pod="web-1", container="web", text=f"line {n}")


def other(n: int) -> WatchRescanned:
    return WatchRescanned(service="web", reason=f"{n}", files=1, ms=0)


class Gate:
    """A sink that waits at its first record until it is let go."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self, record: Record) -> None:
        self.entered.set()
        self.go.wait(30)
        self.records.append(record)


def consistent(records: list[Record]) -> bool:
    """Gaps in `seq` stand right before a `Dropped` and are as long as it says."""
    last = 0
    for record in records:
        missing = record.seq - last - 1
        counted = record.event.count if isinstance(record.event, Dropped) else 0
        if missing != counted:
            return False
        last = record.seq
    return True


def behind(events: list[Event], *, capacity: int) -> list[Record]:
    """What a reader gets that was stuck in its first record while `events` were published."""
    bus = EventBus()
    gate = Gate()
    bus.subscribe("slow", gate, capacity=capacity)
    bus.publish(other(0))
    assert gate.entered.wait(30)
    for event in events:
        bus.publish(event)
    gate.go.set()
    assert bus.close(5) == ()
    assert consistent(gate.records)
    return gate.records[1:]


def test_every_reader_gets_every_event_in_order_with_its_number_and_time() -> None:
    bus = EventBus(clock=lambda: 1_800_000_000.1234)
    first: list[Record] = []
    second: list[Record] = []
    bus.subscribe("a", first.append)
    bus.subscribe("b", second.append)
    for n in range(500):
        bus.publish(log(n))
    bus.publish(SessionEnded(exit_code=0))
    assert bus.close(5) == ()
    assert first == second
    assert [r.seq for r in first] == list(range(1, 502))
    assert first[0].ts == "2027-01-15T08:00:00.123Z"


def test_numbers_are_given_once_when_many_threads_publish() -> None:
    bus = EventBus()
    seen: list[Record] = []
    bus.subscribe("a", seen.append, capacity=100_000)

    def publish() -> None:
        for n in range(500):
            bus.publish(log(n))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bus.close(5) == ()
    assert [r.seq for r in seen] == list(range(1, 2001))


def test_a_late_reader_starts_with_the_present_number() -> None:
    bus = EventBus()
    bus.publish(log(0))
    seen: list[Record] = []
    bus.subscribe("late", seen.append)
    bus.publish(log(1))
    bus.close(5)
    assert [(r.seq, r.event) for r in seen] == [(2, log(1))]


def test_a_slow_reader_loses_the_oldest_log_lines_and_is_told_how_many() -> None:
    got = behind([log(n) for n in range(10)], capacity=3)
    assert [r.event for r in got] == [Dropped(count=7), log(7), log(8), log(9)]
    assert [r.seq for r in got] == [9, 10, 11, 12]


def test_other_events_outlive_log_lines_and_gaps_stay_where_they_were() -> None:
    got = behind([log(1), other(1), log(2), log(3), other(2), log(4)], capacity=3)
    assert [r.event for r in got] == [
        Dropped(count=1),
        other(1),
        Dropped(count=2),
        other(2),
        log(4),
    ]


def test_without_log_lines_the_oldest_events_go_but_never_the_end() -> None:
    got = behind([*(other(n) for n in range(1, 6)), SessionEnded(exit_code=3)], capacity=2)
    assert [r.event for r in got] == [Dropped(count=4), other(5), SessionEnded(exit_code=3)]
    got = behind([other(1), SessionEnded(exit_code=3)], capacity=1)
    assert [r.event for r in got] == [Dropped(count=1), SessionEnded(exit_code=3)]


def test_a_loss_at_the_very_end_is_told_too() -> None:
    got = behind([other(1), other(2), log(3)], capacity=2)
    assert [r.event for r in got] == [other(1), other(2), Dropped(count=1)]


def test_very_long_lines_count_by_their_length() -> None:
    long = LogLine(service="web", pod="web-1", container="web", text="x" * (1 << 20))
    got = behind([long] * 20, capacity=1000)
    assert [r.event for r in got] == [Dropped(count=12), *[long] * 8]


def test_a_stuck_reader_does_not_slow_the_publisher() -> None:
    bus = EventBus()
    gate = Gate()
    bus.subscribe("stuck", gate, capacity=100)
    bus.publish(log(0))
    assert gate.entered.wait(30)
    for n in range(5000):
        bus.publish(log(n))
    assert bus.close(0.05) == ("stuck",)
    gate.go.set()
    for thread in threading.enumerate():
        if thread.name == "devloop-bus-stuck":
            thread.join(30)
    assert len(gate.records) == 1, "nothing is delivered after close gave up"


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "no space"), ValueError("bug")])
def test_a_raising_sink_ends_its_own_subscription_only(error: Exception) -> None:
    lost: list[tuple[str, Exception]] = []
    bus = EventBus(on_lost=lambda name, e: lost.append((name, e)))
    calls: list[Record] = []
    seen: list[Record] = []

    def failing(record: Record) -> None:
        calls.append(record)
        raise error

    bus.subscribe("failing", failing)
    bus.subscribe("fine", seen.append)
    for n in range(10):
        bus.publish(log(n))
    assert bus.close(5) == ()
    assert lost == [("failing", error)]
    assert len(calls) == 1
    assert len(seen) == 10


def test_a_reader_of_batches_gets_all_that_waited_at_once_and_the_gaps_in_it() -> None:
    bus = EventBus()
    gate = Gate()
    batches: list[list[Record]] = []

    def take(records: Sequence[Record]) -> None:
        gate(records[0])
        batches.append(list(records))

    bus.subscribe("batches", gate, batch=take, capacity=3)
    bus.publish(other(0))
    assert gate.entered.wait(30)
    for n in range(10):
        bus.publish(log(n))
    gate.go.set()
    assert bus.close(5) == ()
    assert [[r.event for r in batch] for batch in batches] == [
        [other(0)],
        [Dropped(count=7), log(7), log(8), log(9)],
    ]
    assert consistent([record for batch in batches for record in batch])


def test_nothing_is_delivered_after_the_end() -> None:
    bus = EventBus()
    seen: list[Record] = []
    bus.subscribe("a", seen.append)
    bus.publish(SessionEnded(exit_code=0))
    bus.publish(log(1))
    bus.close(5)
    bus.publish(log(2))
    bus.subscribe("b", seen.append)
    assert bus.close(5) == ()
    assert [r.event for r in seen] == [SessionEnded(exit_code=0)]


def test_close_from_a_sink_does_not_wait_for_itself() -> None:
    bus = EventBus()
    left: list[tuple[str, ...]] = []
    bus.subscribe("a", lambda _: left.append(bus.close(5)))
    bus.publish(log(1))
    until(lambda: left)
    assert left == [()]
    bus.close(5)


def test_a_queue_needs_room() -> None:
    with pytest.raises(ValueError, match="0 records"):
        EventBus().subscribe("a", lambda _: None, capacity=0)


def test_a_flood_reaches_two_readers_whole() -> None:
    bus = EventBus()
    seen: list[list[Record]] = [[], []]
    for n, records in enumerate(seen):
        bus.subscribe(f"r{n}", records.append, capacity=50_000)
    for n in range(20_000):
        bus.publish(log(n))
    assert bus.close(30) == ()
    assert [len(records) for records in seen] == [20_000, 20_000]
