"""A recorded session of the sample app, as a person sees it at three widths, scene by scene.

What stands on the terminal is as it is; the line below it, as it changes, stands behind `~`. After
a wanted change of looks: GOLDEN=write pytest tests/unit/ui/test_ui_recorded.py, and read the
difference.
"""

from __future__ import annotations

import functools
import io
import os
from datetime import datetime
from pathlib import Path

import pytest

from devloop.events import LogLine, Record
from devloop.ui.terminal import TerminalSink
from tests.support.recorded_session import Scene, read_scenes

GOLDEN = Path(__file__).parent / "golden"
scenes = functools.cache(read_scenes)


class Stream(io.StringIO):
    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


class View:
    """A terminal of that width, with what it shows and what came below it."""

    def __init__(self, width: int, encoding: str) -> None:
        self.stream = Stream(encoding)
        self.width = width
        self.sources: dict[str, list[str]] = {}
        self.sink = TerminalSink(
            self.stream, color=False, animated=False, env={}, width=lambda: width
        )
        self.sink._state._read_source = self._source
        self._below = ""

    def _source(self, path: str) -> list[str] | None:
        return self.sources.get(path.rpartition("guestbook/")[2])

    def show(self, record: Record) -> None:
        self.sink(record)
        if isinstance(record.event, LogLine):
            return  # the line below stays as it was
        row = self.sink._state.status(datetime.fromisoformat(record.ts).timestamp())
        (line,) = self.sink._lines(row, self.width - 3) if row else (None,)
        below = self.sink._show(line).rstrip()[2:] if line else ""
        if below and below != self._below:
            self.stream.write(f"~ {below}\n")
        self._below = below

    def scene(self, scene: Scene) -> str:
        self.sources = scene.sources
        self.stream.seek(0)
        self.stream.truncate()
        for record in scene.records:
            self.show(record)
        return self.stream.getvalue()


@pytest.mark.parametrize(
    ("width", "encoding"), [(60, "utf-8"), (80, "utf-8"), (140, "utf-8"), (80, "ascii")]
)
def test_a_recorded_session(width: int, encoding: str) -> None:
    view = View(width, encoding)
    text = ""
    for scene in scenes():
        shown = view.scene(scene)
        logs = {r.event.text for r in scene.records if isinstance(r.event, LogLine)}
        for line in shown.splitlines():
            assert len(line) <= width or any(log in line for log in logs), line
        text += f"{' ' + scene.name + ' ':=^{width}}\n{shown}\n"
    path = GOLDEN / f"recorded-{'ascii' if encoding == 'ascii' else 'unicode'}-{width}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert encoding != "ascii" or text.isascii()
