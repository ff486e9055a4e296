"""A connection through the API server into one pod, on which streams to its ports are opened.

`portforward.k8s.io` over SPDY/3.1, upgraded to directly or, for proxies that know no SPDY, inside a
WebSocket (KEP-4006, on by default since API server 1.31; masking makes it the dearer one). The API
server and the kubelet only pass the bytes on, so a new stream costs one message to the container
runtime, which connects to the port in the pod's network namespace. The tunnel belongs to the pod's
sandbox and outlives its containers: a port that refuses is dialled again on the same tunnel, past
the API server and the kubelet.

One live stream a tunnel: the runtimes' SPDY has no flow control, so that on a shared one a client
that does not read would stop all others. And bytes that nobody in the runtime reads any more, as
after a refusal, stop every later stream on the tunnel. Both are how `kubectl port-forward` wedges.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.cluster.api import spdy
from devloop.cluster.api.upgrade import upgrade
from devloop.cluster.api.websocket import open_websocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.upgrade import UpgradedStream
    from devloop.cluster.api.websocket import WebSocket


_PROTOCOL = "portforward.k8s.io"
_OUR_PING = spdy.ping(b"\0\0\0\1")
_MOST_QUEUED = 65536  # bytes of frames that may wait for the socket
_LARGEST = 32768  # bytes of data a frame
_MOST_USES = 200  # the runtime remembers each stream until the connection ends
_MOST_LEFTOVERS = 131072  # bytes
_HARMLESS = 32768  # bytes that a pod's socket takes in any case


def open_tunnel(
    connection: Connection, namespace: str, pod: str, cancel: Cancel, *, in_websocket: bool = False
) -> Tunnel:
    """Connect into the pod; nothing in it notices. Blocks until the node has agreed.

    Raises `ApiError` (cluster/not-found, cluster/forbidden, ...), cluster/unreachable,
    `Cancelled`."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    if in_websocket:
        return Tunnel(open_websocket(connection, path, f"SPDY/3.1+{_PROTOCOL}", cancel))
    headers = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": _PROTOCOL}
    upgraded = upgrade(connection, "POST", path, headers, cancel)
    if upgraded.headers.get("x-stream-protocol-version") != _PROTOCOL:
        upgraded.close()
        raise connection.lost(ValueError("the node does not speak portforward.k8s.io"))
    return Tunnel(upgraded)


class Tunnel:
    """Used by one thread at a time. After an OSError it is good for nothing but `close`.

    `since` is when bytes last came (monotonic)."""

    def __init__(self, carrier: UpgradedStream | WebSocket) -> None:
        self._carrier = carrier
        self._frames = spdy.SpdyFrames()
        self._blocks = spdy.HeaderBlocks()
        self._out = bytearray()
        self._next = 1
        self._uses = 0
        self._going_away = False
        self._pongs = 0
        self.since = time.monotonic()

    def fileno(self) -> int:
        return self._carrier.fileno()

    def usable(self) -> bool:
        """Whether another stream can be opened: reads what the last one left behind.

        Little of it, or not at all: a half-sent answer costs more to read than a new tunnel."""
        leftovers = 0
        try:
            while (frame := self.frame()) is not None:
                leftovers += len(frame.payload)
                if leftovers > _MOST_LEFTOVERS:
                    return False
            sent = self.flush()
        except OSError:
            return False
        return sent and not self._going_away and self._uses < _MOST_USES

    def start(self, port: int, seconds: float, cancel: Cancel) -> tuple[int, int]:
        """Open a stream to `port`: the numbers of its error and its data stream.

        Blocks until the runtime has taken it, which says nothing about the port. Until then bytes
        would be thrown away. Raises OSError, TimeoutError after `seconds`, `Cancelled`."""
        error, data = self._next, self._next + 2
        self._next += 4
        self._uses += 1
        headers = {"port": str(port), "requestid": str(error)}
        message = spdy.syn_stream(error, self._blocks.pack({"streamtype": "error", **headers}))
        message += spdy.data(error, b"", final=True)
        message += spdy.syn_stream(data, self._blocks.pack({"streamtype": "data", **headers}))
        try:
            with cancel.closing(self._carrier.shut):
                self._exchange(message, lambda frame: _accepts(frame, data), seconds)
        except OSError:
            cancel.check()
            raise
        return error, data

    def check(self, seconds: float, cancel: Cancel) -> None:
        """Ask the other end for a sign of life. Raises OSError when none comes in `seconds`."""
        before = self._pongs
        with cancel.closing(self._carrier.shut):
            self._exchange(_OUR_PING, lambda _: self._pongs > before, seconds)

    def _exchange(
        self, message: bytes, is_it: Callable[[spdy.Frame], bool], seconds: float
    ) -> None:
        """Send `message` and read until a frame is it."""
        deadline = time.monotonic() + seconds
        self._out += message
        while True:
            sent = self.flush()
            for frame in self._frames:
                self._noted(frame)
                if is_it(frame):
                    return
            chunk = self._carrier.receive()
            if chunk is None:
                self._wait(deadline, writable=not sent)
            else:
                self._take(chunk)

    def _wait(self, deadline: float, *, writable: bool) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        poll = select.poll()  # select.select knows no descriptors above 1023
        poll.register(self._carrier, select.POLLIN | (select.POLLOUT if writable else 0))
        poll.poll(left * 1000)

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            raise ConnectionResetError("the API server closed the connection")
        self.since = time.monotonic()
        self._frames.feed(chunk)

    def frame(self) -> spdy.Frame | None:
        """The next frame of a stream; None when there is none now. Raises OSError."""
        while True:
            for frame in self._frames:
                if self._noted(frame):
                    return frame
            chunk = self._carrier.receive()
            if chunk is None:
                return None
            self._take(chunk)

    def _noted(self, frame: spdy.Frame) -> bool:
        """Keep the books; whether the frame belongs to a stream."""
        if frame.kind == spdy.PING:
            if frame.payload[-1:] and frame.payload[-1] & 1:
                self._pongs += 1
            else:
                self._out += spdy.ping(frame.payload)
            return False
        if frame.kind == spdy.GOAWAY:
            self._going_away = True
            return False
        return bool(frame.stream)

    def send(self, stream: int, payload: bytes | bytearray) -> int:
        """How many bytes were taken, 0 when the tunnel is busy."""
        if self._out and not self.flush() and len(self._out) >= _MOST_QUEUED:
            return 0
        taken = 0
        while taken < len(payload) and len(self._out) < _MOST_QUEUED:
            part = payload[taken : taken + _LARGEST]
            self._out += spdy.data(stream, part)
            taken += len(part)
        self.flush()
        return taken

    def reset(self, *streams: int) -> None:
        """Be done with `streams`: what still comes for them is thrown away on both sides."""
        for stream in streams:
            self._out += spdy.reset(stream)
        self.flush()

    def ping(self) -> None:
        self._out += _OUR_PING
        self.flush()

    def flush(self) -> bool:
        """Push what is queued; True when all of it has left. Raises ConnectionResetError."""
        return self._carrier.push(self._out)

    def close(self) -> None:
        """Close at once; safe to repeat."""
        self._carrier.close()

    @property
    def closed(self) -> bool:
        return self._carrier.fileno() < 0


