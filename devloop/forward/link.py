"""One client's connection: held until there is a pod, then pumped both ways, without blocking.

What a client has sent is kept until the pod's first byte (or a bound), so that a stream that
turns out to lead nowhere can be replaced by another without the client noticing. Decides nothing
about pods; that is the door's.
"""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.forward.ports import Duplex

__all__ = ["Hub", "Link"]

_CHUNK = 65536
_TURN = 262144  # bytes one connection may move before the others have their turn
_ROOM = 262144  # bytes that may wait for a slow client
_KEEP = 1048576  # bytes kept for another try while nobody has answered
_TRUST = 0.2  # seconds without a refusal after which a stream is taken to lead somewhere
_LAST_WORDS = 0.5  # seconds that a stream gets to end by itself after its pod has gone
_LINGER = 2.0  # seconds a client has to take the end of an answer
# A client that has closed looks like one that has only finished sending. When the pod had spoken
# last it has most likely closed; otherwise it waits for an answer, which may come in pieces.
_SILENCE_DONE = 1.0
_SILENCE_ANSWERED = 5.0
_LOOK = 2.0  # seconds between two looks whether a half-closed client still exists
_KEEPALIVE = 30  # seconds after which the kernel asks it

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Hub(Protocol):
    """What a link needs from the loop it lives in; all in the loop's thread."""

    def watch(self, thing: socket.socket | Duplex, mask: int, turn: Callable[[int], None]) -> None:
        """Call `turn` with what `thing` is ready for; a mask of 0 ends that."""
        ...

    def at(self, seconds: float, turn: Callable[[], None]) -> None:
        """Call `turn` once, `seconds` from now."""
        ...

    def soon(self, turn: Callable[[], None]) -> None:
        """Call `turn` once after all others had theirs."""
        ...

    def trusted(self, link: Link) -> None:
        """The link's stream leads somewhere."""
        ...

    def refused(self, link: Link, reason: str) -> None:
        """The link's stream led nowhere, nothing is lost, the link waits for another one."""
        ...

    def ended(self, link: Link) -> None: ...


class _State(enum.Enum):
    HELD = "held"
    JOINED = "joined"
    LINGERING = "lingering"
    ENDED = "ended"


