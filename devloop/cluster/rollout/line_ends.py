"""Scripts with the line ends of Windows, which no interpreter is found for.

What the system says of them ("no such file or directory", of a file that is there) leads everybody
astray. Reads no more than the first line of a file that a crash is about; never raises.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.cluster.rollout.stack_traces import ProjectPaths


# What shells and env(1) make of the carriage return: written out, or as it is at a line's end.
_WRITTEN_OUT = re.compile(r"\\r['\u2019\": ]|\^M|illegal option -\s*$|: not found\r", re.IGNORECASE)
# The file that could not be started: by runc and by devloop's supervisor, by bash, by env.
_NOT_STARTED = re.compile(
    r"exec:? \"?(?P<a>/[^\s\":]+)\"?: (?:stat \S+ )?no such file|"
    r"(?P<b>/[^\s:]+): (?:line \d+: )?(?:cannot execute: required file not|.*bad interpreter)",
    re.IGNORECASE,
)
_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsLineEnds:
    """`path` is the file as the user would type it, "" where only the container's is known."""

    path: str = ""

    @property
    def cause(self) -> str:
        what = self.path or "a script of the image"
        return (
            f"{what} has the line ends of Windows (CRLF): its first line asks for an interpreter "
            "whose name ends in a carriage return"
        )

    @property
    def suggestions(self) -> tuple[str, ...]:
        path = self.path or "FILE"
        name = os.path.splitext(path)[1]  # noqa: PTH122 - text
        pattern = f"*{name}" if name else os.path.basename(path)  # noqa: PTH119 - likewise
        return (
            f"save it with line ends LF: sed -i 's/\\r$//' {path}",
            f"keep git from writing others: `{pattern} text eol=lf` in .gitattributes",
        )


def _first_line(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as the user would type it
            return file.readline(_LONGEST)
    except OSError:
        return b""


def windows_line_ends(
    lines: Sequence[str],
    project_paths: ProjectPaths | None,
    first_line: Callable[[str], bytes] = _first_line,
) -> WindowsLineEnds | None:
    """Whether that is why the container whose last log lines these are does not start."""
    started = [found for line in lines if (found := _NOT_STARTED.search(line))]
    named = [path for found in started if (path := found["a"] or found["b"])]
    known = project_paths(named) if project_paths is not None and named else {}
    for path in named:
        shown = known.get(path, "")
        if shown and first_line(shown).endswith(b"\r\n"):
            return WindowsLineEnds(path=shown)
    if any(_WRITTEN_OUT.search(line) for line in lines[-5:]):
        return WindowsLineEnds()
    return None
