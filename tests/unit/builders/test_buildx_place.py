"""Where buildx keeps its files if it cannot where it would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.builders.docker_cli import buildx_place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BUILDX_CONFIG", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda _path, _mode: False)


def test_buildx_chooses_where_it_can_write(home: Path, tmp_path: Path) -> None:
    assert buildx_place(tmp_path) == {}


def test_without_a_home_that_can_be_written_it_is_in_the_project(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nothing_can_be_written(monkeypatch)
    assert buildx_place(tmp_path) == {"BUILDX_CONFIG": str(tmp_path / ".devloop" / "buildx")}


def test_what_somebody_chose_or_made_there_stays(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nothing_can_be_written(monkeypatch)
    monkeypatch.setenv("BUILDX_CONFIG", "/chosen")
    assert buildx_place(tmp_path) == {}
    monkeypatch.delenv("BUILDX_CONFIG")
    instance = home / ".docker/buildx/instances/far"
    instance.parent.mkdir(parents=True)
    instance.touch()
    assert buildx_place(tmp_path) == {}
