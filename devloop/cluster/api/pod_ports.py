"""Streams to pods' ports, quickly: tunnels into the pods that will be asked stay open and are used
again.

A tunnel costs a TLS handshake and the API server's and the kubelet's work, a stream on it one
message. So a few spare ones wait, looked after by one thread. Which pods those are is the
caller's to say; nothing here decides where a connection goes.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import supervised
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.tunnel import Tunnel, TunnelPort, open_tunnel, start_port
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.cluster.api.connection import Connection
    from devloop.model import PodView


_SPARE = 2  # tunnels that wait for a first use, for each pod
_MOST_IDLE = 16  # tunnels kept after use, for each pod
_TRIES = 2  # with tunnels that waited; where two are silent the pod may be
_REPLY = 1.0  # seconds until a tunnel that was idle counts as dead
_FRESH_REPLY = 5.0
_CHECK = 20.0  # seconds without traffic after which an idle tunnel is asked for a sign of life
# Seconds between two tries to open a spare tunnel into the same pod: a new one has its network a
# moment before anybody reports it, and a broken one never.
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# Answers that the other carrier would get as well.
_FINAL = frozenset({401, 404, 429})


class PodPorts:
    """Opens streams to pods' ports (`port_forward.ports.Dial`). Safe to use from many threads; call
    `close` once. `number_of` gives the number of a port in a pod, where it is given by words."""

    def __init__(
        self,
        connection: Connection,
        *,
        spare: int = _SPARE,
        number_of: Callable[[PodView, int | str], int] = lambda _, port: int(port),
    ) -> None:
        self._connection = connection
        self._number_of = number_of
        self._spare = spare
        self._changed = threading.Condition()
        self._pods: dict[str, PodView] = {}
        self._idle: dict[str, list[Tunnel]] = {}
        # pod uid -> when to try again after a failure, and how long the pause after another is
        self._pauses: dict[str, tuple[float, float]] = {}
        self._stop = Cancel()
        self._thread: threading.Thread | None = None
        self._in_websocket = False  # until somebody on the way turns out to know no SPDY

    def __call__(self, pod: PodView, port: int | str, cancel: Cancel) -> TunnelPort:
        """Open a stream to `port`. Blocks until the node has taken it, usually for milliseconds.

        Raises `DevloopError` (cluster/not-found, cluster/forbidden, cluster/unreachable, ...),
        `Cancelled`."""
        number = self._number_of(pod, port)
        release = functools.partial(self._release, pod.uid)
        for _ in range(_TRIES):
            if (tunnel := self._take(pod.uid)) is None:
                break
            try:
                return start_port(tunnel, number, _REPLY, cancel, release)
            except OSError:
                # It died while nobody looked, and nothing was sent on it: the next one.
                self._distrust(pod.uid)
        tunnel = self._open(pod, cancel)
        try:
            return start_port(tunnel, number, _FRESH_REPLY, cancel, release)
        except OSError as error:
            raise self._connection.lost(error) from error

    def _open(self, pod: PodView, cancel: Cancel) -> Tunnel:
        open_one = functools.partial(open_tunnel, self._connection, pod.namespace, pod.name, cancel)
        if not self._in_websocket:
            try:
                return open_one()
            except ApiError as error:
                if error.status in _FINAL or error.status >= 500:
                    raise
        tunnel = open_one(in_websocket=True)
        self._in_websocket = True
        return tunnel

    def prepare(self, pods: Iterable[PodView]) -> None:
        """Have tunnels ready for `pods` from now on, and for no others. Does not block."""
        wanted = {pod.uid: pod for pod in pods}
        with self._changed:
            if self._stop.is_set() or self._pods.keys() == wanted.keys():
                return
            self._pods = wanted
            leaving = [self._idle.pop(uid) for uid in self._idle.keys() - wanted.keys()]
            self._pauses = {u: p for u, p in self._pauses.items() if u in wanted}
            if self._thread is None and wanted:
                self._thread = supervised("tunnels", self._work)
                self._thread.start()
            self._changed.notify_all()
        for tunnel in (tunnel for tunnels in leaving for tunnel in tunnels):
            tunnel.close()

    def close(self) -> None:
        """Close the idle tunnels; streams are their owners' to close."""
        self._stop.set()
        with self._changed:
            self._pods = {}
            idle, self._idle = self._idle, {}
            thread = self._thread
            self._changed.notify_all()
        for tunnel in (tunnel for tunnels in idle.values() for tunnel in tunnels):
            tunnel.close()
        if thread is not None:
            thread.join(0.3)

    # --- idle tunnels --------------------------------------------------------------------------

    def _take(self, uid: str) -> Tunnel | None:
        while True:
            with self._changed:
                idle = self._idle.get(uid)
                if not idle:
                    self._changed.notify_all()
                    return None
                tunnel = idle.pop()
                if len(idle) < self._spare:
                    self._changed.notify_all()
            if tunnel.usable():
                return tunnel
            tunnel.close()

    def _release(self, uid: str, tunnel: Tunnel) -> None:
        with self._changed:
            idle = self._idle.setdefault(uid, []) if uid in self._pods else None
            if idle is not None and not tunnel.closed and len(idle) < _MOST_IDLE:
                idle.append(tunnel)
                return
        tunnel.close()

    def _distrust(self, uid: str) -> None:
        """One idle tunnel was dead, after a suspend perhaps: drop those that may be as well."""
        latest = time.monotonic() - _REPLY
        with self._changed:
            idle = self._idle.get(uid, [])
            old = [tunnel for tunnel in idle if tunnel.since < latest]
            idle[:] = [tunnel for tunnel in idle if tunnel.since >= latest]
        for tunnel in old:
            tunnel.close()

    # --- the thread that looks after them ------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                pod = self._lacking()
                tunnel = None if pod else self._silent()
                if pod is None and tunnel is None:
                    self._changed.wait(self._rest())
                    continue
            if pod is not None:
                self._add(pod)
            elif tunnel is not None:
                self._check(*tunnel)

    def _lacking(self) -> PodView | None:
        now = time.monotonic()
        for uid, pod in self._pods.items():
            short = len(self._idle.get(uid, ())) < self._spare
            if short and self._pauses.get(uid, (0.0, 0.0))[0] <= now:
                return pod
        return None

    def _silent(self) -> tuple[str, Tunnel] | None:
        latest = time.monotonic() - _CHECK
        for uid, idle in self._idle.items():
            for tunnel in idle:
                if tunnel.since < latest:
                    idle.remove(tunnel)
                    return uid, tunnel
        return None

    def _rest(self) -> float:
        now = time.monotonic()
        return min([_CHECK / 2, *(t - now for t, _ in self._pauses.values() if t > now)])

    def _add(self, pod: PodView) -> None:
        try:
            tunnel = self._open(pod, self._stop)
        except Cancelled:
            return
        except DevloopError:
            # Whoever really needs a stream learns why there is none.
            with self._changed:
                _, pause = self._pauses.get(pod.uid, (0.0, _PAUSE))
                again = time.monotonic() + pause
                self._pauses[pod.uid] = (again, min(pause * 1.5, _LONGEST_PAUSE))
            return
        with self._changed:
            self._pauses.pop(pod.uid, None)
        self._release(pod.uid, tunnel)

    def _check(self, uid: str, tunnel: Tunnel) -> None:
        try:
            tunnel.check(_REPLY, self._stop)
        except OSError:
            tunnel.close()
        self._release(uid, tunnel)
