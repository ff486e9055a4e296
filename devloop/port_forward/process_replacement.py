"""Whether the process of a route's pod is about to go or gone, and what that makes of connections.

A replacement begins when the pod asks for another image. From then on nobody new is sent to the
old process, and the port is probed until nobody listens or the new container is reported. Each
process, as far as is known, is an epoch; connections of an earlier one are left behind. Pure:
times are monotonic seconds and come from the caller.
"""

from __future__ import annotations

import collections
import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devloop.port_forward.settings import ForwardSettings


class OldProcess(enum.Enum):
    """What a probe shows: the old process listens, nobody does, or it does not matter by now."""

    LISTENS = enum.auto()
    GONE = enum.auto()
    IRRELEVANT = enum.auto()


class ProcessReplacement:
    """`unsettled`: the process is to be replaced, or was and it was not reported yet by which."""

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

    def new_epoch(self) -> None:
        """Nobody listens: whoever does next is another process."""
        self.epoch += 1

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
