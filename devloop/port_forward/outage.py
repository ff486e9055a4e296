"""A port where nobody answers: when it is tried again, and whether its process is being replaced.

Pure: times are monotonic seconds and come from the caller.
"""

from __future__ import annotations

import collections
import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devloop.port_forward.settings import ForwardSettings


class Outage:
    """The back-off of one route: after a failure one connection at a time tries whether it works
    again (the trial), and the others wait for what it meets.

    `refused`: nobody listened on the port. `trial`: the connection that tries. `cost`: seconds
    that the last dial took. Nobody is dialled while it is `resting`."""

    def __init__(self, settings: ForwardSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._since = 0.0
        self._failed_at = 0.0
        self.refused = False
        self.trial: object = None
        self.cost = 0.0
        self.resting = False

    def __bool__(self) -> bool:
        """Whether the last dial failed."""
        return self._failures > 0

    def allows_dial(self) -> bool:
        """Whether somebody may be dialled for; during an outage it becomes the trial."""
        return not self._failures or (self.trial is None and not self.resting)

    def end_trial(self, connection: object) -> bool:
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


class OldProcess(enum.Enum):
    """What a probe shows: the old process listens, nobody does, or it does not matter by now."""

    LISTENS = enum.auto()
    GONE = enum.auto()
    IRRELEVANT = enum.auto()


class ProcessReplacement:
    """Whether the process of a route's pod is about to go or gone.

    It begins when the pod asks for another image. From then on nobody new is sent to the old
    process, and the port is probed until nobody listens or the new container is reported. Each
    process, as far as is known, is an epoch; connections of an earlier one are left behind.
    `unsettled`: the process is to be replaced, or was and it was not reported yet by which."""

    def __init__(self, settings: ForwardSettings) -> None:
        self._settings = settings
        self._going_since: float | None = None
        self._probing = False
        self._began: float | None = None  # until the new process answers
        self._took: collections.deque[float] = collections.deque(maxlen=3)  # the last ones
        self.unsettled = False
        self.epoch = 0

    @property
    def is_going(self) -> bool:
        """Whether the old process may still listen."""
        return self._going_since is not None

    @property
    def rest_until(self) -> float:
        """Nobody needs to be dialled before: the new process cannot be there yet."""
        if self._began is None or not self._took:
            return 0.0
        rest = min(self._settings.rest_share * min(self._took), self._settings.longest_rest)
        return self._began + rest

    def begin(self, now: float) -> None:
        """The pod asks for another image: its process will be replaced."""
        self._going_since = self._began = now
        self.unsettled = True
        self.epoch += 1

    def is_overdue(self, began: float) -> bool:
        """The replacement that began then has had its time; True if it is still under way, which
        ends the waiting for it."""
        if self._going_since != began:
            return False
        self._going_since = None
        return True

    def container_reported(self) -> None:
        """The pod's new container runs."""
        self._going_since, self.unsettled = None, False

    def reset(self) -> None:
        """Another pod is the target now."""
        self._going_since = self._began = None
        self.unsettled = False

    def answered(self, now: float) -> None:
        """Somebody listens again where nobody did."""
        if self._began is not None:
            self._took.append(now - self._began)
            self._began = None

    # --- probes ----------------------------------------------------------------------------

    def start_probe(self) -> float | None:
        """What to give to `probed`, None when there is nothing to probe or one is under way."""
        if self._probing or self._going_since is None:
            return None
        self._probing = True
        return self._going_since

    def probed(self, began: float, *, refused: bool) -> OldProcess:
        self._probing = False
        if self._going_since != began:
            return OldProcess.IRRELEVANT
        if not refused:
            return OldProcess.LISTENS
        self._going_since = None
        return OldProcess.GONE
