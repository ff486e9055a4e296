"""Notices that devloop.yaml or a file that it reads changed, and says what is wrong with it: until
that is mended the session goes on with the configuration that it has. What becomes of a valid one
is decided elsewhere, see reload.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devloop.base.patterns import link_targets
from devloop.config.files import check_files
from devloop.config.problems import ConfigErrors
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.events import ConfigChecked, DiagnosticRaised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devloop.base.cancel import Cancel
    from devloop.config.loader import LoadedProject
    from devloop.events import Event

    TakeOver = Callable[[LoadedProject, Cancel], tuple[Diagnosis, ...]]


# How long, in seconds, an editor has that puts a file back which it took away.
_AWAY = 0.3


class RenewableHints(Protocol):
    """The hints of a watcher that can be told to watch others."""

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        """See engine.ports.Hints."""

    def renew(self, files: Iterable[Path]) -> None:
        """What is watched are other sources by now, and these single files."""


class ConfigNotice:
    """Passes the hints on, and before each looks whether a file that `loaded` came from has other
    bytes than in `contents`.

    For new contents the events say what is wrong with them, whatever `take_over` returns of valid
    ones included, and at last that this was all; nothing where nothing is, or was, to be said.
    `hints` must watch the files as well. One thread only."""

    def __init__(
        self,
        hints: RenewableHints,
        loaded: LoadedProject,
        *,
        load: Callable[[], LoadedProject],
        publish: Callable[[Event], None],
        contents: Mapping[Path, bytes | None],
        away: float = _AWAY,
    ) -> None:
        self._hints = hints
        self._contents = dict(contents)
        self._file = loaded.project.file
        self._there = self._contents.get(self._file) is not None
        self._gone = Diagnosis(
            code=Code.CONFIG_NOT_FOUND,
            message=f"{loaded.show(self._file)} does not exist any more",
            location=Location(loaded.show(self._file)),
        )
        self._load = load
        self._publish = publish
        self._away = away
        self._take: TakeOver = lambda _loaded, _cancel: ()
        self._told: tuple[Diagnosis, ...] = ()
        self._valid = True

    def take_over_by(self, take: TakeOver) -> None:
        """Hand each valid configuration to `take`, which returns what is to be said of it."""
        self._take = take

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        """See engine.ports.Hints."""
        for paths in self._hints.hints(cancel):
            changed = self._changed(paths, cancel)
            # What is wrong may be mended elsewhere: a Dockerfile is there, a port is free again.
            if changed or not self._valid:
                self._look(cancel, changed=changed)
            yield paths

    def _changed(self, paths: frozenset[Path] | None, cancel: Cancel) -> bool:
        files = [
            file
            for file in self._contents
            if paths is None or not paths.isdisjoint((file, *targets_of(file)))
        ]
        now = contents_of(files)
        if any(now[file] is None and self._contents[file] is not None for file in files):
            cancel.wait(self._away)
            now = contents_of(files)
        changed = any(now[file] != self._contents[file] for file in files)
        self._contents |= now
        return changed

    def _look(self, cancel: Cancel, *, changed: bool) -> None:
        before = self._told
        loaded, problems, files = self._read()
        self._watch(files)
        taken = loaded is not None and not problems
        if loaded is not None and not problems:
            try:
                problems = self._take(loaded, cancel)
            except DevloopError as error:
                problems = error.diagnoses
        self._told = problems
        self._valid = not any(each.severity == "error" for each in problems)
        if problems == before and not (changed and self._valid):
            return
        if taken:
            # The sources may be others now.
            self._hints.renew(with_targets(self._contents))
        for diagnosis in problems:
            self._publish(DiagnosticRaised.of(diagnosis))
        if problems or before:
            self._publish(ConfigChecked(valid=self._valid))

    def _read(self) -> tuple[LoadedProject | None, tuple[Diagnosis, ...], tuple[Path, ...]]:
        """The configuration, what is wrong with it, and what it is read from."""
        gone = self._there and self._contents.get(self._file) is None
        try:
            # Without it another would be read, from a directory above, or one would be assumed.
            loaded = self._load() if not gone else None
        except DevloopError as error:
            files = error.files if isinstance(error, ConfigErrors) else ()
            return None, error.diagnoses, files
        if loaded is None or loaded.project.file != self._file:
            return None, (self._gone,), ()
        self._there = self._contents.get(self._file) is not None
        return loaded, check_files(loaded), loaded.files

    def _watch(self, files: Iterable[Path]) -> None:
        """Watch these as well, and none that is not read any more where all is well."""
        new = [file for file in files if file not in self._contents]
        self._contents |= contents_of(new)
        if new:
            self._hints.renew(with_targets(self._contents))


def contents_of(files: Iterable[Path]) -> dict[Path, bytes | None]:
    """What the files have now; None for one that is not there."""
    return {file: _content(file) for file in files}


def targets_of(file: Path) -> tuple[Path, ...]:
    """What a link leads to, link by link."""
    return tuple(map(Path, link_targets(os.fspath(file))))


def with_targets(files: Iterable[Path]) -> tuple[Path, ...]:
    """The files, and what those lead to that are links."""
    files = tuple(files)
    return (*files, *(target for file in files for target in targets_of(file)))


def _content(file: Path) -> bytes | None:
    """None while the file is not there: an editor may be replacing it."""
    try:
        return file.read_bytes()
    except OSError:
        return None
