"""Which line of the project a test that failed speaks of, by what it printed.

Pure. Test runners, compilers and linters write PATH:LINE; which file of the project that is, is
asked of a function.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.errors import Location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


_PLACE = (
    r"(?P<path>/?[\w@.+-]+(?:/[\w@.+-]+)*\.[A-Za-z]\w*)"
    r":(?P<line>[1-9]\d{0,6})(?::(?P<column>[1-9]\d{0,6}))?"
)
# First what is said of a place (pytest's last line of a failure, compilers), then any place.
_SAYS = re.compile(rf"\s*(?:E\s+)?{_PLACE}: \S")
_ANY = re.compile(rf"(?:^|[\s(]){_PLACE}(?![\w.])")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_LONGEST = 500  # characters of a line that count


def failed_place(
    lines: Sequence[str], project_paths: Callable[[Sequence[str]], Mapping[str, str]]
) -> Location | None:
    """The first place in the project's files that is said to be wrong, else the first that is
    named; None where none is."""
    text = [_COLOUR.sub("", line[:_LONGEST]) for line in lines]
    found = [*_places(text, _SAYS), *_places(text, _ANY)]
    known = project_paths(tuple(dict.fromkeys(path for path, _, _ in found)))
    for path, line, column in found:
        if path in known:
            return Location(known[path], line, column)
    return None


def _places(
    lines: Sequence[str], pattern: re.Pattern[str]
) -> Iterator[tuple[str, int, int | None]]:
    for line in lines:
        if (match := pattern.search(line) if pattern is _ANY else pattern.match(line)) is not None:
            column = match["column"]
            yield match["path"], int(match["line"]), int(column) if column else None
