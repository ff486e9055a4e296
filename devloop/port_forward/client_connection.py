"""One client's connection: waiting until there is a pod, then pumped both ways, without blocking.

What a client has sent is kept until it was answered (or a bound), so that a stream that turns out
to lead nowhere can be replaced by another without the client noticing. Between two HTTP
requests a client is parked and its next request may go to another pod. Decides nothing about
pods; that is the route's.
"""

from __future__ import annotations

import contextlib
import enum
import selectors
import time
from typing import TYPE_CHECKING

from devloop.port_forward.client_socket import ClientSocket
from devloop.port_forward.exchange import Exchange

if TYPE_CHECKING:
    import socket

    from devloop.port_forward.hub import Hub
    from devloop.port_forward.ports import Duplex

__all__ = ["ClientConnection"]

_CHUNK = 65536
_TURN = 262144  # bytes one connection may move before the others have their turn
_ROOM = 262144  # bytes that may wait for a slow client
_KEEP = 1048576  # bytes kept for another try while nobody has answered
_TRUST = 0.1  # seconds without a refusal after which a stream is taken to lead somewhere
_MOST_REPEATS = 3  # of a request that nobody answered: it may be what kills the pod
# An answer to a safe request is kept back until it is whole, so that one whose process is killed
# between its head and its body can be asked for once more. So long, unless the process is about to
# go, and so much.
_BACK, _BACK_GOING = 0.1, 5.0  # seconds
_MOST_BACK = 65536
_PARKED = 60.0  # seconds a client between two requests is kept without a pod
_FINAL_OUTPUT = 0.5  # seconds that a stream gets to end by itself after its pod has gone
_LINGER = 2.0  # seconds a client has to take the end of an answer
# A client that has closed looks like one that has only finished sending. When the pod had spoken
# last it has most likely closed; otherwise it waits for an answer, which may come in pieces.
_SILENCE_DONE = 1.0
_SILENCE_ANSWERED = 5.0
_LOOK = 2.0  # seconds between two looks whether a half-closed client still exists

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _State(enum.Enum):
    WAITING = "waiting"
    ATTACHED = "attached"
    LINGERING = "lingering"
    ENDED = "ended"


