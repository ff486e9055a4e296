"""The stream as it is written down: whole lines, bounded, the last session's alone or all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from devloop.control.event_file import EventFile, read_events
from devloop.events import LogLine, Record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TS = "2026-11-23T14:31:07.112Z"


def record(seq: int, text: str = "hello") -> Record:
    return Record(seq, TS, LogLine(service="web", pod="web-1", container="web", text=text))


def numbers(directory: Path, *, last: bool = True) -> list[int]:
    return [each["seq"] for _, each in read_events(directory, last=last)]


def test_the_last_session_or_all_of_them(tmp_path: Path) -> None:
    assert numbers(tmp_path) == []
    for length in (2, 3):
        file = EventFile(tmp_path)
        file.batch([record(seq + 1) for seq in range(length)])
    assert numbers(tmp_path) == [1, 2, 3]
    assert numbers(tmp_path, last=False) == [1, 2, 1, 2, 3]
    assert stat.S_IMODE((tmp_path / "events.ndjson").stat().st_mode) == 0o600


def test_half_a_line_of_a_killed_session_spoils_no_other(tmp_path: Path) -> None:
    EventFile(tmp_path)(record(1))
    with (tmp_path / "events.ndjson").open("ab") as file:
        file.write(b'{"v":1,"seq":2,"ty')
    EventFile(tmp_path)(record(1))
    assert numbers(tmp_path, last=False) == [1, 1]


def test_the_file_is_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    file = EventFile(tmp_path, full=1000)
    for seq in range(1, 101):
        file(record(seq))
    found = numbers(tmp_path)
    assert found == list(range(found[0], 101))
    assert len(found) < 30
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 2500


def test_a_disk_that_takes_nothing_is_reported_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = EventFile(tmp_path / "gone")
    file(record(1))
    file(record(2))
    assert len(caplog.records) == 1
    (tmp_path / "gone").mkdir()
    file(record(3))
    assert numbers(tmp_path / "gone") == [3]
