"""The cache: nothing half-made is ever found in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVLOOP_TEST_CACHE", str(tmp_path / "cache"))


def test_made_once() -> None:
    calls: list[Path] = []

    def make(place: Path) -> None:
        calls.append(place)
        place.write_text("made")

    first = cache.made("images/a-1.tar", make)
    assert cache.made("images/a-1.tar", make) == first
    assert first.read_text() == "made"
    assert len(calls) == 1


def test_a_failure_leaves_nothing() -> None:
    def fail(place: Path) -> None:
        place.mkdir()
        (place / "half").touch()
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        cache.made("tree-1", fail)
    assert list(cache.home().iterdir()) == []


def test_leftovers_of_a_killed_run_go() -> None:
    killed = cache.home() / f"{cache.PART}x"
    (killed / "tree").mkdir(parents=True)
    cache.made("tree-1", lambda place: place.mkdir())
    assert [file.name for file in cache.home().iterdir()] == ["tree-1"]


def test_key_changes_with_content_name_and_mode(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    file = folder / "a"
    file.write_text("1")
    keys = [cache.key("x", folder)]
    file.write_text("2")
    keys.append(cache.key("x", folder))
    file.chmod(0o755)
    keys.append(cache.key("x", folder))
    file.rename(folder / "b")
    keys.append(cache.key("x", folder))
    keys.append(cache.key("y", folder))
    assert len(set(keys)) == len(keys)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/b.pyc").touch()
    assert cache.key("y", folder) == keys[-1]


def test_key_keeps_its_parts_apart() -> None:
    assert cache.key("ab", "c") != cache.key("a", "bc")


def test_link_replaces_a_dead_one(tmp_path: Path) -> None:
    cache.link(tmp_path / "gone", "tool")
    (tmp_path / "tool").write_text("here")
    cache.link(tmp_path / "tool", "tool")
    assert (cache.bin_dir() / "tool").read_text() == "here"
    assert [file.name for file in cache.bin_dir().iterdir()] == ["tool"]


def test_forget_keeps_the_newest() -> None:
    for number in range(4):
        place = cache.made(f"images/a-{number}.tar", lambda place: place.touch())
        os.utime(place, (number, number))
    cache.made("images/b-1.tar", lambda place: place.touch())
    cache.forget("images/a-*.tar")
    assert sorted(file.name for file in (cache.home() / "images").iterdir()) == [
        "a-2.tar",
        "a-3.tar",
        "b-1.tar",
    ]
