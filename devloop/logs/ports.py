"""What a follower reads: a container's log as the API streams it, and the files behind it.

Neither knows what was read before; that is the follower's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel
    from devloop.model import PodView


class OpenLog(Protocol):
    """One request for a container's log, followed, with timestamps.

    Yields bytes in chunks of any size until the container ends or the stream breaks. Raises
    `Cancelled` soon after `cancel` is set, `DevloopError` when refused, `OSError` when broken."""

    def __call__(
        self,
        pod: PodView,
        container: str,
        *,
        since_time: str | None,
        previous: bool,
        cancel: Cancel,
    ) -> Iterator[bytes]: ...


class LogFiles(Protocol):
    """The files behind a log. Both raise `DevloopError`, `OSError` or `Cancelled`."""

    def first_line(self, pod: PodView, container: str, *, cancel: Cancel) -> bytes:
        """The beginning of the newest file, its timestamp first; empty when it is empty."""
        ...

    def rotated(
        self, pod: PodView, container: str, *, restarts: int, since: str, cancel: Cancel
    ) -> Iterator[bytes]:
        """What stands in the files beside the newest, the oldest first, in the stream's form. What
        lies before the timestamp `since` may be left out."""
        ...
