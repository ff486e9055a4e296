"""What a session says of changes to devloop.yaml and the files that it reads: it goes on with the
configuration that it began with, whatever these hold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.patterns import link_targets
from devloop.config.files import check_files
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.events import ConfigChecked, DiagnosticRaised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.config.loader import LoadedProject
    from devloop.engine.ports import Hints
    from devloop.events import Event


class ConfigNotice:
    """Passes the hints on, and after each looks whether one of `files` has other bytes.

    For each new content the events say once what `check` finds wrong; where that is nothing, that
    a start with it is needed, unless it is what the session runs with; at last that this was all.
    `hints` must watch the files as well. One thread only."""

    def __init__(
        self,
        hints: Hints,
        files: tuple[Path, ...],
        *,
        show: Callable[[Path], str],
        check: Callable[[], tuple[Diagnosis, ...]],
        publish: Callable[[Event], None],
    ) -> None:
        self._hints = hints
        self._loaded = {file: _content(file) for file in files}
        self._last = dict(self._loaded)
        self._show = show
        self._check = check
        self._publish = publish

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        """See engine.ports.Hints."""
        for paths in self._hints.hints(cancel):
            self._look(
                [
                    file
                    for file in self._loaded
                    if paths is None or not paths.isdisjoint((file, *targets_of(file)))
                ]
            )
            yield paths

    def _look(self, files: list[Path]) -> None:
        now = {file: _content(file) for file in files}
        changed = [file for file in files if now[file] != self._last[file]]
        self._last |= now
        if not any(now[file] is not None for file in changed):
            return
        problems = self._check()
        for diagnosis in problems or map(self._unused, changed):
            if diagnosis is not None:
                self._publish(DiagnosticRaised.of(diagnosis))
        self._publish(ConfigChecked(valid=not problems))

    def _unused(self, file: Path) -> Diagnosis | None:
        if self._last[file] in (None, self._loaded[file]):
            return None
        shown = self._show(file)
        return Diagnosis(
            code=Code.CONFIG_CHANGED,
            severity="warning",
            message=f"{shown} changed: restart devloop to use it",
            location=Location(shown, 1, 1),
        )


def problems_now(load: Callable[[], LoadedProject]) -> tuple[Diagnosis, ...]:
    """What is wrong with the configuration as it stands on disk."""
    try:
        return check_files(load())
    except DevloopError as error:
        return error.diagnoses


def targets_of(file: Path) -> tuple[Path, ...]:
    """What a link leads to, link by link."""
    return tuple(map(Path, link_targets(os.fspath(file))))


def _content(file: Path) -> bytes | None:
    """None while the file is not there: an editor may be replacing it."""
    try:
        return file.read_bytes()
    except OSError:
        return None