def _accepts(frame: spdy.Frame, stream: int) -> bool:
    if frame.stream != stream:
        return False
    if frame.kind == spdy.RST_STREAM:
        raise ConnectionAbortedError("the node refused the stream")
    return frame.kind == spdy.SYN_REPLY


class TunnelPort:
    """One byte stream to a port of the pod (`port_forward.ports.Duplex`). Never blocks; wait for
    `fileno` with select. `release` is handed the tunnel at the end, once.

    There is no half-close: the runtimes end the whole stream a second after one direction ended
    (containerd, after socat's `-t`)."""

    def __init__(
        self, tunnel: Tunnel, error: int, data: int, release: Callable[[Tunnel], None]
    ) -> None:
        self._tunnel = tunnel
        self._data = data
        self._both = (error, data)
        self._release = release
        self._left = {error, data}  # the directions towards us that are still open
        self._complaint = b""
        self._broken: OSError | None = None
        self._sent = 0
        self._unanswered = False  # bytes were sent and none came since
        self._closed = False

    def fileno(self) -> int:
        return self._tunnel.fileno()

    def receive(self) -> bytes | None:
        """The next bytes from the pod: None when there are none now, b"" for good at the end.

        Raises ConnectionRefusedError when nothing listens on the port, ConnectionResetError when
        the stream breaks; both carry what the node said."""
        if self._broken is not None:
            raise self._broken
        try:
            return self._next()
        except OSError as error:
            self._broken = error
            raise

    def _next(self) -> bytes | None:
        while self._left:
            frame = self._tunnel.frame()
            if frame is None:
                return None
            if frame.stream not in self._left:
                continue
            if frame.kind == spdy.RST_STREAM:
                raise ConnectionResetError("the pod reset the connection")
            # The end of the data comes before the reason: both ends are waited for.
            if frame.final:
                self._left.discard(frame.stream)
            if frame.kind == 0 and frame.payload:
                if frame.stream == self._data:
                    self._unanswered = False
                    if self._sent <= _HARMLESS:
                        self._sent = 0
                    return frame.payload
                self._complaint += frame.payload
        if self._complaint:
            raise failure(self._complaint.decode("utf-8", "replace"))
        return b""

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes were taken: 0 when the stream is busy. What was taken may still have to
        be pushed by `flush`. Raises ConnectionResetError."""
        taken = self._tunnel.send(self._data, data)
        self._sent += taken
        self._unanswered = self._unanswered or taken > 0
        return taken

    def flush(self) -> bool:
        """Push what is queued; True when all of it has left. Raises ConnectionResetError."""
        return self._tunnel.flush()

    def shutdown_write(self) -> bool:
        """False: there is no way without losing what it still has to send."""
        return False

    def ping(self) -> None:
        """Traffic for whoever on the way drops idle connections. Raises ConnectionResetError."""
        self._tunnel.ping()

    def close(self) -> None:
        """End the stream at once and give the tunnel back; safe to repeat.

        Where bytes may lie in the runtime that nobody reads, the tunnel is closed."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._unanswered or self._sent > _HARMLESS:
                self._tunnel.close()
            else:
                self._tunnel.reset(*self._both)
        except OSError:
            self._tunnel.close()
        self._release(self._tunnel)


def failure(message: str) -> ConnectionError:
    """What a node says about a stream that failed, as the error it means."""
    # "error forwarding port N to pod ID, uid : failed to ...: dial tcp4 127.0.0.1:N: connect:
    # connection refused": the beginning holds nothing that a reader does not know.
    if "connection refused" in message.lower():
        return ConnectionRefusedError(message)
    return ConnectionResetError(message)


def start_port(
    tunnel: Tunnel, port: int, seconds: float, cancel: Cancel, release: Callable[[Tunnel], None]
) -> TunnelPort:
    """A stream on `tunnel`, which is closed when that fails. Raises OSError, `Cancelled`."""
    try:
        error, data = tunnel.start(port, seconds, cancel)
    except (OSError, Cancelled):
        tunnel.close()
        raise
    return TunnelPort(tunnel, error, data, release)
