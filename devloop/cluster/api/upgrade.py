"""Turn a connection to the API server into one that speaks another protocol (RFC 9110, 7.8), and
read and write it without ever waiting.

Knows HTTP's handshake and nothing of the protocols that follow it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.net import ProxyUnsupported, take_socket
from devloop.base.net_tls import WOULD_BLOCK
from devloop.base.sockets import shut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.base.cancel import Cancel
    from devloop.base.sockets import Socket
    from devloop.cluster.api.connection import Connection


_HANDSHAKE = 10.0  # seconds of silence
_READ = 65536


class UpgradedStream:
    """A byte stream, plain or TLS, that never blocks: wait for `fileno` with select. One thread at
    a time, but for `shut`.

    `headers` are the answer's (names in any case), `rest` is what came after them."""

    def __init__(
        self, sock: Socket, rest: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        sock.setblocking(False)
        self.headers: Mapping[str, str] = headers or {}
        self._sock = sock
        self._rest = rest

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> bytes | None:
        """What has arrived: None when nothing has, b"" at the end. Raises ConnectionResetError."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        try:
            return self._sock.recv(_READ)
        except WOULD_BLOCK:
            return None
        except OSError as error:
            raise _lost(error) from error

    def push(self, out: bytearray) -> bool:
        """Send from the front of `out`; True when all of it has left. Raises
        ConnectionResetError."""
        while out:
            try:
                sent = self._sock.send(out)
            except WOULD_BLOCK:
                return False
            except OSError as error:
                raise _lost(error) from error
            del out[:sent]
        return True

    def shut(self) -> None:
        """End it, from any thread: whoever waits for it wakes up."""
        shut(self._sock)

    def close(self) -> None:
        """Close at once; safe to repeat."""
        self._sock.close()


def _lost(error: OSError) -> ConnectionResetError:
    return ConnectionResetError(f"connection to the API server lost: {error}")


def upgrade(
    connection: Connection, method: str, path: str, headers: Mapping[str, str], cancel: Cancel
) -> UpgradedStream:
    """Ask for `path` with `headers`, which name the protocol; blocks until the server agreed.

    The stream is the caller's to close. Raises `ApiError` for an answer other than 101,
    cluster/unreachable, `Cancelled`."""
    # What is asked for is no object: the API server would answer 406 to anything but */*.
    every = {"Accept": "*/*", "Connection": "Upgrade", **headers}
    # Until the server has agreed nothing has begun.
    answer = connection.send(
        method, path, headers=every, silence=_HANDSHAKE, cancel=cancel, repeatable=True
    )
    if answer.status != 101:
        refused = connection.refused(answer, method, path)
        answer.close()
        raise refused
    try:
        sock, rest = take_socket(answer)
    except ProxyUnsupported as error:
        raise connection.lost(error) from error
    return UpgradedStream(sock, rest, answer.headers)
