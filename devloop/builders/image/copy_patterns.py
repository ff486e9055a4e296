"""The two kinds of patterns of a COPY: in its sources, and in --exclude and --parents.

Sources follow Go's path.Match, where `*` stops at a slash and a class may match one; the other two
follow moby's patternmatcher, which knows `**` and exceptions with `!`. Pure; a pattern that either
would refuse, or that is a matter of Go's regular expressions, is `NeedsFullBuild`.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Filter", "is_pattern", "source_pattern"]


def is_pattern(text: str) -> bool:
    """Whether BuildKit looks for matches of `text`, instead of a path of that name."""
    return any(char in text for char in "*?[")


@lru_cache(maxsize=256)
def source_pattern(pattern: str) -> Callable[[str], object]:
    """What tells whether a path, with as many parts as it likes, matches a source's pattern."""
    found, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            found.append("[^/]*")
        elif char == "?":
            found.append("[^/]")
        elif char == "[":
            text, at = _class(pattern, at)
            found.append(text)
        else:
            found.append(re.escape(char))
    return re.compile("".join(found), re.DOTALL).fullmatch


def _class(pattern: str, at: int) -> tuple[str, int]:
    """A class as a regular expression, and where it ends. `at` is behind its bracket."""
    found = ["["]
    if pattern[at : at + 1] == "^":
        found.append("^")
        at += 1
    ranges = 0
    while pattern[at : at + 1] != "]" or not ranges:
        low, high = pattern[at : at + 1], pattern[at + 2 : at + 3]
        if pattern[at + 1 : at + 2] == "-":
            at += 3
        else:
            high = low
            at += 1
        if not low or not high or low in "-]" or high in "-]" or low > high:
            raise NeedsFullBuild(f"the pattern {pattern} is not understood")
        found.append(f"{re.escape(low)}-{re.escape(high)}")
        ranges += 1
    return "".join((*found, "]")), at + 1


class Filter:
    """What a list of --exclude or --parents patterns selects beneath one folder.

    Ask for a folder before what is in it: a pattern that matched it matches all of that."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises `NeedsFullBuild`."""
        self._patterns = [
            _compiled(posixpath.normpath(text)) for line in patterns if (text := line.strip())
        ]
        self._seen: dict[str, tuple[bool, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def selects(self, path: str) -> bool:
        """`path` is relative to the folder, with a result for the folders above it asked before."""
        above = self._seen.get(path.rpartition("/")[0])
        selected, matched = False, []
        for index, (excepts, matches) in enumerate(self._patterns):
            match = above is not None and above[index]
            if not match and excepts == selected:
                match = matches(path)
            matched.append(match)
            if match:
                selected = not excepts
        self._seen[path] = tuple(matched)
        return selected


def _compiled(pattern: str) -> tuple[bool, Callable[[str], bool]]:
    excepts = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    if not pattern or "[" in pattern or "]" in pattern or "\\" in pattern or "^" in pattern:
        raise NeedsFullBuild(f"the pattern {pattern} is not understood")
    return excepts, _matcher(pattern)


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Callable[[str], bool]:
    plain = pattern.removeprefix("**").removesuffix("**")
    if not is_pattern(plain):
        if not is_pattern(pattern):
            return lambda path: path == pattern
        if pattern.startswith("**") and plain == pattern[2:]:
            # "**/x" is "x" too; "**x" ends with it.
            return lambda path: path.endswith(plain) or path == plain.removeprefix("/")
        if not pattern.startswith("**"):
            return lambda path: path.startswith(plain)
    parts = re.split(r"(\*\*/?|\*|\?)", pattern)
    found = []
    for index, part in enumerate(parts):
        if part.startswith("**"):
            found.append(".*" if "".join(parts[index + 1 :]) == "" else "(?:.*/)?")
        elif part == "*":
            found.append("[^/]*")
        elif part == "?":
            found.append("[^/]")
        else:
            found.append(re.escape(part))
    match = re.compile("".join(found), re.DOTALL).fullmatch
    return lambda path: match(path) is not None
