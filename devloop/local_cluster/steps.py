"""How `devloop cluster` reports what it does: one value a change, timed, without any layout."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterProgress:
    """`started` comes before something slow only; `output` passes on a tool's own progress."""

    step: str
    state: Literal["started", "output", "done"]
    detail: str = ""
    seconds: float = 0.0


Report = Callable[[ClusterProgress], None]


@contextlib.contextmanager
def step(report: Report, name: str, slow: str = "") -> Iterator[Callable[[str], None]]:
    """Report a step as done, with the time it took, when the block ends without an error.

    `slow` is reported at the beginning, for steps that let the user wait. The block gets a function
    that takes what came of the step."""
    began = time.monotonic()
    notes = [""]
    if slow:
        report(ClusterProgress(step=name, state="started", detail=slow))
    yield notes.append
    seconds = time.monotonic() - began
    report(ClusterProgress(step=name, state="done", detail=notes[-1], seconds=seconds))
