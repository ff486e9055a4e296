"""What a client's connection asks of its surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from devloop.port_forward.client_connection import ClientConnection
    from devloop.port_forward.ports import Duplex

__all__ = ["Hub"]


class Hub(Protocol):
    """What a connection needs from the loop and the route it lives in; all in the loop's thread.

    `unsettled`: the pod's process is to be replaced, or was and nobody has told yet by which."""

    unsettled: bool

    def watch(self, thing: socket.socket | Duplex, mask: int, turn: Callable[[int], None]) -> None:
        """Call `turn` with what `thing` is ready for; a mask of 0 ends that."""
        ...

    def at(self, seconds: float, turn: Callable[[], None]) -> None:
        """Call `turn` once, `seconds` from now."""
        ...

    def soon(self, turn: Callable[[], None]) -> None:
        """Call `turn` once after all others had theirs."""
        ...

    def trusted(self, connection: ClientConnection) -> None:
        """The connection's stream leads somewhere."""
        ...

    def failed(self, connection: ClientConnection, reason: str, *, refused: bool) -> None:
        """The connection's stream led nowhere, nothing is lost, it waits for another one.
        `refused`: nobody listened on the port."""
        ...

    def wants_backend(self, connection: ClientConnection) -> None:
        """The connection was parked and its client has sent another request."""
        ...

    def ended(self, connection: ClientConnection) -> None: ...
