"""The control socket's server: one thread, whatever its clients do.

Nothing here waits for a client. One that sends too much, too slowly or nothing, or that takes
nothing of its answer, loses its connection; one that follows the events may be as slow as it likes,
since all it costs is its place in the history. What a request does is the business of `handle`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from typing import TYPE_CHECKING, Any

from devloop.base.sockets import ClientSocket, accept_client, wake_pair, watch_for
from devloop.base.threads import supervised
from devloop.base.unix_sockets import forget_unix, listen_unix, peer_uid
from devloop.control.history import Cursor
from devloop.control.protocol import (
    LONGEST_REQUEST,
    EventsRequest,
    done,
    parse_request,
    refused,
    too_long,
)
from devloop.errors import Code, DevloopError
from devloop.events import SessionEnded, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.base.sockets import Socket
    from devloop.control.history import History
    from devloop.control.protocol import Request
    from devloop.events import Record


# How many connections there are at most, the followers among them.
CLIENTS = 32

# Seconds that a client has for its request, and for taking an answer that is not followed.
PATIENCE = 10.0

# Bytes that wait for one client at most, besides one batch of records.
_WAITING = 64 * 1024
_BATCH = 512


class ControlServer:
    """Listens at `path`, which is its own: the caller holds the lock of the session.

    `handle` gets each request in the server's thread and returns the facts of the answer, or raises
    DevloopError; it must not block. Raises OSError when there can be no socket."""

    def __init__(
        self,
        path: Path,
        history: History,
        handle: Callable[[Request], Mapping[str, Any]],
        *,
        clock: Callable[[], float] = time.monotonic,
        own: Callable[[Socket], bool] | None = None,
    ) -> None:
        self._path = path
        self._history = history
        self._handle = handle
        self._clock = clock
        self._own = own or _is_own
        self._clients: set[_Client] = set()
        self._following = False
        self._deadline: float | None = None
        self._withdrawn = False
        self._wake, self._waker = wake_pair()
        try:
            self._listener = listen_unix(path)
        except OSError:
            self._wake.close()
            self._waker.close()
            raise
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = supervised("control", self._run)
        self._thread.start()

    def notify(self) -> None:
        """There is something new in the history; from any thread."""
        if self._following:
            self._poke()

    def withdraw(self) -> None:
        """Nobody finds the socket any more; who is connected stays."""
        if not self._withdrawn:
            self._withdrawn = True
            forget_unix(self._path)

    def close(self, seconds: float) -> None:
        """Hand out what clients take within so many seconds, then end all connections."""
        self.withdraw()
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
                    elif key.fileobj is self._listener:
                        self._accept()
                    else:
                        self._serve(key.data, mask)
                for client in tuple(self._clients):
                    self._attend(client)
        finally:
            for client in tuple(self._clients):
                self._drop(client)
            self._selector.close()
            for sock in (self._listener, self._wake, self._waker):
                sock.close()

    def _over(self) -> bool:
        if self._deadline is None:
            return False
        waits = any(client.feed is not None or client.out.pending for client in self._clients)
        return not waits or self._clock() >= self._deadline

    def _timeout(self) -> float | None:
        ends = [client.deadline for client in self._clients if client.deadline is not None]
        if self._deadline is not None:
            ends.append(self._deadline)
        return max(0.0, min(ends) - self._clock()) if ends else None

    def _accept(self) -> None:
        sock = accept_client(self._listener)
        if sock is None:
            return
        try:
            own = self._own(sock)
        except OSError:
            own = False
        if not own:
            sock.close()
            return
        if len(self._clients) >= 2 * CLIENTS:
            sock.close()
            return
        client = _Client(sock, self._clock() + PATIENCE)
        # Refused when it has asked: closed before that, it might never see why.
        client.refused = len(self._clients) >= CLIENTS
        self._clients.add(client)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _serve(self, client: _Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                self._read(client)
            if mask & selectors.EVENT_WRITE:
                client.out.flush()
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        data = client.out.read()
        if data == b"":
            # Who has sent all may still read; of who follows, this is all that says it has gone.
            client.heard = True
            if not client.answered or (client.feed is not None and client.feed.until is None):
                self._drop(client)
            return
        if data is None or client.answered:
            return
        client.line += data
        line, newline, _ = client.line.partition(b"\n")
        if len(line) >= LONGEST_REQUEST:
            self._answer(client, refused(too_long()))
        elif newline:
            self._request(client, bytes(line))

    def _request(self, client: _Client, line: bytes) -> None:
        try:
            if client.refused:
                raise _too_many()
            request = parse_request(line)
            answer = done(**self._handle(request))
        except DevloopError as error:
            self._answer(client, refused(error))
            return
        if isinstance(request, EventsRequest):
            until = None if request.follow else self._history.last
            client.feed = _Feed(request, until)
            if request.follow:
                client.deadline = None
                self._following = True
        self._answer(client, answer)

    def _answer(self, client: _Client, answer: bytes) -> None:
        client.answered = True
        client.line.clear()
        try:
            client.out.write(answer)
        except OSError:
            self._drop(client)

    def _attend(self, client: _Client) -> None:
        """Whatever the client takes, and its end when it has got all."""
        if client not in self._clients:
            return
        try:
            self._feed(client)
        except OSError:
            self._drop(client)
            return
        finished = client.answered and client.feed is None and not client.out.pending
        late = client.deadline is not None and self._clock() >= client.deadline
        if finished or late:
            self._drop(client)
        else:
            self._watch(client)

    def _feed(self, client: _Client) -> None:
        feed = client.feed
        while feed is not None and client.out.pending < _WAITING:
            records = self._history.after(feed.cursor.seen, _BATCH)
            data = feed.take(records)
            if data:
                client.out.write(data)
                if client.deadline is not None:
                    client.deadline = self._clock() + PATIENCE
            if feed.over:
                client.feed = None
                client.deadline = client.deadline or self._clock() + PATIENCE
                return
            if not records:
                return

    def _watch(self, client: _Client) -> None:
        mask = 0 if client.heard else selectors.EVENT_READ
        mask |= selectors.EVENT_WRITE if client.out.pending else 0
        client.mask = watch_for(self._selector, client.out.sock, client.mask, mask, client)

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            if client.mask:
                self._selector.unregister(client.out.sock)
            client.out.close()
            self._following = any(c.feed and c.feed.until is None for c in self._clients)


class _Client:
    """One connection; `deadline` is when it is given up, None for one that may take its time."""

    def __init__(self, sock: Socket, deadline: float) -> None:
        self.out = ClientSocket(sock)
        self.deadline: float | None = deadline
        self.line = bytearray()
        self.answered = False
        self.refused = False
        self.heard = False  # it sends nothing more
        self.feed: _Feed | None = None
        self.mask: int = selectors.EVENT_READ


class _Feed:
    """The records that a client gets: up to number `until`, None for all that come."""

    def __init__(self, request: EventsRequest, until: int | None) -> None:
        self.cursor = Cursor()
        self.until = until
        self.over = until == 0
        self._request = request

    def take(self, records: list[Record]) -> bytes:
        until = self.until
        if until is not None:
            self.over = not records or records[-1].seq >= until
            records = [record for record in records if record.seq <= until]
        numbered = self.cursor.numbered(records)
        self.over = self.over or any(isinstance(r.event, SessionEnded) for r in records)
        return b"".join(to_json(r).encode() + b"\n" for r in numbered if self._wanted(r))

    def _wanted(self, record: Record) -> bool:
        event = record.event
        said = {"type": event.type, "service": getattr(event, "service", None)}
        return self._request.wants(said)


def _is_own(sock: Socket) -> bool:
    """Root may do everything anyway, and has files of ours where `devloop` runs in a container."""
    return peer_uid(sock) in (os.getuid(), 0)


def _too_many() -> DevloopError:
    return DevloopError.of(
        Code.ENV_CONTROL_BUSY,
        f"{CLIENTS} programs are connected to this session already",
        suggestions=("end one of those that follow its events or logs",),
    )
