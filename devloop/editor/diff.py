"""What would become of a file, as a unified diff that `git apply` and `patch -p1` take."""

from __future__ import annotations

import difflib
import re

_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # unlike str.splitlines, which breaks at form feeds as well


def unified(path: str, old: str | None, new: str) -> list[str]:
    """The lines of the diff from `old`, None for a file that is not there; none where nothing
    changes."""
    before, after = _LINE.findall(old or ""), _LINE.findall(new)
    source = "/dev/null" if old is None else f"a/{path}"
    lines = []
    for line in difflib.unified_diff(before, after, source, f"b/{path}"):
        lines.append(line.removesuffix("\n"))
        if not line.endswith("\n"):
            lines.append("\\ No newline at end of file")
    return lines
