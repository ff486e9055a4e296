"""The two kinds of patterns of a COPY: in its sources, and in --exclude and --parents.

Sources follow Go's path.Match, where `*` stops at a slash and a class may match one; the other two
follow moby's patternmatcher, which knows `**` and exceptions with `!`. Pure; a pattern that either
would refuse, or that is a matter of Go's regular expressions, is `NeedsFullBuild`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from devloop.base.ignore_pattern import Pattern, PatternError
from devloop.base.ignore_rules import IgnoreRules
from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def is_pattern(text: str) -> bool:
    """Whether BuildKit looks for matches of `text`, instead of a path of that name."""
    return any(char in text for char in "*?[")


@lru_cache(maxsize=256)
def source_pattern(pattern: str) -> Callable[[str], object]:
    """What decides whether a path, with as many parts as it likes, matches a source's pattern."""
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
    """What a list of --exclude or --parents patterns selects below one directory.

    Ask for a directory before what is in it: a pattern that matched it matches all of that."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises `NeedsFullBuild`."""
        self._rules = IgnoreRules(filter(None, map(_compiled, patterns)))
        self._inherited: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._rules.patterns)

    def selects(self, path: str) -> bool:
        """`path` is relative to the directory, with a result for those above it asked before."""
        above = self._inherited.get(path.rpartition("/")[0], 0)
        selected, self._inherited[path] = self._rules.step(above, path)
        return selected


def _compiled(pattern: str) -> Pattern | None:
    if any(char in pattern for char in "[]\\^"):
        raise NeedsFullBuild(f"the pattern {pattern} is not understood")
    try:
        return Pattern.compile(pattern)
    except PatternError as error:
        raise NeedsFullBuild(f"the pattern {pattern} is not understood") from error
