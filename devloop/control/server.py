"""The control socket's server: one thread, whatever its clients do.

Nothing here waits for a client. One that sends too much, too slowly or nothing, or that takes
nothing of its answer, loses its connection; one that follows the events may be as slow as it likes,
since all it costs is its place in the history. What a request does is the business of `handle`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from devloop.base.socket_server import MAX_PENDING, SocketClient, SocketServer
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

# Records that are handed out at once.
_BATCH = 512


class _Client(SocketClient["_Feed"]):
    """`deadline` is when it is given up, None for one that may take its time."""

    def __init__(self, sock: Socket, deadline: float) -> None:
        super().__init__(sock)
        self.deadline: float | None = deadline
        self.refused = False


class ControlServer(SocketServer[_Client]):
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
        self._own = own or _is_own
        self._following = False
        self._withdrawn = False
        super().__init__("control", (listen_unix(path),), clock=clock)
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
        super().close(seconds)

    # --- the thread ----------------------------------------------------------------------------

    def _timeout(self) -> float | None:
        ends = [client.deadline for client in self._clients if client.deadline is not None]
        if self._deadline is not None:
            ends.append(self._deadline)
        return max(0.0, min(ends) - self._clock()) if ends else None

    def _welcome(self, sock: Socket) -> _Client | None:
        try:
            own = self._own(sock)
        except OSError:
            own = False
        if not own or len(self._clients) >= 2 * CLIENTS:
            return None
        client = _Client(sock, self._clock() + PATIENCE)
        # Refused when it has asked: closed before that, it might never see why.
        client.refused = len(self._clients) >= CLIENTS
        return client

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
        client.received += data
        line, newline, _ = client.received.partition(b"\n")
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

    def _attend(self, client: _Client) -> None:
        self._feed(client)
        finished = client.answered and client.feed is None and not client.out.pending
        late = client.deadline is not None and self._clock() >= client.deadline
        if finished or late:
            self._drop(client)
        else:
            self._watch(client)

    def _feed(self, client: _Client) -> None:
        feed = client.feed
        while feed is not None and client.out.pending < MAX_PENDING:
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

    def _dropped(self) -> None:
        self._following = any(c.feed and c.feed.until is None for c in self._clients)


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
