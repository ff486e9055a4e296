"""A command in a container with its standard streams, through the API server.

The protocol is `v5.channel.k8s.io` over a WebSocket, `v4` where the server is older: one byte names
the channel (0 stdin, 1 stdout, 2 stderr, 3 how it ended, in v5 also 255: a channel is closed). A
stream that is open costs nothing until it is used, and one round trip then. Knows nothing of what
the command is for, of retries or of which pod to take.
"""

from __future__ import annotations

import contextlib
import select
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from devloop.cluster.api.api_errors import status_object
from devloop.cluster.api.pod_view import metadata, name_of, text
from devloop.cluster.api.websocket import open_websocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.api.websocket import WebSocket


_PROTOCOLS = "v5.channel.k8s.io, v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS = 0, 1, 2, 3
_MOST_STDERR = 4096  # bytes of the last words that are kept


def open_exec(
    connection: Connection,
    namespace: str,
    pod: str,
    container: str,
    *,
    argv: Sequence[str],
    cancel: Cancel,
) -> ExecStream:
    """Start `argv` in the container. Blocks until the API server has agreed.

    Whether the command could be started turns out later: the stream ends and `ended` says why.
    Raises `DevloopError` (cluster/not-found, cluster/forbidden, cluster/unreachable, ...),
    `Cancelled`."""
    query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in argv]
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(query)}"
    return ExecStream(open_websocket(connection, path, _PROTOCOLS, cancel))


def run_exec(
    connection: Connection,
    pod: Json,
    container: str,
    cancel: Cancel,
    *,
    argv: Sequence[str],
    limit: float,
) -> str:
    """What `argv` writes to its standard output, once it has ended.

    Raises as `open_exec` does, ConnectionResetError, TimeoutError after `limit` seconds and
    ValueError, with the reason in words, when the command failed."""
    place = (text(metadata(pod).get("namespace")), name_of(pod), container)
    stream = open_exec(connection, *place, argv=argv, cancel=cancel)
    deadline = time.monotonic() + limit
    found = bytearray()
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    with contextlib.closing(stream), cancel.closing(stream.shut):
        while (piece := stream.receive()) != b"":
            cancel.check()
            if piece is not None:
                found += piece
            elif not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"`{' '.join(argv)}` did not end in {limit:g} s")
    if stream.ended:
        raise ValueError(stream.ended)
    return found.decode("utf-8", "replace")


def follow_exec(
    connection: Connection,
    namespace: str,
    pod: str,
    container: str,
    cancel: Cancel,
    *,
    argv: Sequence[str],
    limit: float,
    on_line: Callable[[str], None],
) -> str:
    """How `argv` failed, in words, "" when it did not. `on_line` gets its lines, those of its
    standard error at its end.

    Raises as `run_exec` does, but for ValueError. A command that is given up is left to itself: the
    API server has no way to end it."""
    stream = open_exec(connection, namespace, pod, container, argv=argv, cancel=cancel)
    deadline = time.monotonic() + limit
    rest = b""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    with contextlib.closing(stream), cancel.closing(stream.shut):
        while (piece := stream.receive()) != b"":
            cancel.check()
            if piece is not None:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    on_line(line.decode("utf-8", "replace").rstrip("\r"))
            elif not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"`{' '.join(argv)}` did not end in {limit:g} s")
    for line in filter(None, (rest, *stream.stderr.split(b"\n"))):
        on_line(line.decode("utf-8", "replace").rstrip("\r"))
    return stream.ended or ""


class ExecStream:
    """The command's standard streams; no call blocks: wait for `fileno` with select. One thread at
    a time, but for `close`'s caller, who must be that thread as well.

    `ended` is None while the command runs, then how it ended in words ("" for exit status 0).
    `stderr` is the end of what it wrote there."""

    def __init__(self, socket: WebSocket) -> None:
        self.ended: str | None = None
        self.stderr = b""
        self._socket = socket

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """What the command wrote to its standard output next: None when there is nothing now, b""
        for good when it ended (see `ended`). Raises ConnectionResetError when the stream broke."""
        while (payload := self._queued()) is None:
            if not self._socket.fill():
                return None
        return payload

    def _queued(self) -> bytes | None:
        for message in self._socket.arrived():
            if len(message) < 2:
                continue
            channel, payload = message[0], message[1:]
            if channel == _STDOUT:
                return payload
            if channel == _STDERR:
                self.stderr = (self.stderr + payload)[-_MOST_STDERR:]
            elif channel == _STATUS:
                self.ended = _how_it_ended(payload)
        if self.ended is not None:
            return b""
        if self._socket.closed:
            raise ConnectionResetError("the API server closed the connection")
        return None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """How many bytes of `data` were taken for standard input: 0 when the stream is busy. What
        was taken may still have to be pushed by `flush`. Raises ConnectionResetError."""
        return self._socket.send(bytes((_STDIN,)), data)

    def flush(self) -> bool:
        """Push what is queued; True when all of it has left. Raises ConnectionResetError."""
        return self._socket.flush()

    def shut(self) -> None:
        """End it, from any thread: whoever waits for it wakes up."""
        self._socket.shut()

    def close(self) -> None:
        """Close at once, which also ends the command's standard input; safe to repeat."""
        self._socket.close()


def _how_it_ended(payload: bytes) -> str:
    """A `metav1.Status` in words."""
    status = status_object(payload)
    if status.get("status") == "Success":
        return ""
    return str(status.get("message") or status.get("reason") or "it failed")
