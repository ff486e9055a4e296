"""Which line of the project's source a crash is about, by the stack trace in the container's log.

Pure; never raises, whatever the log says. Knows how runtimes write their traces and nothing of
images: which file of the project a path in a container is, is asked of a function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Location

if TYPE_CHECKING:
    from collections.abc import Iterator


ProjectPaths = Callable[[Sequence[str]], Mapping[str, str]]
"""Paths as a trace names them -> those of them that are files of the project, as the user would
type them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFrame:
    """A place that a trace names. `path` is absolute in the container, or relative where the
    runtime writes no more. `line` and `column` count from 1."""

    path: str
    line: int
    column: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Language:
    """How a runtime writes traces. `frame` has the groups `path`, `line` and perhaps `column` and
    `owner` (a qualified method in whose package the file is). A trace begins with a line that
    `opens` matches, or more than `gap` lines after one of a trace. `down`: the innermost frame is
    the last one."""

    frame: re.Pattern[str]
    opens: re.Pattern[str] = re.compile(r"(?!)")
    gap: float = 1
    down: bool = False


_LINE = r"(?P<line>\d{1,7})"
_COLUMN = r"(?P<column>\d{1,7})"
_LANGUAGES = (
    _Language(  # Python; a SyntaxError's place is written as a frame, too
        frame=re.compile(rf'[\s|]*File "(?P<path>[^"<>]+)", line {_LINE}'), down=True
    ),
    _Language(  # Node, Deno, Bun; first, alone, the line that throws or cannot be parsed
        frame=re.compile(
            rf"(?:\s+at (?:.*[( ])?)?(?:file://)?(?P<path>/[^:]+):{_LINE}(?::{_COLUMN})?\)?$"
        ),
        opens=re.compile(r"(?:file://)?/[^:]+:\d+$"),
    ),
    _Language(  # Go: a panic, or what `go run` cannot compile
        frame=re.compile(rf"\s*(?P<path>\S+\.go):{_LINE}(?::{_COLUMN}:.*)?(?: \+0x[\da-f]+)?$"),
        opens=re.compile(r"(?:.*\bpanic\b.*|fatal error:|#) "),
        gap=math.inf,
    ),
    _Language(  # Ruby
        frame=re.compile(rf"(?:\s*from )?(?P<path>[^\s:]+\.r[bu]):{_LINE}:"),
        opens=re.compile(r"[^\s:]+\.r[bu]:\d+:.*\([\w:]+\)$"),
    ),
    _Language(  # PHP
        frame=re.compile(rf"(?:#\d+ |.* in )(?P<path>/\S+?\.php)(?::|\(| on line ){_LINE}"),
        opens=re.compile(r".*(?:Uncaught|Fatal error:|Parse error:) "),
        gap=math.inf,
    ),
    _Language(  # the JVM: the file's directory is the package, by custom
        frame=re.compile(
            r"\s+at (?:[^()\s]*/)?(?P<owner>[^()\s/]+)"
            rf"\((?P<path>[\w$-]+\.(?:java|kt|scala|groovy)):{_LINE}\)"
        )
    ),
    _Language(  # .NET
        frame=re.compile(rf"\s+at .* in (?P<path>/.+\.(?:cs|fs|vb)):line {_LINE}$"),
        opens=re.compile(r".*Exception: "),
        gap=math.inf,
    ),
    _Language(  # Rust
        frame=re.compile(rf".*\bpanicked at (?:'.*', )?(?P<path>[^\s:]+\.rs):{_LINE}:{_COLUMN}"),
        opens=re.compile(r".*\bpanicked at "),
    ),
)
_NO_PLACE = re.compile(r"\s+(?:at|from|\.\.\.) |#\d+ ")  # a frame, though perhaps without a path
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_LONGEST = 500  # characters of a log line that count


def crash_location(lines: Sequence[str], project_paths: ProjectPaths) -> Location | None:
    """The innermost place in the project's files of the last trace that has one. `lines` are the
    last ones of a log."""
    found = frames(lines)
    known = project_paths(tuple(dict.fromkeys(frame.path for frame in found)))
    place = next((frame for frame in found if frame.path in known), None)
    if place is None:
        return None
    same = (f.column for f in found if (f.path, f.line) == (place.path, place.line))
    return Location(known[place.path], place.line, next(filter(None, same), None))


def frames(lines: Sequence[str]) -> list[TraceFrame]:
    """The places that traces in a log name: those of the last trace first, in each the innermost
    one first. A trace whose innermost frame may be cut off is left out."""
    text = [_COLOUR.sub("", line[:_LONGEST]).rstrip() for line in lines]
    traces = [trace for language in _LANGUAGES for trace in _traces(language, text)]
    traces.sort(key=lambda trace: trace[0], reverse=True)
    return [frame for _, trace in traces for frame in trace]


def _traces(language: _Language, lines: Sequence[str]) -> Iterator[tuple[int, list[TraceFrame]]]:
    """Each trace of one language: the number of its last line and the frames, innermost first."""
    found: list[list[tuple[int, TraceFrame]]] = [[]]
    # The last line that may have the next frame of a trace. The first one is what was cut off.
    reach = -1.0 if language.down else language.gap - 1
    for number, line in enumerate(lines):
        frame = _frame(language.frame.match(line))
        if language.opens.match(line):
            found.append([])
            reach = math.inf
        elif frame or (number <= reach and _NO_PLACE.match(line)):
            if number > reach:
                found.append([])
            reach = number + language.gap
        if frame:
            found[-1].append((number, frame))
    for trace in filter(None, found[1:]):
        inward = [frame for _, frame in trace]
        yield trace[-1][0], inward[::-1] if language.down else inward


def _frame(match: re.Match[str] | None) -> TraceFrame | None:
    if match is None or not int(match["line"]):
        return None
    groups = match.groupdict()
    package = (groups.get("owner") or "").split(".")[:-2]
    column = int(groups.get("column") or 0) or None
    return TraceFrame(
        path="/".join((*package, match["path"])), line=int(match["line"]), column=column
    )
