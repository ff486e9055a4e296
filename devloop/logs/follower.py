"""Following every container's log from its first line to its last, each line exactly once.

The cluster's view shows which containers there are; one thread a container reads, and whatever
happens to a stream (network, rotation, restart, a kubelet that gives up) it is opened again where
it broke. This module knows no Kubernetes client: streams come from an `OpenLog`.

What cannot be had: lines of an instance that was replaced twice before it could be read (the
kubelet keeps one), and lines of a pod whose node was gone first.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import threading
import time
from dataclasses import KW_ONLY, field, replace
from typing import TYPE_CHECKING, Protocol

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import supervised
from devloop.errors import Code, DevloopError
from devloop.events import DiagnosticRaised, LogLine
from devloop.logs.lines import Splitter, to_key
from devloop.logs.reading import (
    End,
    Instance,
    Position,
    RateLimit,
    ReadProgress,
    backoff,
    learned,
    next_read,
    outdated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from devloop.errors import Diagnosis
    from devloop.events import Event
    from devloop.logs.lines import Piece
    from devloop.logs.reading import Read
    from devloop.model import ContainerView, PodView


_LOG = logging.getLogger(__name__)

# Lines a second that one container may show; a person reads none of them at a tenth of this.
_RATE = 20_000

# How long a pod that is gone may keep its streams open: longer than any final output takes.
_FINAL_OUTPUT = 10.0


class OpenLog(Protocol):
    """One request for a container's log, followed, with timestamps.

    Yields bytes in chunks of any size until the container ends or the stream breaks. Raises
    `Cancelled` soon after `cancel` is set, `DevloopError` when refused, `OSError` when broken."""

    def __call__(
        self,
        pod: PodView,
        container: str,
        *,
        since_time: str | None,
        previous: bool,
        cancel: Cancel,
    ) -> Iterator[bytes]: ...


@dataclass(slots=True, kw_only=True)
class _FollowedContainer:
    """One container of one pod. `position`, `limit`, `failures` and `tail` belong to the thread
    that reads, the rest is guarded by the follower's lock."""

    service: str
    pod: PodView
    name: str
    instance: Instance
    position: Position
    limit: RateLimit
    stream: Cancel = field(default_factory=Cancel)
    closed: bool = False
    progress: ReadProgress = field(default_factory=ReadProgress)
    gone_since: float | None = None
    thread: threading.Thread | None = None
    reading: bool = False
    failures: int = 0
    tail: list[Piece] = field(default_factory=list)
    dropped: int = 0
    notice: threading.Thread | None = None


