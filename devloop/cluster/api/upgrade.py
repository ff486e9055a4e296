"""Turn a connection to the API server into one that speaks another protocol (RFC 9110, 7.8).

Knows HTTP's handshake and nothing of the protocols that follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.base.net import ProxyUnsupported, take_socket
from devloop.cluster.api.api_errors import status_error
from devloop.cluster.api.connection import unusable_proxy

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection

__all__ = ["Upgraded", "upgrade"]

_HANDSHAKE = 10.0  # seconds of silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """`headers` are the answer's, their names in any case; `rest` is what came after them. `sock`
    does not block."""

    sock: socket.socket
    headers: Mapping[str, str]
    rest: bytes


def upgrade(
    connection: Connection, method: str, path: str, headers: Mapping[str, str], cancel: Cancel
) -> Upgraded:
    """Ask for `path` with `headers`, which name the protocol; blocks until the server agreed.

    The socket is the caller's to close. Raises `ApiError` for an answer other than 101,
    cluster/unreachable, `Cancelled`."""
    # What is asked for is no object: the API server would answer 406 to anything but */*.
    every = {"Accept": "*/*", "Connection": "Upgrade", **headers}
    answer = connection.send(method, path, headers=every, silence=_HANDSHAKE, cancel=cancel)
    if answer.status != 101:
        body = answer.data
        answer.close()
        raise status_error(
            answer.status,
            body,
            method=method,
            path=path.partition("?")[0],
            server=connection.server,
            user=connection.user,
        )
    try:
        sock, rest = take_socket(answer)
    except ProxyUnsupported as error:
        raise unusable_proxy(error) from error
    return Upgraded(sock=sock, headers=answer.headers, rest=rest)
