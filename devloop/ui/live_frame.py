"""How the live view shows a problem: what, where in the source, the evidence, why, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.ui.live_parts import Row
from devloop.ui.text import path_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.events import DiagnosticRaised
    from devloop.ui.live_parts import Glyphs


# Lines above the one in question.
_ABOVE = 1


def frame(
    event: DiagnosticRaised,
    *,
    root: str,
    glyphs: Glyphs,
    read_source: Callable[[str], list[str] | None],
) -> list[Row]:
    """The rows of one problem, with an empty one above and below."""
    code = (f"   [{event.code}]", "soft")
    message = ("  " + event.message, "strong")
    source: list[Row] = []
    if event.location is None:
        rows = [Row(), Row.of(message, code, hang=2)]
    else:
        path = path_from(root, event.location.path)
        line = f":{event.location.line}" if event.location.line else ""
        rows = [Row(), Row.of(message, hang=2), Row.of((f"  {path}{line}", "place"), code, hang=2)]
        if event.location.line:
            lines = read_source(event.location.path) or []
            # The evidence may quote the line itself; once is enough.
            at = lines[event.location.line - 1 : event.location.line]
            if at and not any(at[0].strip() in detail for detail in event.detail):
                source = _excerpt(lines, event.location.line, glyphs)
    gutter = len(str(event.location.line)) + 4 if source and event.location else 3
    margin = f"{' ' * gutter} {glyphs.bar} "
    rows += source
    rows += [
        Row(((margin, "soft"), (text, "none")), hang=gutter + 3) for text in _trimmed(event.detail)
    ]
    if event.cause:
        rows.append(Row.of(("  cause   ", "soft"), event.cause, hang=10))
    for index, text in enumerate(event.suggestions):
        label = "try" if not index else ""
        rows.append(Row.of((f"  {label:<8}", "soft"), text, hang=10))
    return [*rows, Row()]


def _excerpt(lines: list[str], number: int, glyphs: Glyphs) -> list[Row]:
    width = len(str(number))
    rows = []
    for at in range(max(1, number - _ABOVE), number + 1):
        here = at == number
        mark = "  > " if here else "    "
        rows.append(
            Row(
                (
                    (mark, "bad"),
                    (f"{at:>{width}} {glyphs.bar} ", "soft"),
                    (lines[at - 1].expandtabs(4).rstrip(), "strong" if here else "none"),
                ),
                wrap=False,
            )
        )
    return rows


def _trimmed(detail: tuple[str, ...]) -> list[str]:
    lines = [line.rstrip() for line in detail]
    while lines and not lines[-1]:
        lines.pop()
    return lines