class Link:
    """Methods are for the loop's thread only. `pod` is the uid of the pod it is joined to, `born`
    when the client came (monotonic)."""

    def __init__(self, hub: Hub, client: socket.socket) -> None:
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._hub = hub
        self._client = client
        self._remote: Duplex | None = None
        self._state = _State.HELD
        self.pod = ""
        self.born = time.monotonic()
        self._up = bytearray()  # from the client; [:_sent] has been sent and is kept for a retry
        self._sent = 0
        self._down = bytearray()  # from the pod
        self._replayable = True
        self._is_trusted = False
        self._client_ended = False
        self._told_pod = False
        self._deaf = False  # the stream takes nothing any more
        self._unflushed = False
        self._more = False  # the stream may hold bytes that select does not see
        self._pod_spoke_last = False
        self._heard_at = 0.0
        self._silence = _SILENCE_ANSWERED
        self._joins = 0
        self._settle()

    @property
    def held(self) -> bool:
        return self._state is _State.HELD

    @property
    def alive(self) -> bool:
        return self._state is not _State.ENDED

    # --- what the door does to a link ------------------------------------------------------

    def join(self, remote: Duplex, pod: str) -> None:
        """Pump between the client and `remote` from now on; takes ownership of it."""
        self._remote, self.pod = remote, pod
        self._state = _State.JOINED
        self._sent = 0
        self._told_pod = self._is_trusted = self._deaf = False
        self._joins += 1
        joined = self._joins
        self._more = True
        self._hub.at(_TRUST, lambda: self._nobody_refused(joined))
        self._on_remote(_READ | _WRITE)

    def abort(self) -> None:
        """Reset the client: a clean end would pass a cut answer off as a whole one."""
        if self._state is _State.ENDED:
            return
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end()

    def leave(self, reason: str) -> None:
        """The pod is gone: wait for another one if nothing is lost by that, else reset.

        Its last words may still be on their way, so the reset waits a moment."""
        if self._state is not _State.JOINED:
            return
        if self._replayable and self._sent == 0:
            self._back(reason)
            return
        joined = self._joins
        self._hub.at(_LAST_WORDS, lambda: self.abort() if self._is_joined(joined) else None)

    # --- turns -----------------------------------------------------------------------------

    def _on_client(self, mask: int) -> None:
        try:
            if mask & _WRITE:
                self._flush_down()
            if mask & _READ:
                self._read_client()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # The client has gone; what the pod still says has no taker.
            self._end()
            return
        self._turn_over()

    def _on_remote(self, mask: int) -> None:
        if self._state is not _State.JOINED:
            return
        if mask & _READ:
            self._read_remote()
        self._turn_over()

    def _turn_over(self) -> None:
        if self._state is _State.JOINED:
            self._send_up()
        if self._state is not _State.ENDED:
            self._settle()

    def _read_client(self) -> None:
        data = self._client.recv(_CHUNK)
        if self._state is _State.LINGERING:
            if not data:
                self._end()
        elif data:
            self._up += data
            self._pod_spoke_last = False
        elif self._state is _State.HELD and not self._up:
            self._end()  # somebody only looked whether the port is open
        else:
            self._client_ended = True
            self._ask_kernel_to_look()

    def _read_remote(self) -> None:
        remote = self._remote
        moved = 0
        while remote is not None and moved < _TURN and len(self._down) < _ROOM:
            try:
                data = remote.receive()
            except OSError as error:
                self._broken(error)
                return
            self._more = data is not None
            if data is None:
                return
            if not data:
                self._more = False
                self._remote_over()
                return
            moved += len(data)
            self._heard(data)
            if self._state is not _State.JOINED:
                return

    def _heard(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self._pod_spoke_last = True
        self._trust()
        self._forget()
        if self._down:
            self._down += data
            return
        try:
            sent = self._client.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._end()
            return
        self._down += data[sent:]

    def _send_up(self) -> None:
        remote = self._remote
        if remote is None or self._deaf:
            return
        try:
            while self._sent < len(self._up):
                taken = remote.send(self._up[self._sent : self._sent + _CHUNK])
                if not taken:
                    break
                self._sent += taken
                if not self._replayable:
                    del self._up[: self._sent]
                    self._sent = 0
            self._unflushed = not remote.flush()
            if self._client_ended and self._sent == len(self._up) and not self._told_pod:
                self._told_pod = True
                if not remote.shutdown_write():
                    self._expect_silence()
        except OSError:
            # What it said before it stopped listening, and why it did, is still to be read.
            self._deaf = True
            self._more = True
            joined = self._joins
            self._hub.at(_LAST_WORDS, lambda: self.abort() if self._is_joined(joined) else None)
            return
        if self._is_trusted and len(self._up) >= _KEEP:
            self._forget()

    def _flush_down(self) -> None:
        while self._down:
            try:
                sent = self._client.send(self._down)
            except (BlockingIOError, InterruptedError):
                return
            del self._down[:sent]
        if self._state is _State.LINGERING:
            self._finish()

    # --- changes of state ------------------------------------------------------------------

    def _is_joined(self, joined: int) -> bool:
        """Whether this is still the stream it was when a timer was set."""
        return self._state is _State.JOINED and joined == self._joins

    def _nobody_refused(self, joined: int) -> None:
        if self._is_joined(joined):
            self._trust()
            self._turn_over()

    def _trust(self) -> None:
        if not self._is_trusted:
            self._is_trusted = True
            self._hub.trusted(self)

    def _forget(self) -> None:
        self._replayable = False
        del self._up[: self._sent]
        self._sent = 0

    def _broken(self, error: OSError) -> None:
        # A refused connection delivered nothing to anybody, whatever was sent after it.
        lost_nothing = isinstance(error, ConnectionRefusedError) or self._sent == 0
        if self._replayable and lost_nothing:
            self._back(str(error))
        else:
            self.abort()

    def _back(self, reason: str) -> None:
        self._drop_remote()
        self._state = _State.HELD
        self._sent = 0
        self._settle()
        self._hub.refused(self, reason)

    def _remote_over(self) -> None:
        self._drop_remote()
        self._state = _State.LINGERING
        self._up.clear()
        if not self._down:
            self._finish()

    def _finish(self) -> None:
        """All is said. Closing a socket with unread bytes would reset it and could take the end
        of the answer from the client, so the rest of a request is read and thrown away."""
        if self._client_ended:
            self._end()
            return
        self._hub.at(_LINGER, self._end)
        try:
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            self._end()

    def _drop_remote(self) -> None:
        remote, self._remote = self._remote, None
        self.pod = ""
        if remote is not None:
            self._hub.watch(remote, 0, self._on_remote)
            remote.close()

    def _end(self) -> None:
        if self._state is _State.ENDED:
            return
        self._drop_remote()
        self._state = _State.ENDED
        self._hub.watch(self._client, 0, self._on_client)
        self._client.close()
        self._up.clear()
        self._down.clear()
        self._hub.ended(self)

    # --- clients that have finished sending ------------------------------------------------

    def _ask_kernel_to_look(self) -> None:
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if sys.platform == "linux":
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)

    def _expect_silence(self) -> None:
        """The pod could not be told that the client has finished: silence ends the stream."""
        self._silence = _SILENCE_DONE if self._pod_spoke_last else _SILENCE_ANSWERED
        joined = self._joins
        self._hub.at(min(self._silence, _LOOK), lambda: self._look(joined))

    def _look(self, joined: int) -> None:
        if not self._is_joined(joined):
            return
        quiet = time.monotonic() - self._heard_at
        if self._pod_spoke_last and not self._down and quiet >= self._silence:
            self._remote_over()
        elif self._client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end()
        else:
            self._hub.at(_LOOK, lambda: self._look(joined))

    # --- what to wait for ------------------------------------------------------------------

    def _settle(self) -> None:
        """Ask select for what can be used now, and for nothing else: no busy loop, no unbounded
        buffer."""
        client = _WRITE if self._down else 0
        if self._state is _State.LINGERING:
            client |= 0 if self._client_ended or self._down else _READ
        elif not self._client_ended and len(self._up) < (_ROOM if not self._replayable else _KEEP):
            client |= _READ
        self._hub.watch(self._client, client, self._on_client)
        remote = self._remote
        if remote is None:
            return
        wanted = 0
        if len(self._down) < _ROOM:
            wanted |= _READ
            if self._more:
                self._more = False
                self._hub.soon(lambda: self._on_remote(_READ))
        if not self._deaf and (self._sent < len(self._up) or self._unflushed):
            wanted |= _WRITE
        self._hub.watch(remote, wanted, self._on_remote)
