"""How a diagnosis is put into words: the block on stderr and the line that editors match.

Pure, and free of imports that cost time: every command can fail, also `--help`.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from devloop.ui.sanitize import coloured, plain
from devloop.ui.text import path_from

if TYPE_CHECKING:
    from devloop.errors import Diagnosis


# What editors take for a problem.
_PROBLEM = re.compile(r"(:[0-9]+:[0-9]+: (?:error|warning|info))\[(?=[a-z/-]+\]: )")

_SEVERITY_COLOUR = {"error": "1;31", "warning": "1;33", "info": "1;36"}


def problem_line(diagnosis: Diagnosis, *, root: str = "") -> str:
    """`path:line:col: error[code]: message`, the path relative to `root` if it lies in there.

    Without a place: `devloop: error[code]: message`. Always one line of plain text."""
    head = f"{diagnosis.severity}[{diagnosis.code}]"
    message = plain(diagnosis.message)
    place = diagnosis.location
    if place is None:
        return not_a_problem(f"devloop: {head}: {message}")
    path = path_from(root, place.path)
    return f"{path}:{place.line or 1}:{place.column or 1}: {head}: {not_a_problem(message)}"


def not_a_problem(text: str) -> str:
    """`text` such that no editor takes it for a problem of ours: a space is put in if need be."""
    return _PROBLEM.sub(r"\1 [", text)


def explanation(diagnosis: Diagnosis) -> list[str]:
    """The lines below a problem line: evidence, cause and what to try, indented, never a problem
    to an editor themselves."""
    lines = [f"    {plain(line)}" for line in diagnosis.detail]
    if diagnosis.cause:
        lines.append(f"  cause  {plain(diagnosis.cause)}")
    lines += _tries(diagnosis.suggestions)
    return [not_a_problem(line).rstrip() for line in lines]


def format_diagnosis(diagnosis: Diagnosis, *, color: bool = False, width: int = 80) -> str:
    """The block that a command prints on stderr before it ends; no newline at the end.

    Long lines are broken at `width` columns, 0 leaves them whole; evidence is never broken."""
    paint = _paint if color else lambda text, _sgr: text
    head = paint(f"{diagnosis.severity}[{diagnosis.code}]", _SEVERITY_COLOUR[diagnosis.severity])
    lines = [f"{head}: {paint(plain(diagnosis.message), '1')}"]
    if diagnosis.location is not None:
        lines.append(f"  at {paint(plain(str(diagnosis.location)), '36')}")
    show = coloured if color else plain
    lines += [f"    {show(line)}".rstrip() for line in diagnosis.detail]
    words = [f"  cause  {plain(diagnosis.cause)}"] if diagnosis.cause else []
    for line in [*words, *_tries(diagnosis.suggestions)]:
        lines += _wrapped(line, width)
    return "\n".join(lines)


def _tries(suggestions: tuple[str, ...]) -> list[str]:
    labels = ["  try    ", *["         "] * len(suggestions)]
    return [label + plain(text) for label, text in zip(labels, suggestions, strict=False)]


def _wrapped(line: str, width: int) -> list[str]:
    if not width or len(line) <= width:
        return [line]
    # A command to copy must stay whole, so words are never cut.
    return textwrap.wrap(
        line,
        max(width, 40),
        subsequent_indent=" " * 9,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
    )


def _paint(text: str, sgr: str) -> str:
    return f"\x1b[{sgr}m{text}\x1b[0m"
