"""A directory with a devloop.yaml, and what the loader says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from devloop.config.loader import LoadedProject, load_project
from devloop.config.problems import ConfigErrors

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.errors import Diagnosis


@dataclass
class Directory:
    """A project's directory; `env` is the environment that the loader sees."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str = "") -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def load(self, text: str | None = None, **options: Any) -> LoadedProject:
        if text is not None:
            self.write("devloop.yaml", text)
        arguments: dict[str, Any] = {"cwd": self.path, "env": self.env} | options
        return load_project(**arguments)

    def errors(self, text: str | None = None, **options: Any) -> tuple[Diagnosis, ...]:
        with pytest.raises(ConfigErrors) as caught:
            self.load(text, **options)
        assert caught.value.diagnosis == caught.value.diagnoses[0]
        return caught.value.diagnoses

    def error(self, text: str | None = None, **options: Any) -> Diagnosis:
        (found,) = self.errors(text, **options)
        return found


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    path = tmp_path / "shop"
    path.mkdir()
    return Directory(path)
