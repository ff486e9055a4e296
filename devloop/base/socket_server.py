"""A server of sockets in one thread, whatever its clients do: nothing in it waits for one of them.

What a client says and gets is the business of who derives from it. One that follows what goes on
has a feed, and stays until that is over.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from devloop.base.sockets import ClientSocket, accept_client, wake_pair, watch_for
from devloop.base.threads import supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from devloop.base.sockets import Socket

# Bytes that wait for one client at most, besides one batch of records.
MAX_PENDING = 64 * 1024


F = TypeVar("F")


class SocketClient(Generic[F]):
    """One client's. `mask` is what its socket is watched for; whoever follows has a `feed`."""

    def __init__(self, sock: Socket) -> None:
        self.out = ClientSocket(sock)
        self.received = bytearray()
        self.answered = False
        self.heard = False  # it sends nothing more
        self.feed: F | None = None
        self.mask: int = selectors.EVENT_READ


C = TypeVar("C", bound=SocketClient[Any])


class SocketServer(ABC, Generic[C]):
    """Serves what comes at `listeners`, which are its own, in a thread of that `name`."""

    def __init__(
        self,
        name: str,
        listeners: Iterable[Socket],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._listeners = tuple(listeners)
        self._clients: dict[C, None] = {}  # in the order in which they came
        self._deadline: float | None = None
        self._wake, self._waker = wake_pair()
        self._selector = selectors.DefaultSelector()
        for sock in (self._wake, *self._listeners):
            self._selector.register(sock, selectors.EVENT_READ)
        self._thread = supervised(name, self._run)

    @abstractmethod
    def _welcome(self, sock: Socket) -> C | None:
        """The connection of a new client; None where it is not to have one."""

    @abstractmethod
    def _read(self, client: C) -> None:
        """There is something of it to read, or its end."""

    @abstractmethod
    def _attend(self, client: C) -> None:
        """Whatever the client takes, and its end when it has got all; raises OSError when it is
        gone."""

    @abstractmethod
    def _timeout(self) -> float | None:
        """Seconds until something is due."""

    def _before_attending(self) -> None:
        """What is to be done once a round."""

    def _dropped(self) -> None:
        """A client is gone."""

    def close(self, seconds: float) -> None:
        """Hand out what clients take within so many seconds, then end all connections."""
        self._deadline = self._clock() + seconds
        self._poke()
        self._thread.join(seconds + 1.0)

    def _poke(self) -> None:
        # One that cannot take it is awake already, or has ended.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._over():
                for key, mask in self._selector.select(self._timeout()):
                    if key.fileobj is self._wake:
                        self._wake.recv(4096)
                    elif key.data is None:
                        self._accept(key.fileobj)  # type: ignore[arg-type]
                    else:
                        self._serve(key.data, mask)
                self._before_attending()
                for client in tuple(self._clients):
                    if client in self._clients:
                        with self._dropping(client):
                            self._attend(client)
        finally:
            for client in tuple(self._clients):
                self._drop(client)
            self._selector.close()
            for sock in (*self._listeners, self._wake, self._waker):
                sock.close()

    def _over(self) -> bool:
        if self._deadline is None:
            return False
        waits = any(client.feed is not None or client.out.pending for client in self._clients)
        return not waits or self._clock() >= self._deadline

    def _accept(self, listener: Socket) -> None:
        sock = accept_client(listener)
        if sock is None:
            return
        client = self._welcome(sock)
        if client is None:
            sock.close()
            return
        self._clients[client] = None
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _serve(self, client: C, mask: int) -> None:
        with self._dropping(client):
            if mask & selectors.EVENT_READ:
                self._read(client)
            if mask & selectors.EVENT_WRITE:
                client.out.flush()

    @contextlib.contextmanager
    def _dropping(self, client: C) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._drop(client)

    def _answer(self, client: C, answer: bytes) -> None:
        client.answered = True
        client.received.clear()
        with self._dropping(client):
            client.out.write(answer)

    def _watch(self, client: C) -> None:
        mask = 0 if client.heard else selectors.EVENT_READ
        mask |= selectors.EVENT_WRITE if client.out.pending else 0
        client.mask = watch_for(self._selector, client.out.sock, client.mask, mask, client)

    def _drop(self, client: C) -> None:
        if client in self._clients:
            del self._clients[client]
            if client.mask:
                self._selector.unregister(client.out.sock)
            client.out.close()
            self._dropped()
