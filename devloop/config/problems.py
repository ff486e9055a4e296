"""Problems in configuration files, gathered so that one run shows them all.

Holds no rule about any key; see grammar.py and rules.py for those.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from devloop.errors import Code, DevloopError, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Iterable


# Enough for any honest file; a machine-made one should not fill the terminal.
_MOST = 200


class ConfigErrors(DevloopError):  # noqa: N818 - it carries many
    """Everything wrong with the configuration; `diagnosis` is the first of `diagnoses`.

    `diagnoses` is never empty and sorted by place.
    """

    def __init__(self, diagnoses: Iterable[Diagnosis]) -> None:
        self.diagnoses = tuple(diagnoses)
        super().__init__(self.diagnoses[0])


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
        *,
        cause: str | None = None,
        suggestions: tuple[str, ...] = (),
        detail: tuple[str, ...] = (),
    ) -> None:
        self.take(
            Diagnosis(
                code=code,
                message=_printable(message),
                location=location,
                cause=_printable(cause) if cause else None,
                suggestions=tuple(map(_printable, suggestions)),
                detail=detail,
            )
        )

    def take(self, diagnosis: Diagnosis) -> None:
        if not self._closed and len(self._found) < _MOST and diagnosis not in self._found:
            self._found.append(diagnosis)

    def keep_last_only(self) -> None:
        """The problem that was added last makes all others meaningless, those to come as well."""
        self._found, self._closed = self._found[-1:], True

    def __bool__(self) -> bool:
        return bool(self._found)

    def sorted(self) -> tuple[Diagnosis, ...]:
        """By file in the order of first appearance, then by line and column."""
        files: dict[str, int] = {}
        for found in self._found:
            files.setdefault(found.location.path if found.location else "", len(files))

        def place(found: Diagnosis) -> tuple[int, int, int]:
            at = found.location or Location("")
            return files[at.path], at.line or 0, at.column or 0

        return tuple(sorted(self._found, key=place))

    def raise_any(self) -> None:
        """Raises `ConfigErrors` unless nothing was found."""
        if self._found:
            raise ConfigErrors(self.sorted())


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
