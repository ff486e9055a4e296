"""What the syncer needs from others: commands in containers, and which pods there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.base.cancel import Cancel
    from devloop.model import PodView

__all__ = ["OpenStream", "PodSource", "Stream"]


class Stream(Protocol):
    """A running command's standard streams; no call blocks, `fileno` is for select.

    `ended` is None while the command runs, then how it ended in words ("" for success)."""

    ended: str | None

    def fileno(self) -> int: ...

    def receive(self) -> bytes | None:
        """Output: None when there is none now, b"" for good when the command ended. Raises OSError
        when the stream broke."""
        ...

    def send(self, data: memoryview) -> int:
        """How many bytes were taken as input, 0 when none can be now. Raises OSError."""
        ...

    def flush(self) -> bool:
        """Push what was taken; False when the descriptor must become writable first."""
        ...

    def close(self) -> None: ...


class OpenStream(Protocol):
    """Starts a command in a running container. Blocks, in a thread of the syncer's.

    Raises `DevloopError`, OSError, and soon after `cancel` was set `Cancelled`."""

    def __call__(
        self, pod: PodView, container: str, argv: Sequence[str], cancel: Cancel
    ) -> Stream: ...


class PodSource(Protocol):
    """The pods of each service as the cluster last told."""

    def current(self, service: str) -> tuple[PodView, ...]:
        """Every pod there is, in any order. Called from any thread; must not block."""
        ...

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each change, from any thread; returns how to stop that."""
        ...
