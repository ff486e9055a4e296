"""Pods behind socket pairs: a dial hands out one end, the test or an app thread has the other."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from devloop.events import ForwardChanged
from devloop.model import PodView
from devloop.port_forward import PortForwarder
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.events import Event
    from devloop.port_forward.settings import ForwardSettings


def pod(name: str, *, ready: bool = True, deleting: bool = False, created: str = "") -> PodView:
    return PodView(
        name=name,
        uid=f"uid-{name}",
        namespace="default",
        ready=ready,
        deleting=deleting,
        created=created or f"2026-01-01T00:00:{len(name):02}Z",
    )


class Pods:
    """A `PodSource` that a test changes."""

    def __init__(self, *pods: PodView) -> None:
        self._pods = pods
        self._callbacks: list[Callable[[], None]] = []

    def current(self, service: str) -> tuple[PodView, ...]:
        return self._pods

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def set(self, *pods: PodView) -> None:
        self._pods = pods
        for callback in tuple(self._callbacks):
            callback()

    @property
    def watched(self) -> bool:
        return bool(self._callbacks)


class Pair:
    """A `Duplex` over a socket. `refusing` is what the first `receive` raises."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        half_close: bool = True,
        refusing: Exception | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.half_close = half_close
        self.refusing = refusing
        self.receives = 0
        self.sent = 0
        self.pings = 0
        self.failing_ping: Exception | None = None

    def fileno(self) -> int:
        return self.sock.fileno()

    def receive(self) -> bytes | None:
        self.receives += 1
        if self.refusing is not None:
            raise self.refusing
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None

    def send(self, data: bytes | bytearray) -> int:
        try:
            taken = self.sock.send(data)
        except BlockingIOError:
            return 0
        self.sent += taken
        return taken

    def flush(self) -> bool:
        return True

    def shutdown_write(self) -> bool:
        if self.half_close:
            self.sock.shutdown(socket.SHUT_WR)
        return self.half_close

    def ping(self) -> None:
        self.pings += 1
        if self.failing_ping is not None:
            raise self.failing_ping

    def close(self) -> None:
        self.sock.close()


class App:
    """Serves every stream that is dialed in a thread of its own; counts who was asked."""

    def __init__(self, serve: Callable[[str, socket.socket], None], *, half_close: bool = True):
        self.serve = serve
        self.half_close = half_close
        self.dialed: list[str] = []
        self.failing: list[Exception] = []
        self.refusing: list[Exception] = []
        self.pairs: list[Pair] = []
        self.gate = threading.Event()  # dials wait while it is not set
        self.gate.set()
        self.prepared: tuple[str, ...] = ()
        self._ends: list[socket.socket] = []
        self._all: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __call__(self, pod: PodView, port: int | str, cancel: Cancel) -> Pair:
        with self._lock:
            self.dialed.append(pod.name)
            failing = self.failing.pop(0) if self.failing else None
            refusing = self.refusing.pop(0) if self.refusing and not failing else None
        with cancel.closing(self.gate.set):
            self.gate.wait(30)
        cancel.check()
        if failing is not None:
            raise failing
        ours, theirs = socket.socketpair()
        pair = Pair(ours, half_close=self.half_close, refusing=refusing)
        with self._lock:
            self.pairs.append(pair)
            self._ends.append(theirs)
            self._all.append(theirs)
        if refusing is None:
            thread = threading.Thread(
                target=self._serve, args=(pod.name, theirs), name="devloop-test-app", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return pair

    @property
    def attached(self) -> int:
        """How many of `pairs` the forwarder has read from: a dial has made its pair a moment
        before the loop gets it."""
        return sum(pair.receives > 0 for pair in tuple(self.pairs))

    def prepare(self, pods: Iterable[PodView]) -> None:
        self.prepared = tuple(pod.name for pod in pods)

    def _serve(self, name: str, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.serve(name, end)
        with contextlib.suppress(OSError):
            end.close()

    def kill(self) -> None:
        """End every stream, as a pod that dies does."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.kill()
        for thread in self._threads:
            thread.join(30)
        for pair in self.pairs:
            pair.close()
        for end in self._all:
            end.close()


def echo(name: str, end: socket.socket) -> None:
    """Send back everything, then end."""
    while data := end.recv(65536):
        end.sendall(data)


def answer(name: str, end: socket.socket) -> None:
    """One line in, one line out that names the pod."""
    end.recv(65536)
    end.sendall(f"from {name}\n".encode())


class CountingSelector(selectors.DefaultSelector):
    """Counts how often it was asked."""

    selects = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.selects += 1
        return super().select(timeout)


class ManualLoop(asyncio.SelectorEventLoop):
    """Its clock stands still until a test moves it."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._counting = CountingSelector()
        super().__init__(self._counting)

    def time(self) -> float:
        return self._now

    @property
    def turns(self) -> int:
        """How often it has woken up."""
        return self._counting.selects

    def advance(self, seconds: float) -> None:
        """Move the clock and wait until what became due was done."""

        def move() -> None:
            self._now += seconds

        self.call_soon_threadsafe(move)
        turn_over(self)


def turn_over(loop: asyncio.AbstractEventLoop, turns: int = 4) -> None:
    """Wait until the loop has looked at everything that has happened so far."""
    for _ in range(turns):
        done = threading.Event()
        loop.call_soon_threadsafe(done.set)
        assert done.wait(30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """Port forwards under test: local ports, published events, bugs and the loop."""

    ports: tuple[int, ...]
    events: list[Event]
    bugs: list[BaseException]
    loop: ManualLoop
    forwarder: PortForwarder

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(e.state, e.pod) for e in self.events if isinstance(e, ForwardChanged)]

    def turn_over(self) -> None:
        turn_over(self.loop)


@contextlib.contextmanager
def opened(
    app: App,
    pods: Pods,
    *,
    ports: int = 1,
    manual: bool = False,
    settings: ForwardSettings | None = None,
) -> Iterator[Forwarded]:
    """Forward so many ports of the service `web`. `manual`: `loop.advance` moves the clock."""
    events: list[Event] = []
    bugs: list[BaseException] = []
    loop = ManualLoop() if manual else asyncio.SelectorEventLoop()
    wanted = [("web", 0, 8080 + n) for n in range(ports)]
    forwarder = PortForwarder(
        wanted,
        app,
        pods,
        events.append,
        on_bug=bugs.append,
        settings=settings,
        new_loop=lambda: loop,
    )
    forwarder.start()
    try:
        until(lambda: len(events) >= ports)
        listening = [e for e in events if isinstance(e, ForwardChanged) and e.state == "listening"]
        yield Forwarded(
            ports=tuple(e.local for e in listening),
            events=events,
            bugs=bugs,
            loop=cast("ManualLoop", loop),
            forwarder=forwarder,
        )
    finally:
        forwarder.close()
        app.close()


def connect(forwarded: Forwarded, host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    sock = socket.create_connection((host, forwarded.ports[port]), timeout=30)
    sock.settimeout(30)
    return sock


def ask(forwarded: Forwarded, port: int = 0) -> str:
    with connect(forwarded, port=port) as sock:
        sock.sendall(b"hello\n")
        return read_all(sock).decode()


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


class Receives(Protocol):
    """A stream to a pod that is asked again while nothing has come."""

    def receive(self) -> bytes | None: ...


def next_of(stream: Receives) -> bytes:
    """What comes next on a stream; empty at its end."""
    came: list[bytes] = []

    def look() -> bool:
        if (data := stream.receive()) is not None:
            came.append(data)
        return bool(came)

    until(look)
    return came[0]
