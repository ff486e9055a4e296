"""Where saves come faster than builds end: newest wins, but not for ever.

Counts what was superseded before its deploy, and names the path that keeps changing. Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.patterns import ignore_line
from devloop.errors import Code, Diagnosis
from devloop.model import Scan, Step

if TYPE_CHECKING:
    from devloop.engine.state import Iteration
    from devloop.engine.turn import Turn


# After so many iterations in a row that a newer change ended before their deploy, one goes through.
SUPERSEDED = 3

# How many changed paths of each are remembered.
_LISTED = 20


def goes_through(running: Iteration, scan: Scan) -> bool:
    """Whether an iteration is not superseded by what `scan` found: newest wins, but not for ever.

    Once it is deployed, only what kept changing anyway is not worth breaking its rollout off."""
    noise = running.let_through
    return noise is not None and (running.deployed is None or noise.issuperset(scan.changed))


def count_superseded(turn: Turn, changed: tuple[str, ...]) -> None:
    superseded = (*turn.service.superseded, changed[:_LISTED])
    turn.service = replace(turn.service, superseded=superseded[-SUPERSEDED:])


def name_noise(turn: Turn, number: int, scan: Scan) -> None:
    """Report once which file changes faster than images are made."""
    counted = Counter(path for paths in turn.service.superseded for path in paths)
    path = counted.most_common(1)[0][0] if counted else "a file"
    if path == turn.service.noisy:
        return
    turn.service = replace(turn.service, noisy=path)
    ignored = _in_context(path, scan)
    turn.report(
        Diagnosis(
            code=Code.BUILD_KEEPS_CHANGING,
            severity="warning",
            message=f"{path} changes faster than an image is built and deployed",
            cause=f"{SUPERSEDED} iterations in a row were superseded before their deploy; "
            "this one is let through to its end",
            suggestions=(
                "if the image does not need it, add this line to .dockerignore: "
                f"{ignore_line(ignored)}"
                if ignored
                else "keep what is written all the time out of the image with .dockerignore",
            ),
        ),
        number,
        Step.BUILD,
    )


def _in_context(path: str, scan: Scan) -> str | None:
    """The path as .dockerignore has it, from one relative to the project."""
    parts = path.split("/")
    tails = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((tail for tail in tails if tail in scan.snapshot.entries), None)
