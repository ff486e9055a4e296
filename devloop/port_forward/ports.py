"""What port forwarding needs from others beside pods: streams to their ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from devloop.engine.ports import ByteStream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.base.cancel import Cancel
    from devloop.model import PodView


class Duplex(ByteStream, Protocol):
    """A byte stream to a container's port. `receive` raises ConnectionRefusedError when nothing
    listened there, so that no byte was delivered to anybody."""

    def shutdown_write(self) -> bool:
        """Notify the other side that nothing more comes; False when the protocol cannot."""
        ...

    def ping(self) -> None:
        """Make some traffic, so that nobody on the way takes the stream for dead. Raises
        OSError."""
        ...


class Dial(Protocol):
    """Opens streams to containers' ports."""

    def __call__(self, pod: PodView, port: int | str, cancel: Cancel) -> Duplex:
        """Open a stream; `port` is as it was asked for, a number or words. Blocks, in a thread of
        the port forward's.

        Raises `DevloopError` or OSError, and soon after `cancel` was set `Cancelled`."""
        ...

    def prepare(self, pods: Iterable[PodView]) -> None:
        """These pods, and no others, will be dialled from now on. Must not block."""
        ...
