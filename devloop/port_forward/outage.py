"""When a port where nobody answers is tried again: the back-off of one route.

After a failure one connection at a time tries whether it works again (the trial); the others wait
for what it meets. Pure: times are monotonic seconds and come from the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from devloop.port_forward.settings import ForwardSettings


T = TypeVar("T")


class Outage(Generic[T]):
    """`refused`: nobody listened on the port. `trial`: the connection that tries. `cost`: seconds
    that the last dial took. Nobody is dialled while it is `resting`."""

    def __init__(self, settings: ForwardSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._since = 0.0
        self._failed_at = 0.0
        self.refused = False
        self.trial: T | None = None
        self.cost = 0.0
        self.resting = False

    def __bool__(self) -> bool:
        """Whether the last dial failed."""
        return self._failures > 0

    def allows_dial(self) -> bool:
        """Whether somebody may be dialled for; during an outage it becomes the trial."""
        return not self._failures or (self.trial is None and not self.resting)

    def end_trial(self, connection: T) -> bool:
        """`connection` will not show any more whether it works again; False if it was not to."""
        if self.trial is not connection:
            return False
        self.trial = None
        return True

    def lasted(self, now: float) -> float:
        return now - self._since if self._failures else 0.0

    def begin(self, now: float) -> None:
        """It is known, without a dial, that nobody listens."""
        self._since = self._failed_at = now
        self._failures, self.refused = 1, True

    def failed(self, now: float, *, began: float, refused: bool) -> float | None:
        """A dial that began at `began` failed; the seconds to wait, None when it was known.

        Those who dialled in the same round learn the same thing; it counts once."""
        if began < self._failed_at:
            return None
        if not self._failures:
            self._since = now
        self._failures += 1
        self._failed_at = now
        self.refused = self.refused or refused
        limits = self._settings
        pause = max(
            limits.shortest_pause,
            self.lasted(now) * limits.pause_per_outage,
            self.cost * limits.pause_per_cost,
        )
        return min(pause, limits.longest_pause)

    def over(self) -> None:
        """Somebody answers."""
        self._failures, self.resting, self.refused = 0, False, False
