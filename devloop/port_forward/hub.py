"""What a client's link asks of its surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from devloop.port_forward.client_connection import ClientConnection
    from devloop.port_forward.ports import Duplex

__all__ = ["Hub"]


class Hub(Protocol):
    """What a link needs from the loop and the route it lives in; all in the loop's thread.

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

    def trusted(self, link: ClientConnection) -> None:
        """The link's stream leads somewhere."""
        ...

    def failed(self, link: ClientConnection, reason: str, *, refused: bool) -> None:
        """The link's stream led nowhere, nothing is lost, the link waits for another one.
        `refused`: nobody listened on the port."""
        ...

    def hungry(self, link: ClientConnection) -> None:
        """The link was put aside and its client has sent another request."""
        ...

    def ended(self, link: ClientConnection) -> None: ...
