"""One stream to a pod: the client's bytes that go into it, from attaching to detaching, or a probe.

Never blocks. Decides nothing about retries; that is the connection's.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from devloop.port_forward.event_loop import SocketEvents

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from devloop.port_forward.ports import Duplex


_LOG = logging.getLogger(__name__)


class RequestBuffer:
    """What a client has sent. While it is `replayable` it is kept to be sent again, afterwards
    only what was not sent yet."""

    def __init__(self) -> None:
        self.replayable = True
        self._data = bytearray()
        self._sent = 0

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        self._data += data

    @property
    def has_unsent(self) -> bool:
        return self._sent < len(self._data)

    @property
    def untouched(self) -> bool:
        """Whether nobody has been sent anything of what a retry would send."""
        return self.replayable and self._sent == 0

    def unsent(self, most: int) -> bytearray:
        return self._data[self._sent : self._sent + most]

    def advance(self, sent: int) -> None:
        self._sent += sent
        if not self.replayable:
            self.forget()

    def forget(self) -> None:
        """What was sent is not sent again."""
        self.replayable = False
        del self._data[: self._sent]
        self._sent = 0

    def rewind(self) -> None:
        """Send it from the start, to somebody else."""
        self._sent = 0

    def clear(self) -> None:
        self._data.clear()
        self._sent = 0


class PodStream:
    """`pod` is the uid of the pod it leads to. `trusted`: it was found to lead somewhere;
    `write_closed`: it takes nothing any more; `quiet`: nothing is sent for now; `knows_end`: the
    pod was notified that the client has finished. Raises OSError when the stream broke."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Duplex,
        pod: str,
        on_readable: Callable[[], object],
        on_writable: Callable[[], object],
    ) -> None:
        self.pod = pod
        self.trusted = self.write_closed = self.quiet = self.knows_end = False
        self._loop = loop
        self._stream = stream
        self._on_readable = on_readable
        self._events = SocketEvents(loop, stream.fileno(), on_readable, on_writable)
        self._unflushed = False
        self._more = True  # it may have bytes that select does not see

    def receive(self) -> bytes | None:
        """As `Duplex.receive`."""
        data = self._stream.receive()
        self._more = bool(data)
        return data

    def send(self, request: RequestBuffer, chunk: int) -> None:
        """Send as much of `request` as the stream takes."""
        while request.has_unsent and (taken := self._stream.send(request.unsent(chunk))):
            request.advance(taken)
        self._unflushed = not self._stream.flush()

    def end_request(self) -> bool:
        """The client has finished; False when the pod cannot be notified."""
        self.knows_end = True
        return self._stream.shutdown_write()

    def stop_sending(self) -> None:
        """It takes nothing any more. What it sent before, and why it broke, is still to be read."""
        self.write_closed = self._more = True

    def ping(self) -> None:
        # A stream that is broken shows that itself, to whoever reads it.
        with contextlib.suppress(OSError):
            self._stream.ping()

    def settle(self, *, has_room: bool, has_unsent: bool) -> None:
        """Wait for what can be used now, and for nothing else."""
        if has_room and self._more:
            self._more = False
            self._loop.call_soon(self._on_readable)
        sends = (has_unsent or self._unflushed) and not self.write_closed and not self.quiet
        self._events.want(read=has_room, write=sends)

    def close(self) -> None:
        self._events.stop()
        try:
            self._stream.close()
        except Exception:  # noqa: BLE001 - the client goes on with another one
            _LOG.exception("a bug in devloop: a stream to a pod was not closed")


def await_refusal(
    loop: asyncio.AbstractEventLoop, stream: Duplex, seconds: float, done: Callable[[bool], None]
) -> Callable[[], None]:
    """Whether anybody listens behind `stream`: wait a moment for a refusal and send nothing.

    Calls `done(refused)` once, at the latest after so many seconds; takes ownership of `stream`.
    What is returned ends it early."""

    def finish(refused: bool) -> None:
        if not timer.cancelled():
            timer.cancel()
            events.stop()
            stream.close()
            done(refused)

    def read() -> None:
        if timer.cancelled():
            return
        try:
            if stream.receive() is None:
                return
            refused = False
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
        except Exception:  # noqa: BLE001 - no probe is worth the clients
            _LOG.exception("a bug in devloop: a probe broke")
            refused = False
        finish(refused)

    timer = loop.call_later(seconds, finish, False)
    events = SocketEvents(loop, stream.fileno(), read)
    events.want(read=True)
    # What has come already may not make the descriptor readable.
    loop.call_soon(read)
    return lambda: finish(False)
