"""One client's connection: waits for a pod, then is pumped both ways, without blocking.

What a client has sent is kept until it was answered (or a bound), so that a stream that turns out
to lead nowhere can be replaced by another without the client noticing. Between two HTTP requests a
client is parked and its next request may go to another pod. Decides nothing about pods; that is
the route's. An exception that nobody expected ends this connection and no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.sockets import ClientSocket
from devloop.port_forward.event_loop import SocketEvents, Timers, isolated
from devloop.port_forward.exchange import Exchange
from devloop.port_forward.pod_stream import PodStream, RequestBuffer

if TYPE_CHECKING:
    import asyncio

    from devloop.base.sockets import Socket
    from devloop.port_forward.ports import Duplex
    from devloop.port_forward.route import Route
    from devloop.port_forward.settings import ForwardSettings


class ClientConnection:
    """Methods are for the loop's thread only. `epoch` is the route's note."""

    def __init__(
        self,
        route: Route,
        client: Socket,
        loop: asyncio.AbstractEventLoop,
        settings: ForwardSettings,
    ) -> None:
        self._route = route
        self._loop = loop
        self._settings = settings
        self._client = ClientSocket(client)
        self._client_events = SocketEvents(
            loop, client.fileno(), self._client_readable, self._client_writable
        )
        self._timers = Timers(loop)  # of the present state: a change of stream clears them
        self._remote: PodStream | None = None
        self._lingering = False  # all is answered, but not yet sent
        self.alive = True
        self.epoch = 0
        self._exchange = Exchange()
        self._request = RequestBuffer()
        self._kept_back: bytearray | None = None  # of an answer that is not whole
        self._kept_since = 0.0
        self._repeats = 0
        self._served = False  # some pod has answered something
        self._leaving = False  # the pod gets no further request
        self._client_ended = False
        self._pod_sent_last = False
        self._received_at = 0.0
        self._silence = 0.0
        self._settle()

    @property
    def asks(self) -> bool:
        """Whether the client has sent something."""
        return len(self._request) > 0

    @property
    def pod(self) -> str:
        """The uid of the pod that it is attached to, if it is."""
        return self._remote.pod if self._remote is not None else ""

    # --- what the route does to a connection -----------------------------------------------

    def wait(self) -> None:
        """It waits for a stream from now on, and not for ever."""
        self._timers.after(self._settings.connect_timeout, self.abort)

    @isolated
    def attach(self, remote: Duplex, pod: str, *, quiet: float = 0.0) -> None:
        """Pump between the client and `remote` from now on; takes ownership of it.

        Nothing is sent for `quiet` seconds: where a refusal is likely, bytes that precede it
        cost the node a connection."""
        self._timers.clear()
        self._request.rewind()
        self._leaving = False
        self._remote = PodStream(self._loop, remote, pod, self._remote_readable, self._turn_over)
        self._timers.after(self._settings.trust, self._nobody_refused)
        if quiet:
            self._remote.quiet = True
            self._timers.after(quiet, self._end_quiet)
        self._remote_readable()

    def abort(self) -> None:
        """Reset the client: a clean end would pass a cut answer off as a whole one."""
        self._end(reset=True)

    @isolated
    def release(self) -> bool:
        """No further request may go to this pod, but what is under way stays.

        True when the connection is free of its pod and waits for another stream."""
        if self._remote is None:
            return False
        self._leaving = True
        if self._is_between:
            self._park()
        elif self._request.untouched:
            self._detach()
            return True
        return False

    @isolated
    def retry_elsewhere(self) -> bool:
        """The process is replaced: as `release`, and a request that may be repeated will be."""
        if self.release():
            return True
        if self._remote is None or not self._is_repeatable:
            return False
        self._detach()
        return True

    @isolated
    def leave(self) -> bool:
        """The pod or its process is gone: as `retry_elsewhere`, and everything else is reset.

        Its final output may still be on its way, so the reset waits a moment."""
        if self.retry_elsewhere():
            return True
        if self._remote is not None:
            self._timers.after(self._settings.final_output, self._give_up)
        return False

    @isolated
    def ping(self) -> None:
        """Keep whoever is on the way from taking the stream for dead."""
        if self._remote is not None:
            self._remote.ping()

    # --- what the loop calls ---------------------------------------------------------------

    @isolated
    def _client_writable(self) -> None:
        try:
            self._client.flush()
        except OSError:
            # The client has gone; what the pod still sends has no taker.
            self._end()
            return
        if self._lingering and not self._client.pending:
            self._finish()
        self._turn_over()

    @isolated
    def _client_readable(self) -> None:
        try:
            data = self._client.read()
        except OSError:
            self._end()
            return
        if data is not None:
            self._take_from_client(data)
        self._turn_over()

    @isolated
    def _remote_readable(self) -> None:
        moved, limits = 0, self._settings
        while self._remote and moved < limits.turn and self._client.pending < limits.room:
            try:
                data = self._remote.receive()
            except OSError as error:
                self._broken(error)
                break
            if data is None:
                break
            if data:
                moved += len(data)
                self._received(data)
            else:
                self._remote_over()
        self._turn_over()

    @isolated
    def _turn_over(self) -> None:
        if self._remote is not None:
            self._send_request(self._remote)
        if self.alive:
            self._settle()

    # --- bytes -----------------------------------------------------------------------------

    def _take_from_client(self, data: bytes) -> None:
        if self._lingering:
            if not data:
                self._end()
        elif data:
            was_parked = self._remote is None and self._served and not self._request
            self._request.add(data)
            self._exchange.asked(data)
            self._pod_sent_last = False
            if was_parked:
                self._route.wants_backend(self)
        elif self._remote is None and not self._request:
            self._end()  # somebody only looked whether the port is open, or is done
        else:
            self._client_ended = True
            if self._is_between:
                self._finish_answer()
            else:
                self._client.look_after()

    def _received(self, data: bytes) -> None:
        kept = self._kept_back
        may_wait = kept is not None or (self._request.replayable and self._exchange.repeatable)
        self._exchange.answered(data)
        self._trust()
        if not may_wait:
            self._pass_on(data)
            return
        if kept is None:
            kept = self._kept_back = bytearray()
            self._kept_since = self._loop.time()
            self._timers.after(self._settings.keep_back, self._kept_long_enough)
        kept += data
        if not self._exchange.retractable or len(kept) > self._settings.most_kept_back:
            self._pass_on_kept()

    @isolated
    def _kept_long_enough(self) -> None:
        if self._kept_back is None:
            return
        kept_for = self._loop.time() - self._kept_since
        limit = 0.0
        if self._leaving or self._route.process.unsettled:
            limit = self._settings.keep_back_replacing
        elif self._exchange.counted:
            limit = self._settings.keep_back_counted
        if kept_for < limit:
            self._timers.after(self._settings.keep_back, self._kept_long_enough)
            return
        self._pass_on_kept()
        self._turn_over()

    def _pass_on_kept(self) -> None:
        kept, self._kept_back = self._kept_back, None
        if kept:
            self._pass_on(bytes(kept))

    def _pass_on(self, data: bytes) -> None:
        self._received_at = self._loop.time()
        self._pod_sent_last = self._served = True
        self._request.forget()
        try:
            self._client.write(data)
        except OSError:
            self._end()
            return
        if self._exchange.over:
            # The runtime would report the pod's end a second after it happened.
            self._finish_answer()
        elif self._is_between:
            self._request.replayable = True
            self._repeats = 0
            if self._client_ended:
                self._finish_answer()
            elif self._leaving:
                self._park()

    def _send_request(self, remote: PodStream) -> None:
        if remote.write_closed or remote.quiet:
            return
        try:
            remote.send(self._request, self._settings.chunk)
            is_whole = self._client_ended and not self._request.has_unsent
            if is_whole and not remote.knows_end and not remote.end_request():
                self._expect_silence()
        except OSError:
            remote.stop_sending()
            self._timers.after(self._settings.final_output, self._give_up)
            return
        if remote.trusted and len(self._request) >= self._settings.keep:
            self._request.forget()

    # --- changes of state ------------------------------------------------------------------

    @isolated
    def _end_quiet(self) -> None:
        if self._remote is not None:
            self._remote.quiet = False
        self._turn_over()

    @isolated
    def _nobody_refused(self) -> None:
        self._trust()
        self._turn_over()

    def _trust(self) -> None:
        if self._remote is not None and not self._remote.trusted:
            self._remote.trusted = True
            self._route.trusted(self)

    @property
    def _is_between(self) -> bool:
        """Between two requests: another pod can answer the next one."""
        return self._served and self._exchange.idle

    @property
    def _is_repeatable(self) -> bool:
        unseen = self._exchange.repeatable or self._kept_back is not None
        return self._request.replayable and unseen

    def _may_repeat(self) -> bool:
        """Whether what nobody answered may be sent once more, without another reason for that."""
        self._repeats += 1
        may = self._request.untouched or self._is_repeatable
        return may and self._repeats <= self._settings.most_repeats

    @isolated
    def _give_up(self) -> None:
        self._broken(ConnectionResetError("its pod is gone"))

    def _broken(self, error: OSError) -> None:
        # A refused connection delivered nothing to anybody, whatever was sent after it.
        refused = isinstance(error, ConnectionRefusedError)
        if self._is_between:
            self._park()
        elif self._request.untouched or (
            self._request.replayable and (refused or self._may_repeat())
        ):
            self._to_another(str(error), refused=refused)
        else:
            self.abort()

    def _detach(self) -> None:
        self._drop_remote()
        if self._kept_back is not None:
            self._kept_back = None
            self._exchange.retract()
        self._request.rewind()
        self._settle()

    def _to_another(self, reason: str, *, refused: bool = False) -> None:
        self._detach()
        self._route.failed(self, reason, refused=refused)

    def _park(self) -> None:
        """Keep the client without a pod until it asks again."""
        self._detach()
        self._timers.after(self._settings.park_timeout, self._parked_long_enough)

    @isolated
    def _parked_long_enough(self) -> None:
        if not self._request:
            self._finish_answer()

    def _remote_over(self) -> None:
        """The pod has ended the stream."""
        if self._exchange.until_end and not self._leaving:
            self._pass_on_kept()
        if self._remote is None:
            return
        if self._is_between and not self._client_ended:
            self._park()
        elif self._may_repeat():
            self._to_another("the pod ended the connection without an answer")
        else:
            self._pass_on_kept()
            self._finish_answer()

    def _finish_answer(self) -> None:
        self._drop_remote()
        self._lingering = True
        self._request.clear()
        if not self._client.pending:
            self._finish()

    def _finish(self) -> None:
        """All is sent. Closing a socket with unread bytes would reset it and could take the end
        of the answer from the client, so the rest of a request is read and thrown away."""
        if self._client_ended:
            self._end()
            return
        self._timers.after(self._settings.linger, self._end)
        try:
            self._client.shutdown_write()
        except OSError:
            self._end()

    def _drop_remote(self) -> None:
        self._timers.clear()
        remote, self._remote = self._remote, None
        if remote is not None:
            remote.close()

    def _end(self, *, reset: bool = False) -> None:
        if not self.alive:
            return
        self.alive = False
        self._drop_remote()
        self._client_events.stop()
        self._client.close(reset=reset)
        self._request.clear()
        self._route.ended(self)

    # --- clients that have finished sending ------------------------------------------------

    def _expect_silence(self) -> None:
        """The pod cannot be notified that the client has finished: silence ends the stream."""
        limits = self._settings
        answered = self._pod_sent_last
        self._silence = limits.silence_after_answer if answered else limits.silence_after_request
        self._timers.after(min(self._silence, limits.half_closed_interval), self._look)

    @isolated
    def _look(self) -> None:
        quiet = self._loop.time() - self._received_at
        if self._pod_sent_last and not self._client.pending and quiet >= self._silence:
            self._finish_answer()
        elif self._client.gone:
            self._end()
        else:
            self._timers.after(self._settings.half_closed_interval, self._look)

    # --- what to wait for ------------------------------------------------------------------

    def _settle(self) -> None:
        """Ask select for what can be used now, and for nothing else: no busy loop, no unbounded
        buffer."""
        pending = self._client.pending
        if self._client_ended:
            read = False
        elif self._lingering:
            read = not pending
        else:
            limits = self._settings
            read = len(self._request) < (limits.keep if self._request.replayable else limits.room)
        self._client_events.want(read=read, write=bool(pending))
        if self._remote is not None:
            has_room = pending < self._settings.room
            self._remote.settle(has_room=has_room, has_unsent=self._request.has_unsent)