@dataclass(eq=False)
class LogFollower:
    """Publishes a `LogLine` for every line of the containers that `pods_changed` brings.

    `patterns` gives each service's container names or fnmatch patterns (init containers count).
    `since` is the server's time when the session began: of pods older than that only what they
    write from then on is shown; empty shows every pod from its first line. `publish` is called
    from many threads."""

    open_log: OpenLog
    publish: Callable[[Event], None]
    _: KW_ONLY
    patterns: Mapping[str, Sequence[str]]
    since: str = ""
    rate: int = _RATE
    clock: Callable[[], float] = time.monotonic
    backoff: Callable[[int], float] = backoff
    report_dropped_after: float = 1.0

    def __post_init__(self) -> None:
        self._ending = Cancel()
        self._changed = threading.Condition()
        self._containers: dict[tuple[str, str], _FollowedContainer] = {}
        self._notices: set[threading.Thread] = set()
        self._reported: set[tuple[str, str]] = set()
        self._closed = False

    # --- pods come and go ----------------------------------------------------------------------

    def pods_changed(self, service: str, pods: tuple[PodView, ...]) -> None:
        """These are the service's pods now, all of them. From any thread; never blocks."""
        cut: list[Cancel] = []
        with self._changed:
            if self._closed:
                return
            seen = {pod.uid for pod in pods}
            for key, entry in list(self._containers.items()):
                if entry.service == service and entry.pod.uid not in seen:
                    self._mark_gone(key, entry, cut)
            patterns = self.patterns.get(service, ())
            for pod in pods:
                for container in pod.containers:
                    if any(fnmatch.fnmatchcase(container.name, pattern) for pattern in patterns):
                        self._update(service, pod, container, cut)
            self._changed.notify_all()
        for stream in cut:  # without the lock: it runs what the stream's owner registered
            stream.set()

    def _update(
        self, service: str, pod: PodView, container: ContainerView, cut: list[Cancel]
    ) -> None:
        key = (pod.uid, container.name)
        entry = self._containers.get(key)
        # A container that waits after a crash still carries the id of the instance that crashed.
        instance = Instance(
            id=container.container_id,
            restarts=container.restarts,
            over=container.state in ("waiting", "terminated"),
        )
        if entry is None:
            old = self.since and to_key(pod.created)[:19] < to_key(self.since)[:19]
            entry = _FollowedContainer(
                service=service,
                pod=pod,
                name=container.name,
                instance=instance,
                position=Position(self.since if old else ""),
                limit=RateLimit(self.rate),
            )
            self._containers[key] = entry
        if entry.reading and outdated(entry.instance, instance, deleting=pod.deleting):
            cut.append(entry.stream)
        entry.pod, entry.instance, entry.gone_since = pod, instance, None
        if not entry.reading and next_read(entry.progress, entry.instance):
            entry.reading = True
            name = f"log-{entry.service}-{entry.pod.suffix}-{entry.name}"
            entry.thread = supervised(name, self._run, entry)
            entry.thread.start()

    def _mark_gone(
        self, key: tuple[str, str], entry: _FollowedContainer, cut: list[Cancel]
    ) -> None:
        now = self.clock()
        if entry.gone_since is None:
            entry.gone_since = now
            entry.instance = replace(entry.instance, over=True, gone=True)
        if not entry.reading:
            del self._containers[key]
            if entry.thread is not None:
                entry.thread.join()  # it let go of the lock for the last time
        elif now - entry.gone_since > _FINAL_OUTPUT:
            entry.closed = True
            cut.append(entry.stream)

    # --- the end -------------------------------------------------------------------------------

    def drain(self, timeout: float) -> bool:
        """Wait until the logs of all containers that are over were read to their end."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not any(e.reading and e.instance.over for e in self._containers.values()),
                timeout,
            )

    def close(self, timeout: float = 0.3) -> tuple[str, ...]:
        """End all streams; nothing is published afterwards.

        Returns the names of threads that did not end within `timeout` seconds."""
        with self._changed:
            self._closed = True
            entries = list(self._containers.values())
            notices = list(self._notices)
            for entry in entries:
                entry.closed = True
            self._changed.notify_all()
        for entry in entries:
            entry.stream.set()
        self._ending.set()
        threads = [*(entry.thread for entry in entries if entry.thread), *notices]
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return tuple(thread.name for thread in threads if thread.is_alive())

    # --- a container's thread ------------------------------------------------------------------

    def _run(self, entry: _FollowedContainer) -> None:
        while (step := self._next(entry)) is not None:
            read, instance = step
            entry.failures += 1  # until a new line proves the opposite
            end = self._read(entry, read)
            if entry.stream.is_set():  # then it matters little what the reader made of it
                end = End.CUT
            settled = self._settle(entry, read, instance, end)
            self._report_dropped(entry)
            if end is End.CUT:
                entry.failures = 0
            elif not settled:
                self._pause(entry, instance)

    def _next(self, entry: _FollowedContainer) -> tuple[Read, Instance] | None:
        with self._changed:
            read = next_read(entry.progress, entry.instance)
            if read is None or entry.closed:
                entry.reading = False
                self._changed.notify_all()
                return None
            entry.stream = Cancel()
            return read, entry.instance

    def _pause(self, entry: _FollowedContainer, instance: Instance) -> None:
        """Wait before the next try, but no longer than until something about it changes."""
        with self._changed:
            self._changed.wait_for(
                lambda: entry.closed or entry.instance != instance, self.backoff(entry.failures)
            )

    def _settle(self, entry: _FollowedContainer, read: Read, instance: Instance, end: End) -> bool:
        """Note how a stream ended; True when there is no reason to wait before the next."""
        with self._changed:
            old = entry.progress
            new = entry.progress = learned(old, read, instance, end, entry.failures)
        if (old.before, old.done, old.trail) == (new.before, new.done, new.trail):
            return False
        entry.failures = 0
        if read.previous or new.done != old.done:
            with contextlib.suppress(Cancelled):
                self._show(entry, entry.tail)
            entry.tail = []
        return True

    def _read(self, entry: _FollowedContainer, read: Read) -> End:
        """Show what is new of one stream; how it ended."""
        try:
            return self._stream(entry, read)
        except Cancelled:
            return End.BROKEN
        except (DevloopError, OSError) as error:
            _LOG.debug("log of %s/%s: %s", entry.pod.name, entry.name, error)
            if isinstance(error, OSError) or error.code is Code.CLUSTER_UNREACHABLE:
                return End.BROKEN
            if error.code.final:
                self._report_once(entry, error.diagnosis)
                return End.FINAL
            return End.REFUSED
        except Exception:  # noqa: BLE001 - see below
            # One stream's bug must not end what can be read with the next.
            _LOG.exception("log of %s/%s", entry.pod.name, entry.name)
            return End.BROKEN

    def _stream(self, entry: _FollowedContainer, read: Read) -> End:
        splitter = Splitter()
        chunks = self.open_log(
            entry.pod,
            entry.name,
            since_time=entry.position.open(previous=read.previous),
            previous=read.previous,
            cancel=entry.stream,
        )
        unproven = read.follows_on
        try:
            for chunk in chunks:
                pieces = splitter.feed(chunk)
                first = next((piece for piece in pieces if piece.key), None)
                if unproven and first is not None:
                    unproven = False
                    if not entry.position.repeats(first):
                        return End.ASTRAY
                self._show(entry, pieces)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        # What has no newline is either the last line of an app that ended, then they are shown
        # when that is known, or it was cut with the stream, then the next one repeats it whole.
        entry.tail = splitter.end()
        return End.CLOSED

    # --- lines ---------------------------------------------------------------------------------

    def _show(self, entry: _FollowedContainer, pieces: list[Piece]) -> None:
        for piece in pieces:
            if not piece.key:
                # Every line of the app has a timestamp: this is the kubelet, explaining why it
                # stops, and it repeats that on every try.
                _LOG.debug("kubelet on %s/%s: %s", entry.pod.name, entry.name, piece.text)
                continue
            if entry.closed:
                raise Cancelled
            if not entry.position.is_new(piece):
                continue
            entry.failures = 0
            if not entry.limit.admit(self.clock()):
                self._note_dropped(entry)
                continue
            if entry.dropped:
                self._report_dropped(entry)
            self.publish(_line(entry, piece.text, piece.ts))

    def _note_dropped(self, entry: _FollowedContainer) -> None:
        """Count a line that was not shown. A flood can stop as suddenly as it began, so another
        thread sees to it that the loss is reported even if no line follows."""
        with self._changed:
            entry.dropped += 1
            if entry.notice is not None or self._closed:
                return
            name = f"log-dropped-{entry.pod.suffix}-{entry.name}"
            entry.notice = supervised(name, self._notice, entry)
            self._notices.add(entry.notice)
            entry.notice.start()

    def _notice(self, entry: _FollowedContainer) -> None:
        self._ending.wait(self.report_dropped_after)
        self._report_dropped(entry)
        with self._changed:
            if entry.notice is not None:
                self._notices.discard(entry.notice)
            entry.notice = None

    def _report_dropped(self, entry: _FollowedContainer) -> None:
        with self._changed:
            dropped, entry.dropped = entry.dropped, 0
            if not dropped or self._closed:
                return
        text = f"… {dropped:,} lines dropped: more than {self.rate:,} a second"
        self.publish(_line(entry, text, ""))

    def _report_once(self, entry: _FollowedContainer, diagnosis: Diagnosis) -> None:
        with self._changed:
            if (entry.service, diagnosis.code) in self._reported:
                return
            self._reported.add((entry.service, diagnosis.code))
        self.publish(
            DiagnosticRaised.of(replace(diagnosis, severity="warning"), service=entry.service)
        )


def _line(entry: _FollowedContainer, text: str, ts: str) -> LogLine:
    return LogLine(
        service=entry.service, pod=entry.pod.name, container=entry.name, text=text, ts=ts
    )
