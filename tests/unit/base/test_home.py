"""The user's own directory, where it is known and where not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.home import docker_directory, home_directory

if TYPE_CHECKING:
    import pytest


def test_what_home_says_counts() -> None:
    assert home_directory({"HOME": "/somebody"}) == Path("/somebody")


def test_a_user_that_the_system_does_not_know_has_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert home_directory({}) == Path("/")


def test_docker_has_its_own_place_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    assert docker_directory() == tmp_path / ".docker"
    monkeypatch.setenv("DOCKER_CONFIG", "/elsewhere")
    assert docker_directory() == Path("/elsewhere")
