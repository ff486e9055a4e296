"""One writer at a time for a workload: two services may live in one Deployment.

It is held over requests to the cluster, which may be silent for long, so whoever waits for it can
be cancelled.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel


class WorkloadLock:
    """As `threading.Lock`, but for the waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False

    @contextlib.contextmanager
    def acquired(self, cancel: Cancel) -> Iterator[None]:
        """Raises `Cancelled`, also where the lock could be had."""
        with cancel.closing(self._wake), self._changed:
            while self._taken and not cancel.is_set():
                self._changed.wait()
            cancel.check()
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
