"""A hold on the socket of a call that blocks, for the thread that ends it."""

from __future__ import annotations

import contextlib
import http.client
import threading
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from devloop.base.sockets import shut

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel


# What a connection that breaks raises, wherever it breaks.
BROKEN = (OSError, http.client.HTTPException, HTTPError)


class Shutter:
    """Holds the socket that one call uses; `shut` makes whatever blocks on it return at once.

    `shut` may come before there is a socket: the next one is then refused. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._copied = False
        self.closed = False

    def hold(self, sock: socket.socket, *, copy: bool = False) -> None:
        """`copy`: a duplicate, for a socket that TLS is about to take over. Raises
        ConnectionAbortedError when it was shut already."""
        with self._lock:
            self._drop()
            self._socket, self._copied = (sock.dup() if copy else sock), copy
            closed = self.closed
        if closed:
            raise ConnectionAbortedError("closed before it was connected")

    def shut(self) -> None:
        with self._lock:
            self.closed = True
            if self._socket is not None:
                shut(self._socket)  # Linux also wakes a connect() under way

    def release(self) -> None:
        """Let go of the socket: it is another call's, or nobody's, from now on."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._copied and self._socket is not None:
            self._socket.close()
        self._socket, self._copied = None, False


@contextlib.contextmanager
def shut_by(cancel: Cancel | None, shutter: Shutter) -> Iterator[None]:
    """Let `cancel` shut `shutter` while in the block. Raises `Cancelled` instead of the broken
    connection that comes of it."""
    if cancel is None:
        yield
        return
    cancel.check()
    with cancel.closing(shutter.shut):
        try:
            yield
        except BROKEN:
            cancel.check()
            raise
    cancel.check()
