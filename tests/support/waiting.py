"""Waiting for what another thread or process does: until it is so, with a deadline."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_SECONDS = 0.002


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `condition()` is true; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(STEP_SECONDS)


class Overdue:
    """Stands for the module `time` where a limit is looked after: an hour passes once `due()`.

    It passes one look later, so that what a program wrote before that is read in between. `due` is
    what the program leaves behind when it has written everything.
    """

    sleep = staticmethod(time.sleep)

    def __init__(self, due: Callable[[], bool]) -> None:
        self._due = due
        self._is_due = False

    def monotonic(self) -> float:
        """Return what the clock shows by now, in seconds."""
        later = 3600.0 if self._is_due else 0.0
        self._is_due = self._is_due or self._due()
        return time.monotonic() + later


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not reaped yet does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # there is no /proc: init reaps soon
        return True
    return state != "Z"
