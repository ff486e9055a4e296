"""A container's process that devloop starts anew: how, what is awaited of it, and when one that
ended by itself is started again. Speaks with nobody.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import field
from typing import TYPE_CHECKING

from devloop.base.deadline import Deadline
from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from devloop.errors import Diagnosis
    from devloop.model import PodView
    from devloop.sync.protocol import ProcessNews


_FIRST_REVIVAL, _LONGEST_REVIVAL = 1.0, 10.0
# Seconds for which nothing changes: while it listens on another port, and while it does not.
_MOVED, _FEWER = 1.0, 10.0


@dataclass(slots=True)
class SyncAttempt:
    """One desired state and what became of it; `done` is set at the end. `error` is None when the
    container has it; `gone` when the container ended first. `restarted`: by a new process; `waits`:
    what it still waits for."""

    done: threading.Event = field(default_factory=threading.Event)
    error: DevloopError | None = None
    gone: bool = False
    changes: int = 0
    restarted: bool = False
    waits: str = ""

    def finish(self, error: DevloopError | None = None, *, gone: bool = False) -> None:
        self.error = self.error or error
        self.gone = self.gone or gone
        self.done.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How a container's process is started anew: it has `stop_timeout` seconds to end, and `limit`
    to listen again where the one before did. `ended` makes the error of one that ended by itself,
    from how it did; `report` is told when it did so while nothing was awaited. `starts` is told
    before each start (pod, container, False), and when the new process serves (True). `ports` are
    those that somebody connects to, beside the ones that the container's spec names; read at each
    start. While it is `halted` by a debugger, the limit does not count."""

    stop_timeout: float
    limit: float
    ended: Callable[[PodView, str, str], DevloopError]
    report: Callable[[Diagnosis], None]
    starts: Callable[[PodView, str, bool], None] = lambda _pod, _container, _done: None
    ports: AbstractSet[int] = frozenset()
    halted: Callable[[], bool] = lambda: False


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
    """A start of the process that `attempt` waits for; `count` is its number, once it is known.

    The process is to listen on all ports of the one before. An edit may take one away or move it:
    then it serves once no more changes for a while, unless one of the `declared` ports is missing
    (those that the manifest or devloop.yaml names), which is where others look for it."""

    attempt: SyncAttempt
    limit: float
    halted: Callable[[], bool] = lambda: False
    declared: frozenset[int] = frozenset()
    count: int | None = None
    since: float = field(default_factory=time.monotonic)
    ports: ProcessNews | None = None
    _deadline: Deadline = field(init=False)
    _ports_since: float = 0.0

    def __post_init__(self) -> None:
        self._deadline = Deadline(self.limit, self.halted)

    def left(self) -> float:
        """Seconds until it is `settled` or failed."""
        ends = -math.inf if self._deadline.passed() else self._deadline.at
        return min(ends, self._settles()) - time.monotonic()

    def settled(self) -> bool:
        return self._settles() <= time.monotonic()

    def is_about(self, told: ProcessNews) -> bool:
        return self.count is not None and told.count >= self.count

    def waits(self, told: ProcessNews) -> None:
        """What it waits for, as of now."""
        before = self.ports
        self.ports = told
        if before is None or (before.missing, not before.other) != (told.missing, not told.other):
            self._ports_since = time.monotonic()
        self.attempt.waits = (
            f"the process was started anew and does not {_listen(self._waits_for(told))} yet"
        )

    def silent(self, pod: str) -> DevloopError:
        """The error of one that did not come."""
        ports = self.ports
        missing = self._waits_for(ports)
        suggestions = ["raise `deploy.timeout` if it needs longer", "look at its log"]
        cause = "the files are in place and it was started anew; the one before listened"
        if named := missing & self.declared:
            cause += f", and the manifest or `ports:` names {_comma(named)}"
            if ports and ports.other:
                where = f"it listens on {_comma(ports.other)} now"
                suggestions.insert(0, f"{where}: name that there, or listen where it did")
            else:
                suggestions.insert(0, "take the port and its probes out of these if it is to go")
        return DevloopError.of(
            Code.POD_DEADLINE,
            f"the process in pod {pod} does not {_listen(missing)} again after {self.limit:g} s",
            cause=cause,
            suggestions=tuple(suggestions),
        )

    def _waits_for(self, ports: ProcessNews | None) -> frozenset[int]:
        """What it is about: a listener of another container may be missing as well."""
        missing = ports.missing if ports else frozenset()
        return missing & self.declared or missing

    def _settles(self) -> float:
        if self.ports is None or self.ports.missing & self.declared:
            return math.inf
        return self._ports_since + (_MOVED if self.ports.other else _FEWER)


def _listen(ports: frozenset[int]) -> str:
    return f"listen on {_comma(ports)}" if ports else "listen"


def _comma(ports: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(ports)))
