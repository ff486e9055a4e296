"""A time limit that waits for people: while somebody has stopped the program that is waited for, it
does not count."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_HALTED: Final = 600.0
"""Seconds, as long as probes wait for a program at a breakpoint (cluster/deploy/probes.py)."""

_AGAIN = 10.0  # seconds until it is asked again, and that are left after it goes on


class Deadline:
    """`seconds` from now; `halted` says, once they are over, whether the program stands still."""

    def __init__(self, seconds: float, halted: Callable[[], bool] = lambda: False) -> None:
        self._halted = halted
        self.at = time.monotonic() + seconds
        self._last = self.at + MOST_HALTED

    def passed(self) -> bool:
        """Whether it is over; else `at` is when to ask again (monotonic)."""
        now = time.monotonic()
        if now < self.at:
            return False
        if now >= self._last or not self._halted():
            return True
        self.at = min(now + _AGAIN, self._last)
        return False
