"""What a late reader gets: what is kept, in order, each once, and told of what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from devloop.control.history import Cursor, History
from devloop.events import Dropped, LogLine, PodChanged, Record, StepProgress
from devloop.model import Step

if TYPE_CHECKING:
    from devloop.events import Event

TS = "2026-11-23T14:31:07.112Z"


def line(text: str = "x") -> LogLine:
    return LogLine(service="web", pod="web-1", container="web", text=text)


def pod(name: str = "web-1") -> PodChanged:
    return PodChanged(service="web", pod=name, phase="Running", ready=True, deleting=False)


def records(*events: Event, first: int = 1) -> list[Record]:
    return [Record(first + at, TS, event) for at, event in enumerate(events)]


def read(history: History, cursor: Cursor, limit: int = 100) -> list[Record]:
    return cursor.numbered(history.after(cursor.seen, limit))


def test_a_late_reader_gets_all_that_is_kept_then_what_follows_each_once() -> None:
    history, cursor = History(), Cursor()
    history.extend(records(pod(), line(), pod()))
    assert [r.seq for r in read(history, cursor)] == [1, 2, 3]
    assert read(history, cursor) == []
    history.extend(records(line(), first=4))
    assert read(history, cursor) == records(line(), first=4)


def test_a_reader_takes_as_much_at_a_time_as_it_likes() -> None:
    history, cursor = History(), Cursor()
    history.extend(records(*[line(), pod()] * 10))
    found = [record for _ in range(7) for record in read(history, cursor, limit=3)]
    assert found == records(*[line(), pod()] * 10)


def test_a_flood_of_lines_and_progress_pushes_out_no_event() -> None:
    history, cursor = History(events=3, lines=2), Cursor()
    progress = StepProgress(iter=1, service="web", step=Step.BUILD, message="m")
    history.extend(records(pod("a"), *[line(), progress] * 50, pod("b")))
    found = read(history, cursor)
    assert [r.event.type for r in found] == [
        "pod.changed",
        "dropped",
        "log",
        "step.progress",
        "pod.changed",
    ]
    # The gap before it is of exactly its count, and there is no other.
    assert [r.seq for r in found] == [1, 100, 101, 102, 103]
    assert found[1].event == Dropped(count=98)


def test_text_is_bounded_whatever_the_number_of_lines() -> None:
    history, cursor = History(text=100), Cursor()
    history.extend(records(*[line("y" * 60)] * 5))
    assert [r.event.type for r in read(history, cursor)] == ["dropped", "log"]


def test_what_was_lost_before_it_came_here_is_counted_once() -> None:
    history, cursor = History(), Cursor()
    history.extend([*records(pod()), Record(7, TS, Dropped(count=5)), Record(8, TS, pod())])
    found = read(history, cursor)
    assert [r.seq for r in found] == [1, 7, 8]
    assert found[1].event == Dropped(count=5)


@given(
    st.lists(st.integers(1, 5), max_size=40),
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_the_numbers_have_no_gaps_but_those_that_are_counted(
    bursts: list[int], events: int, lines: int, reads: list[bool]
) -> None:
    history, cursor = History(events=events, lines=lines), Cursor()
    seq, found = 0, list[Record]()
    for at, burst in enumerate(bursts):
        kinds: list[Event] = [pod() if (at + n) % 3 else line() for n in range(burst)]
        history.extend(records(*kinds, first=seq + 1))
        seq += burst
        if reads[at]:
            found += read(history, cursor, limit=4)
    while more := read(history, cursor):
        found += more
    expected = 0
    for record in found:
        lost = record.event.count if isinstance(record.event, Dropped) else 0
        assert record.seq == expected + lost + 1
        expected = record.seq
    real = [r for r in found if not isinstance(r.event, Dropped)]
    missed = sum(r.event.count for r in found if isinstance(r.event, Dropped))
    assert len(real) + missed == seq
