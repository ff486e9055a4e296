"""A container's process that devloop starts anew: how, what is awaited of it, and when one that
ended by itself is started again. Speaks with nobody.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import field
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.errors import DevloopError, Diagnosis
    from devloop.model import PodView
    from devloop.sync.protocol import ProcessNews


_FIRST_REVIVAL, _LONGEST_REVIVAL = 1.0, 10.0


@dataclass(slots=True)
class SyncAttempt:
    """One desired state and what became of it; `done` is set at the end. `error` is None when the
    container has it; `gone` when the container ended first. `restarted`: by a new process."""

    done: threading.Event = field(default_factory=threading.Event)
    error: DevloopError | None = None
    gone: bool = False
    changes: int = 0
    restarted: bool = False

    def finish(self, error: DevloopError | None = None, *, gone: bool = False) -> None:
        self.error = self.error or error
        self.gone = self.gone or gone
        self.done.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How a container's process is started anew: it has `stop_timeout` seconds to end, and `limit`
    to listen again where the one before did. `ended` makes the error of one that ended by itself,
    from how it did; `report` is told when it did so while nothing was awaited. `starts` is told
    before each start (pod, container, False), and when the new process serves (True)."""

    stop_timeout: float
    limit: float
    ended: Callable[[PodView, str, str], DevloopError]
    report: Callable[[Diagnosis], None]
    starts: Callable[[PodView, str, bool], None] = lambda _pod, _container, _done: None


class Revival:
    """When a process is started again that ended without a save, as the kubelet would do it, but
    sooner: what it needs may be back. One that ends at a save waits for the next one."""

    def __init__(self) -> None:
        self._due = math.inf
        self._pause = _FIRST_REVIVAL
        self._last = 0.0

    def left(self) -> float:
        return self._due - time.monotonic()

    def done(self) -> None:
        self._due, self._last = math.inf, time.monotonic()

    def after_end(self) -> None:
        lived = time.monotonic() - self._last
        self._pause = min(self._pause * 2, _LONGEST_REVIVAL)
        if lived > _LONGEST_REVIVAL * 2:
            self._pause = _FIRST_REVIVAL
        self._due = time.monotonic() + self._pause


@dataclass(slots=True)
class AwaitedStart:
    """A start of the process that `attempt` waits for; `count` is its number, once it is known."""

    attempt: SyncAttempt
    limit: float
    count: int | None = None
    since: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return self.since + self.limit - time.monotonic()

    def is_about(self, told: ProcessNews) -> bool:
        return self.count is not None and told.count >= self.count
