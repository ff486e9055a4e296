"""How tests are shared out to several processes.

Each process is given files, so that it imports and collects its own part alone: to collect all of
them takes longer than to run a third of those that need no machine. How long each file took the
last time is kept in the cache.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from . import cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# What pytest and the imports of a test file take before its first test, in seconds.
COLLECTED = 0.05
# What the tests of a file are taken to need for each of its bytes until they were run once: those
# that need no machine, and those that do.
A_BYTE = 1e-5
A_MACHINE_BYTE = 1e-2


def divide(
    root: Path,
    files: Sequence[str],
    count: int,
    together: Callable[[str], str] = str,
    a_byte: float = A_BYTE,
) -> list[list[str]]:
    """Return the files in `count` shares, or fewer, that take about as long as each other; those of
    which `together` gives the same stay in one. `a_byte` is for those that were not run yet."""
    known = seconds_of()
    groups: defaultdict[str, list[str]] = defaultdict(list)
    needs: defaultdict[str, float] = defaultdict(float)
    for file in files:
        group = together(file)
        groups[group].append(file)
        needs[group] += COLLECTED + known.get(file, (root / file).stat().st_size * a_byte)
    shares: list[tuple[float, list[str]]] = [(0.0, []) for _ in range(min(count, len(groups)))]
    for group in sorted(needs, key=lambda group: (-needs[group], group)):
        shares.sort(key=lambda share: share[0])
        taken, mine = shares[0]
        shares[0] = (taken + needs[group], [*mine, *groups[group]])
    return sorted(sorted(mine) for _, mine in shares)


def seconds_of() -> dict[str, float]:
    """Return how long the tests of each file took the last time."""
    try:
        known = json.loads(_place().read_text())
        return {str(file): float(seconds) for file, seconds in known.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def remember(seconds: Mapping[str, float]) -> None:
    """Keep how long the tests of these files took."""
    if not seconds:
        return
    place = _place()
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{cache.PART}{place.name}")
    part.write_text(json.dumps({**seconds_of(), **seconds}, indent=0, sort_keys=True))
    part.replace(place)


def _place() -> Path:
    return cache.home() / "test-seconds.json"
