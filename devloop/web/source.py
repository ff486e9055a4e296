"""The source lines that a problem speaks of. Only files that a diagnostic of the session names are
read: whoever has the page gets no others."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.events import DiagnosticRaised

if TYPE_CHECKING:
    from devloop.web.feed import Happened


# Lines that are shown before and after the one in question.
_BEFORE, _AFTER = 3, 2

# A file is quoted up to this size, in bytes, and a line up to this many characters.
_LARGEST = 1024 * 1024
_LONGEST = 400


def source_of(happened: Happened, seq: int) -> dict[str, Any]:
    """For the diagnostic with number `seq`: `first`, the number of the first of the `lines`, and
    which is `meant`; no lines where there is nothing to show."""
    nothing: dict[str, Any] = {"first": 0, "meant": 0, "lines": []}
    for record in happened.after(seq - 1, 1):
        event = record.event
        if record.seq != seq or not isinstance(event, DiagnosticRaised) or event.location is None:
            return nothing
        meant = event.location.line
        if not meant:
            return nothing
        lines = _read(Path(happened.state().get("root", ""), event.location.path))
        first = max(1, meant - _BEFORE)
        shown = [line.expandtabs(4).rstrip()[:_LONGEST] for line in lines]
        return {"first": first, "meant": meant, "lines": shown[first - 1 : meant + _AFTER]}
    return nothing


def _read(place: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        if place.is_file() and place.stat().st_size <= _LARGEST:
            return place.read_text(encoding="utf-8", errors="replace").splitlines()
    return []
