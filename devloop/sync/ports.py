"""What the syncer needs from others beside pods: commands in containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from devloop.engine.ports import ByteStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.base.cancel import Cancel
    from devloop.model import PodView


class CommandStream(ByteStream, Protocol):
    """A running command's standard streams.

    `ended` is None while the command runs, then how it ended ("" for success)."""

    ended: str | None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """As `ByteStream.send`, for standard input."""
        ...


class OpenStream(Protocol):
    """Starts a command in a running container. Blocks, in a thread of the syncer's.

    Raises `DevloopError`, OSError, and soon after `cancel` was set `Cancelled`."""

    def __call__(
        self, pod: PodView, container: str, argv: Sequence[str], cancel: Cancel
    ) -> CommandStream: ...
