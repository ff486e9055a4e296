"""What the syncer needs from others beside pods: commands in containers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from devloop.engine.ports import ByteStream

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.model import PodView


class CommandStream(ByteStream, Protocol):
    """A running command's standard streams.

    `ended` is None while the command runs, then how it ended ("" for success)."""

    ended: str | None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """As `ByteStream.send`, for standard input."""
        ...


OpenStream = Callable[["PodView", str, Sequence[str], "Cancel"], CommandStream]
"""Starts a command, given by its arguments, in a container of this name. Blocks, in a thread of the
syncer's. Raises `DevloopError`, OSError, and soon after the `Cancel` was set `Cancelled`."""