class ClientConnection:
    """Methods are for the loop's thread only. `pod` is the uid of the pod it is attached to;
    `epoch` and `waits_since` (monotonic) are the route's notes."""

    def __init__(self, hub: Hub, client: socket.socket) -> None:
        self._hub = hub
        self._client = ClientSocket(client)
        self._remote: Duplex | None = None
        self._state = _State.WAITING
        self.pod = ""
        self.epoch = 0
        self.waits_since = time.monotonic()
        self._exchange = Exchange()
        self._up = bytearray()  # from the client; [:_sent] has been sent and is kept for a retry
        self._sent = 0
        self._back: bytearray | None = None  # of an answer that is not whole, kept back
        self._replayable = True
        self._repeats = 0
        self._is_trusted = False
        self._served = False  # some pod has answered something
        self._leaving = False  # the pod gets no further request
        self._client_ended = False
        self._reported_end = False
        self._write_closed = False  # the stream takes nothing any more
        self._quiet = False
        self._unflushed = False
        self._more = False  # the stream may have bytes that select does not see
        self._pod_sent_last = False
        self._received_at = 0.0
        self._silence = _SILENCE_ANSWERED
        self._attachments = 0
        self._settle()

    @property
    def waiting(self) -> bool:
        return self._state is _State.WAITING

    @property
    def alive(self) -> bool:
        return self._state is not _State.ENDED

    @property
    def asks(self) -> bool:
        """Whether the client has sent something."""
        return bool(self._up)

    # --- what the route does to a connection -----------------------------------------------------

    def attach(self, remote: Duplex, pod: str, *, quiet: float = 0.0) -> None:
        """Pump between the client and `remote` from now on; takes ownership of it.

        Nothing is sent for `quiet` seconds: where a refusal is likely, bytes that precede it
        cost the node a connection."""
        self._remote, self.pod = remote, pod
        self._state = _State.ATTACHED
        self._sent = 0
        self._reported_end = self._is_trusted = self._write_closed = self._leaving = False
        self._attachments += 1
        attached = self._attachments
        self._more = True
        self._hub.at(_TRUST, lambda: self._nobody_refused(attached))
        self._quiet = quiet > 0
        if quiet:
            self._hub.at(quiet, lambda: self._end_quiet(attached))
        self._on_remote(_READ | _WRITE)

    def abort(self) -> None:
        """Reset the client: a clean end would pass a cut answer off as a whole one."""
        self._end(reset=True)

    def release(self) -> bool:
        """No further request may go to this pod, but what is under way stays.

        True when the connection is free of its pod and waits for another stream."""
        if self._state is not _State.ATTACHED:
            return False
        self._leaving = True
        if self._is_between:
            self._park()
        elif self._replayable and self._sent == 0:
            self._detach()
            return True
        return False

    def retry_elsewhere(self) -> bool:
        """The process is replaced: as `release`, and a request that may be repeated will be."""
        if self.release():
            return True
        if self._state is not _State.ATTACHED or not self._is_repeatable:
            return False
        self._detach()
        return True

    def leave(self) -> bool:
        """The pod or its process is gone: as `retry_elsewhere`, and everything else is reset.

        Its last words may still be on their way, so the reset waits a moment."""
        if self.retry_elsewhere():
            return True
        if self._state is _State.ATTACHED:
            self._give_up_soon()
        return False

    def ping(self) -> None:
        """Keep whoever is on the way from taking the stream for dead."""
        if self._remote is not None:
            # A stream that is broken says so itself, to whoever reads it.
            with contextlib.suppress(OSError):
                self._remote.ping()

    # --- turns -----------------------------------------------------------------------------

    def _on_client(self, mask: int) -> None:
        try:
            if mask & _WRITE:
                self._client.flush()
                if self._state is _State.LINGERING and not self._client.pending:
                    self._finish()
            if mask & _READ and self._state is not _State.ENDED:
                self._read_client()
        except OSError:
            # The client has gone; what the pod still says has no taker.
            self._end()
            return
        self._turn_over()

    def _on_remote(self, mask: int) -> None:
        if self._state is not _State.ATTACHED:
            return
        if mask & _READ:
            self._read_remote()
        self._turn_over()

    def _turn_over(self) -> None:
        if self._state is _State.ATTACHED:
            self._send_up()
        if self._state is not _State.ENDED:
            self._settle()

    def _read_client(self) -> None:
        data = self._client.read()
        if data is None:
            return
        if self._state is _State.LINGERING:
            if not data:
                self._end()
        elif data:
            parked = self._state is _State.WAITING and self._served and not self._up
            self._up += data
            self._exchange.asked(data)
            self._pod_sent_last = False
            if parked:
                self._hub.wants_backend(self)
        elif self._state is _State.WAITING and not self._up:
            self._end()  # somebody only looked whether the port is open, or is done
        else:
            self._client_ended = True
            if self._is_between:
                self._finish_answer()
            else:
                self._client.look_after()

    def _read_remote(self) -> None:
        remote = self._remote
        moved = 0
        while remote is not None and moved < _TURN and self._client.pending < _ROOM:
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
            self._received(data)
            if self._state is not _State.ATTACHED:
                return

    def _received(self, data: bytes) -> None:
        back = self._back
        may_wait = back is not None or (self._replayable and self._exchange.repeatable)
        self._exchange.answered(data)
        self._trust()
        if not may_wait:
            self._pass_on(data)
            return
        if back is None:
            back = self._back = bytearray()
            since, attached = time.monotonic(), self._attachments
            self._hub.at(_BACK, lambda: self._waited(attached, back, since))
        back += data
        if not self._exchange.retractable or len(back) > _MOST_BACK:
            self._pass_on_back()

    def _waited(self, attached: int, back: bytearray, since: float) -> None:
        """An answer has been kept back for as long as one may be."""
        if not self._is_attached(attached) or self._back is not back:
            return
        going = self._leaving or self._hub.unsettled
        if going and time.monotonic() - since < _BACK_GOING:
            self._hub.at(_BACK, lambda: self._waited(attached, back, since))
            return
        self._pass_on_back()
        self._turn_over()

    def _pass_on_back(self) -> None:
        back, self._back = self._back, None
        if back:
            self._pass_on(bytes(back))

    def _pass_on(self, data: bytes) -> None:
        self._received_at = time.monotonic()
        self._pod_sent_last = self._served = True
        self._forget()
        try:
            self._client.write(data)
        except OSError:
            self._end()
            return
        if self._exchange.over:
            # The runtime would tell of the pod's end a second after it happened.
            self._finish_answer()
        elif self._is_between:
            self._replayable = True
            self._repeats = 0
            if self._client_ended:
                self._finish_answer()
            elif self._leaving:
                self._park()

    def _send_up(self) -> None:
        remote = self._remote
        if remote is None or self._write_closed or self._quiet:
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
            if self._client_ended and self._sent == len(self._up) and not self._reported_end:
                self._reported_end = True
                if not remote.shutdown_write():
                    self._expect_silence()
        except OSError:
            # What it said before it stopped listening, and why it did, is still to be read.
            self._write_closed = True
            self._more = True
            self._give_up_soon()
            return
        if self._is_trusted and len(self._up) >= _KEEP:
            self._forget()

    # --- changes of state ------------------------------------------------------------------

    def _is_attached(self, attached: int) -> bool:
        """Whether this is still the stream it was when a timer was set."""
        return self._state is _State.ATTACHED and attached == self._attachments

    def _end_quiet(self, attached: int) -> None:
        if self._is_attached(attached):
            self._quiet = False
            self._turn_over()

    def _nobody_refused(self, attached: int) -> None:
        if self._is_attached(attached):
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

    @property
    def _is_between(self) -> bool:
        """Between two requests: another pod can answer the next one."""
        return self._served and self._exchange.idle

    @property
    def _is_repeatable(self) -> bool:
        unseen = self._exchange.repeatable or self._back is not None
        return self._replayable and unseen

    def _may_repeat(self) -> bool:
        """Whether what nobody answered may be sent once more, without another reason for that."""
        self._repeats += 1
        untouched = self._replayable and self._sent == 0
        return (untouched or self._is_repeatable) and self._repeats <= _MOST_REPEATS

    def _give_up_soon(self) -> None:
        attached = self._attachments

        def give_up() -> None:
            if self._is_attached(attached):
                self._broken(ConnectionResetError("its pod is gone"))

        self._hub.at(_FINAL_OUTPUT, give_up)

    def _broken(self, error: OSError) -> None:
        # A refused connection delivered nothing to anybody, whatever was sent after it.
        refused = isinstance(error, ConnectionRefusedError)
        if self._is_between:
            self._park()
        elif self._replayable and (refused or self._sent == 0 or self._may_repeat()):
            self._to_another(str(error), refused=refused)
        else:
            self.abort()

    def _detach(self) -> None:
        self._drop_remote()
        if self._back is not None:
            self._back = None
            self._exchange.retract()
        self._state = _State.WAITING
        self._sent = 0
        self._settle()

    def _to_another(self, reason: str, *, refused: bool = False) -> None:
        self._detach()
        self._hub.failed(self, reason, refused=refused)

    def _park(self) -> None:
        """Keep the client without a pod until it asks again."""
        self._detach()
        attached = self._attachments

        def forgotten() -> None:
            if self._state is _State.WAITING and self._attachments == attached and not self._up:
                self._finish_answer()

        self._hub.at(_PARKED, forgotten)

    def _remote_over(self) -> None:
        """The pod has ended the stream."""
        if self._exchange.until_end and not self._leaving:
            self._pass_on_back()
        if self._state is not _State.ATTACHED:
            return
        if self._is_between and not self._client_ended:
            self._park()
        elif self._may_repeat():
            self._to_another("the pod ended the connection without an answer")
        else:
            self._pass_on_back()
            self._finish_answer()

    def _finish_answer(self) -> None:
        self._drop_remote()
        self._state = _State.LINGERING
        self._up.clear()
        if not self._client.pending:
            self._finish()

    def _finish(self) -> None:
        """All is said. Closing a socket with unread bytes would reset it and could take the end
        of the answer from the client, so the rest of a request is read and thrown away."""
        if self._client_ended:
            self._end()
            return
        self._hub.at(_LINGER, self._end)
        try:
            self._client.shutdown_write()
        except OSError:
            self._end()

    def _drop_remote(self) -> None:
        remote, self._remote = self._remote, None
        self.pod = ""
        if remote is not None:
            self._hub.watch(remote, 0, self._on_remote)
            remote.close()

    def _end(self, *, reset: bool = False) -> None:
        if self._state is _State.ENDED:
            return
        self._drop_remote()
        self._state = _State.ENDED
        self._hub.watch(self._client.sock, 0, self._on_client)
        self._client.close(reset=reset)
        self._up.clear()
        self._hub.ended(self)

    # --- clients that have finished sending ------------------------------------------------

    def _expect_silence(self) -> None:
        """The pod could not be told that the client has finished: silence ends the stream."""
        self._silence = _SILENCE_DONE if self._pod_sent_last else _SILENCE_ANSWERED
        attached = self._attachments
        self._hub.at(min(self._silence, _LOOK), lambda: self._look(attached))

    def _look(self, attached: int) -> None:
        if not self._is_attached(attached):
            return
        quiet = time.monotonic() - self._received_at
        if self._pod_sent_last and not self._client.pending and quiet >= self._silence:
            self._finish_answer()
        elif self._client.gone:
            self._end()
        else:
            self._hub.at(_LOOK, lambda: self._look(attached))

    # --- what to wait for ------------------------------------------------------------------

    def _settle(self) -> None:
        """Ask select for what can be used now, and for nothing else: no busy loop, no unbounded
        buffer."""
        client = _WRITE if self._client.pending else 0
        if self._state is _State.LINGERING:
            client |= 0 if self._client_ended or self._client.pending else _READ
        elif not self._client_ended and len(self._up) < (_ROOM if not self._replayable else _KEEP):
            client |= _READ
        self._hub.watch(self._client.sock, client, self._on_client)
        remote = self._remote
        if remote is None:
            return
        wanted = 0
        if self._client.pending < _ROOM:
            wanted |= _READ
            if self._more:
                self._more = False
                self._hub.soon(lambda: self._on_remote(_READ))
        if (
            not self._write_closed
            and not self._quiet
            and (self._sent < len(self._up) or self._unflushed)
        ):
            wanted |= _WRITE
        self._hub.watch(remote, wanted, self._on_remote)
