"""What the port forward needs from others: streams to pods, and which pods there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.base.cancel import Cancel
    from devloop.model import PodView

__all__ = ["Dial", "Duplex", "PodSource"]


class Duplex(Protocol):
    """A byte stream to a container's port. Nothing but `close` may take time, and that little.

    Used by one thread at a time. `fileno` is for select; bytes that `receive` would return at
    once although the descriptor is not readable are asked for by calling it until None."""

    def fileno(self) -> int: ...

    def receive(self) -> bytes | None:
        """Bytes, None when there are none now, b"" at the end.

        Raises ConnectionRefusedError when nothing listened on the port (so no byte was delivered
        to anybody), another OSError when the stream broke."""
        ...

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes were taken, 0 when none can be now. Raises OSError."""
        ...

    def flush(self) -> bool:
        """Push what was taken; False when the descriptor must become writable first."""
        ...

    def shutdown_write(self) -> bool:
        """Tell the other side that nothing more comes; False when the protocol cannot."""
        ...

    def ping(self) -> None:
        """Make some traffic, so that nobody on the way takes the stream for dead. Raises
        OSError."""
        ...

    def close(self) -> None: ...


class Dial(Protocol):
    """Opens streams to containers' ports."""

    def __call__(self, pod: PodView, port: int, cancel: Cancel) -> Duplex:
        """Open a stream. Blocks, in a thread of the port forward's.

        Raises `DevloopError` or OSError, and soon after `cancel` was set `Cancelled`."""
        ...

    def prepare(self, pods: Iterable[PodView]) -> None:
        """These pods, and no others, will be dialled from now on. Must not block."""
        ...


class PodSource(Protocol):
    """The pods of each service as the cluster last told."""

    def current(self, service: str) -> tuple[PodView, ...]:
        """Every pod there is, in any order. Called from any thread; must not block."""
        ...

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each change, from any thread; returns how to stop that."""
        ...
