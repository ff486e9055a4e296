"""Reading and writing a connection to the API server without ever waiting for it.

Plain or TLS: a TLS socket may want to read in order to write. Knows no protocol.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

__all__ = ["push", "read_now"]

_READ = 65536
_BUSY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def read_now(sock: socket.socket) -> bytes | None:
    """What has arrived: None when nothing has, b"" at the end. Raises ConnectionResetError."""
    try:
        return sock.recv(_READ)
    except _BUSY:
        return None
    except OSError as error:
        raise _lost(error) from error


def push(sock: socket.socket, out: bytearray) -> bool:
    """Send from the front of `out`; True when all of it has left. Raises ConnectionResetError."""
    while out:
        try:
            sent = sock.send(out)
        except _BUSY:
            return False
        except OSError as error:
            raise _lost(error) from error
        del out[:sent]
    return True


def _lost(error: OSError) -> ConnectionResetError:
    return ConnectionResetError(f"connection to the API server lost: {error}")
