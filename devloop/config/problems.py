"""Problems in configuration files, gathered so that one run shows them all, and the places of
settings, for errors that come up long after the file was read.

Holds no rule about any key; see grammar.py and rules.py for those.
"""

from __future__ import annotations

import difflib
from collections import ChainMap
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path as FilePath


# Enough for any honest file; a machine-made one should not fill the terminal.
_MOST = 200

# A setting's way down from the top of the file: ("services", "web", "ports", 0).
Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Locations:
    """Places of keys and of values by path; `file` stands for what is in no file. `written` are the
    texts of values in which variables were replaced, as they stand in the file.

    A path that the file does not have falls back to the nearest one above it: a default of a
    service is shown at the service."""

    file: Location
    keys: dict[Path, Location] = field(default_factory=dict)
    values: dict[Path, Location] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)

    def key(self, path: Path) -> Location:
        """Where the setting is named: its key, or the item of a list."""
        return self._find(path, ChainMap(self.keys, self.values))

    def value(self, path: Path) -> Location:
        """Where the setting's value begins."""
        return self._find(path, ChainMap(self.values, self.keys))

    def _find(self, path: Path, places: Mapping[Path, Location]) -> Location:
        above = (path[:length] for length in range(len(path), 0, -1))
        return next((places[each] for each in above if each in places), self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a text. `alone`: it may be why other things look wrong, so that they are
    not worth reporting."""

    message: str
    cause: str | None = None
    suggestions: tuple[str, ...] = ()
    alone: bool = False


def fault(message: str, *hints: str, cause: str | None = None) -> Fault:
    """A fault; an empty hint is left out."""
    return Fault(message=message, cause=cause, suggestions=tuple(filter(None, hints)))


class ConfigErrors(DevloopError):  # noqa: N818 - it carries many
    """Everything wrong with the configuration; `diagnosis` is the first of `diagnoses`.

    `diagnoses` is never empty and sorted by place. `files` are those that were, or were to be,
    read."""

    def __init__(self, diagnoses: Iterable[Diagnosis], files: Iterable[FilePath] = ()) -> None:
        found = tuple(diagnoses)
        super().__init__(found[0])
        self.diagnoses = found
        self.files = tuple(files)


class Problems:
    """A list of problems that grows while a file is read."""

    def __init__(self) -> None:
        self._found: list[Diagnosis] = []
        self._closed = False

    def add(
        self,
        code: Code,
        message: str,
        location: Location | None,
        *hints: str,
        cause: str | None = None,
        detail: tuple[str, ...] = (),
    ) -> None:
        """`hints` are the suggestions; an empty one is left out."""
        self.take(
            Diagnosis(
                code=code,
                message=_printable(message),
                location=location,
                cause=_printable(cause) if cause else None,
                suggestions=tuple(map(_printable, filter(None, hints))),
                detail=detail,
            )
        )

    def add_fault(self, code: Code, fault: Fault, location: Location) -> None:
        self.add(code, fault.message, location, *fault.suggestions, cause=fault.cause)
        if fault.alone:
            # It makes all others meaningless, those to come as well.
            self._found, self._closed = self._found[-1:], True

    def take(self, diagnosis: Diagnosis) -> None:
        if not self._closed and len(self._found) < _MOST and diagnosis not in self._found:
            self._found.append(diagnosis)

    def __bool__(self) -> bool:
        return bool(self._found)

    def sorted(self) -> tuple[Diagnosis, ...]:
        """By file in the order of first appearance, then by line and column."""
        paths = (found.location.path if found.location else "" for found in self._found)
        files = list(dict.fromkeys(paths))

        def place(found: Diagnosis) -> tuple[int, int, int]:
            at = found.location or Location("")
            return files.index(at.path), at.line or 0, at.column or 0

        return tuple(sorted(self._found, key=place))


def _printable(text: str) -> str:
    """One line that cannot steer a terminal, whatever stood in the file."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` was most likely meant to be, if any is close."""
    pool = sorted(words)
    folded = {each.lower().replace("-", "_"): each for each in reversed(pool)}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None
