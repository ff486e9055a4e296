"""What COPY, ADD and the mounts of RUN name in a build context, matched broadly: what might be read
counts as read. Looks at names only, never at the disk.
"""

from __future__ import annotations

import fnmatch
import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


# What makes a pattern more than names and the wildcards * and ?.
_HARD = frozenset("$\\\"'[")


class ReadPatterns:
    """The paths of a context, relative and with slashes, that patterns of a Dockerfile name."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """The patterns must be plain, see `plain`."""
        self._patterns = tuple(dict.fromkeys(_parts(pattern) for pattern in patterns))

    @classmethod
    def plain(cls, patterns: Iterable[str]) -> ReadPatterns | None:
        """None where one of them may name anything."""
        made = cls(patterns := tuple(patterns))
        return None if () in made._patterns or any(map(_is_hard, patterns)) else made

    def may_read(self, path: str) -> bool:
        """Whether `path`, or something in or above it, may be read."""
        names = tuple(path.split("/"))
        return any(_overlap(parts, names) for parts in self._patterns)

    def covers(self, directory: str) -> bool:
        """Whether all that is in `directory` may be read."""
        names = tuple(directory.split("/"))
        return any(len(parts) <= len(names) and _overlap(parts, names) for parts in self._patterns)

    def lead_through(self, link: str) -> bool:
        """Whether the symlink `link` may be on the way to what is read, or be what is named: behind
        it anything may be read."""
        names = tuple(link.split("/"))
        return any(len(names) <= len(parts) and _overlap(parts, names) for parts in self._patterns)


def may_match(pattern: str, path: str) -> bool:
    """Whether an instruction that names `pattern` may read `path`, or something in or above it."""
    return _is_hard(pattern) or _overlap(_parts(pattern), tuple(path.split("/")))


def leads_through(pattern: str, link: str) -> bool:
    """Whether the symlink `link` may be on the way to what `pattern` names, or named by it."""
    return link.count("/") < len(_parts(pattern)) and may_match(pattern, link)


def _is_hard(pattern: str) -> bool:
    return "**" in pattern or not _HARD.isdisjoint(pattern)


def _overlap(parts: tuple[str, ...], names: tuple[str, ...]) -> bool:
    return all(fnmatch.fnmatchcase(name, part) for part, name in zip(parts, names, strict=False))


def _parts(pattern: str) -> tuple[str, ...]:
    return tuple(part for part in posixpath.normpath("/" + pattern).split("/") if part)
