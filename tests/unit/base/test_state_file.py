"""A state file is whole, versioned, and never stops a session."""

from __future__ import annotations

import errno
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base import state_file
from devloop.base.state_file import StateFile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state.json"


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def file(path: Path, reports: list[str]) -> StateFile:
    return StateFile(path, version=2, report=reports.append)


def test_what_is_written_is_read(file: StateFile, path: Path, reports: list[str]) -> None:
    assert file.read() is None
    for value in ({"a": 1}, {"b": [1, 2]}):
        file.write(value)
        assert file.read() == value
        assert json.loads(path.read_text()) == {"v": 2, **value}
    assert list(path.parent.iterdir()) == [path]
    assert reports == []


@pytest.mark.parametrize("text", ['{"a": 1}', '{"v": 1, "a": 1}', '{"v": 2, "a": 1}'])
def test_older_formats_are_read(file: StateFile, path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    assert file.read() == {"a": 1}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "damaged"),
        (b'{"v": 2, "a"', "damaged"),
        (b"[1]", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"v": "two"}', "damaged"),
        (b'{"v": 3, "a": 1}', "a newer devloop wrote it"),
    ],
)
def test_what_cannot_be_read_is_reported_once_and_set_aside(
    file: StateFile, path: Path, reports: list[str], data: bytes, why: str
) -> None:
    path.parent.mkdir()
    for _ in range(2):
        path.write_bytes(data)
        assert file.read() is None
        assert not path.exists()
        assert (path.parent / "state.json.aside").read_bytes() == data
    [report] = reports
    assert why in report
    assert "set aside as state.json.aside" in report
    file.write({"a": 1})
    assert file.read() == {"a": 1}


def test_who_only_looks_leaves_the_file_where_it_is(
    file: StateFile, path: Path, reports: list[str]
) -> None:
    path.parent.mkdir()
    path.write_text('{"v": 3}')
    assert file.read(set_aside=False) is None
    assert path.read_text() == '{"v": 3}'
    assert len(reports) == 1


def test_a_fault_of_the_machine_leaves_a_sound_file_where_it_is(
    file: StateFile, path: Path, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write({"a": 1})

    def too_many(*_: Any, **__: Any) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_text", too_many)
        assert file.read() is None
    assert "Too many open files" in reports[0]
    assert file.read() == {"a": 1}


def test_a_full_disk_is_reported_once_and_keeps_what_was_there(
    file: StateFile, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write({"a": 1})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state_file, "replace_file", full)
        for _ in range(2):
            file.save({"a": 2})
        with pytest.raises(OSError, match="No space left"):
            file.write({"a": 2})
    assert len(reports) == 1
    assert "No space left on device" in reports[0]
    assert file.read() == {"a": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_another_user_is_set_aside(file: StateFile, path: Path) -> None:
    file.write({"a": 1})
    path.chmod(0)
    assert file.read() is None
    file.save({"a": 2})
    assert file.read() == {"a": 2}


def test_updates_at_the_same_time_lose_nothing(path: Path) -> None:
    def add(number: int) -> None:
        with StateFile(path).updating() as value:
            value[str(number)] = number

    threads = [threading.Thread(target=add, args=(n,), name=f"devloop-{n}") for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert StateFile(path).read() == {str(n): n for n in range(8)}
    assert list(path.parent.iterdir()) == [path]


def test_an_update_that_fails_changes_nothing(file: StateFile) -> None:
    file.write({"a": 1})
    with pytest.raises(ZeroDivisionError), file.updating() as value:
        value["a"] = 1 / 0
    assert file.read() == {"a": 1}


def test_a_place_that_takes_no_files_is_reported(tmp_path: Path, reports: list[str]) -> None:
    (tmp_path / "file").touch()
    file = StateFile(tmp_path / "file" / "state.json", report=reports.append)
    with file.updating() as value:
        value["a"] = 1
    assert file.read() is None
    assert len(reports) == 1
