"""Watching whole trees through watchfiles' public interface, with real files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devloop.watch import native
from devloop.watch.event_buffer import ADDED, DELETED, MODIFIED, EventBuffer
from devloop.watch.native import TreeWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def buffer() -> EventBuffer:
    return EventBuffer()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/deep/a.py").write_text("one")
    return tmp_path


@pytest.fixture
def watched(root: Path, buffer: EventBuffer) -> Iterator[Path]:
    watch = TreeWatch([str(root)], buffer)
    yield root
    watch.close()


def seen(buffer: EventBuffer, path: Path, kind: int) -> bool:
    """Whether such an event comes, after any number of others."""
    while (found := buffer.take(10)).changes:
        assert found.fault is None
        if (kind, str(path)) in found.changes:
            return True
    return False


def test_a_file_that_is_made_written_and_deleted(watched: Path, buffer: EventBuffer) -> None:
    file = watched / "src/new.py"
    file.write_text("one")
    assert seen(buffer, file, ADDED)
    with file.open("a") as opened:
        opened.write("two")
    assert seen(buffer, file, MODIFIED)
    file.unlink()
    assert seen(buffer, file, DELETED)


def test_a_directory_that_is_moved_in_is_watched_as_well(
    watched: Path, buffer: EventBuffer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = tmp_path_factory.mktemp("made") / "pkg"
    made.mkdir()
    made.rename(watched / "pkg")
    assert seen(buffer, watched / "pkg", ADDED)
    (watched / "pkg/b.py").write_text("one")
    assert seen(buffer, watched / "pkg/b.py", ADDED)


def test_nothing_is_missed_once_the_watch_is_made(root: Path) -> None:
    file = root / "src/deep/a.py"
    for number in range(20):
        buffer = EventBuffer()
        watch = TreeWatch([str(root)], buffer)
        os.utime(file, (number, number))
        assert seen(buffer, file, MODIFIED)
        watch.close()


def test_what_lies_behind_a_symlink_keeps_its_own_name(root: Path, buffer: EventBuffer) -> None:
    link = root / "link"
    link.symlink_to("src")
    watch = TreeWatch([str(link)], buffer)
    (root / "src/b.py").write_text("one")
    assert seen(buffer, link / "b.py", ADDED)
    watch.close()
    assert watch._named(f"{root}/src/deep/a.py") == f"{link}/deep/a.py"


def test_a_watcher_that_dies_reports_it(
    root: Path, buffer: EventBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Iterator[set[tuple[int, str]]]:
        raise OSError("no more descriptors")

    monkeypatch.setattr(native, "watch", broken)
    watch = TreeWatch([str(root)], buffer)
    assert isinstance(buffer.take(10).fault, OSError)
    watch.close()
