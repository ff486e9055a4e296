"""The place that a compiler or a test named, of what a RUN printed, as a file of the context.

A RUN that compiles what a COPY brought fails for a line of the user's own source, which is nearer
to the cure than the line of the Dockerfile. Only relative paths count: others are libraries' too.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# `./main.go:13:6: undefined: x`, `src/a.c:3:5: error: ...`, `    a_test.go:12: want 1`
_COLONS = re.compile(
    r"\s*(?P<path>[\w@+-][\w./@+-]*|\./[\w./@+-]+):(?P<line>[1-9]\d*)(?::(?P<column>[1-9]\d*))?"
    r"(?::| -)\s(?P<what>.*)"
)
# `src/a.ts(3,5): error TS2304: ...`: tsc, MSBuild
_PARENTHESES = re.compile(
    r"(?P<path>[\w./@+-]+)\((?P<line>[1-9]\d*),(?P<column>[1-9]\d*)\): (?P<what>\w+.*)"
)
# ` --> src/main.rs:3:5` below `error[E0425]: ...`: rustc
_ARROW = re.compile(r"\s*--> (?P<path>[\w./@+-]+):(?P<line>[1-9]\d*):(?P<column>[1-9]\d*)$")
_MILD = re.compile(r"\s*(?:warning|warn|note|info|hint|help)\b", re.IGNORECASE)
_GRAVE = re.compile(r"\s*error\b", re.IGNORECASE)


def source_place(
    lines: Iterable[str], names: Collection[str]
) -> tuple[str, int, int | None] | None:
    """The path, one of `names` (files of the context), line and column of the first error in what a
    step printed; None where it names none of them."""
    mild = False  # what stands below a warning belongs to it
    for text in lines:
        if _MILD.match(text):
            mild = True
        elif _GRAVE.match(text):
            mild = False
        if arrow := _ARROW.fullmatch(text):
            match = None if mild else arrow
        else:
            match = _COLONS.fullmatch(text) or _PARENTHESES.fullmatch(text)
            if match is not None and _MILD.match(match["what"]):
                match = None
        if match is not None and (path := _named(match["path"], names)):
            column = int(match["column"]) if match["column"] else None
            return path, int(match["line"]), column
    return None


def _named(path: str, names: Collection[str]) -> str | None:
    """`path` as it is called in the context: a COPY may have left out directories above it."""
    path = posixpath.normpath(path)
    if path.startswith(("/", "../")):
        return None
    if path in names:
        return path
    below = [name for name in names if name.endswith(f"/{path}")]
    return below[0] if len(below) == 1 else None
