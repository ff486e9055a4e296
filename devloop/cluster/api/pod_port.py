"""One byte stream to a port of a pod, through the API server, where no tunnel can be had.

The protocol is `v4.channel.k8s.io` over a WebSocket (RFC 6455), one connection a stream: the API
server passes it to the kubelet and that to the container runtime, which connects to the port in
the pod's network namespace. Proxies that know no SPDY let it through. kubernetes' own client is
not used for it: it needs a thread and a socket pair a stream, buffers without a bound and fails
above 1024 descriptors. Knows nothing of local ports, retries or which pod to take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.tunnel import failure
from devloop.cluster.api.websocket import WebSocket, open_websocket

if TYPE_CHECKING:
    import socket

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection

__all__ = ["PodPort", "open_port"]

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = b"\x00", b"\x01"  # channels of the first port; the second would have 2 and 3
_MOST_QUEUED = 65536  # bytes of frames that may wait for the socket


def open_port(
    connection: Connection, namespace: str, pod: str, port: int, cancel: Cancel
) -> PodPort:
    """Open a stream to `port` of the pod. Blocks until the API server has agreed.

    Whether anything listens on the port turns out later: `PodPort.receive` raises
    ConnectionRefusedError then. Raises `DevloopError` (cluster/not-found, cluster/forbidden,
    cluster/unreachable, ...), `Cancelled`."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
    return PodPort(*open_websocket(connection, path, _PROTOCOL, cancel))


class PodPort:
    """A byte stream that never blocks; wait for `fileno` with select. One thread at a time.

    There is no half-close: the protocol has no message for it, and the runtimes end the whole
    stream a second after one direction ended (containerd, after socat's `-t`)."""

    def __init__(self, sock: socket.socket, received: bytes = b"") -> None:
        self._socket = WebSocket(sock, received, most_queued=_MOST_QUEUED)
        self._unread = [2, 2]  # each channel opens with the port's number in two bytes

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """The next bytes from the pod: None when there are none now, b"" for good at the end.

        Raises ConnectionRefusedError when nothing listens on the port, ConnectionResetError when
        the stream breaks; both carry what the node said."""
        while (payload := self._queued()) is None:
            if not self._socket.fill():
                return None
        return payload

    def _queued(self) -> bytes | None:
        """The next payload among the messages that have arrived, b"" at the end of the stream."""
        for message in self._socket.arrived():
            if message[:1] not in (_DATA, _ERROR):
                continue
            channel = message[0]
            skip = min(self._unread[channel], len(message) - 1)
            self._unread[channel] -= skip
            payload = message[1 + skip :]
            if payload and channel == _ERROR[0]:
                raise failure(payload.decode("utf-8", "replace"))
            if payload:
                return payload
        return b"" if self._socket.closed else None

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes were taken: 0 when the stream is busy. What was taken may still have to
        be pushed by `flush`. Raises ConnectionResetError."""
        return self._socket.send(_DATA, data)

    def flush(self) -> bool:
        """Push what is queued; True when all of it has left. Raises ConnectionResetError."""
        return self._socket.flush()

    def shutdown_write(self) -> bool:
        """False: the pod cannot be told, and goes on sending what it has to send."""
        return False

    def ping(self) -> None:
        """Traffic for whoever on the way drops idle connections. Raises ConnectionResetError."""
        self._socket.ping()

    def close(self) -> None:
        """Close at once; safe to repeat."""
        self._socket.close()
