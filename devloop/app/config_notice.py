"""A notice when the configuration changes under a session, which goes on with the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.errors import Code, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Hints


class ConfigNotice:
    """Passes the hints on, and after each looks whether one of `files` has other bytes.

    `report` gets a warning for each new content once, and none for one that is back at what the
    session runs with.
    `hints` must watch the files as well. One thread only."""

    def __init__(
        self,
        hints: Hints,
        files: tuple[Path, ...],
        *,
        show: Callable[[Path], str],
        report: Callable[[Diagnosis], None],
    ) -> None:
        self._hints = hints
        self._loaded = {file: _content(file) for file in files}
        self._last = dict(self._loaded)
        self._show = show
        self._report = report

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        """See engine.ports.Hints."""
        for paths in self._hints.hints(cancel):
            for file in self._loaded:
                if paths is None or file in paths:
                    self._look(file)
            yield paths

    def _look(self, file: Path) -> None:
        now = _content(file)
        if now == self._last[file]:
            return
        self._last[file] = now
        if now is not None and now != self._loaded[file]:
            shown = self._show(file)
            self._report(
                Diagnosis(
                    code=Code.CONFIG_CHANGED,
                    severity="warning",
                    message=f"{shown} changed: restart devloop to use it",
                    location=Location(shown, 1, 1),
                )
            )


def _content(file: Path) -> bytes | None:
    """None while the file is not there: an editor may be replacing it."""
    try:
        return file.read_bytes()
    except OSError:
        return None
