"""Following every container's log from its first line to its last, each line exactly once.

The cluster's view shows which containers there are; one thread a container reads, and whatever
happens to a stream (network, rotation, restart, a kubelet that gives up) it is opened again where
it broke. This module knows no Kubernetes client: streams come from an `OpenLog`.

What cannot be had: lines of an instance that was replaced twice before it could be read (the
kubelet keeps one), lines of a pod whose node was gone first, and lines in a rotated file that is
gone or may not be read. Where that can be the case it is reported, with the times between which.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import threading
import time
from dataclasses import KW_ONLY, replace
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import supervised
from devloop.errors import Code, DevloopError
from devloop.events import DiagnosticRaised
from devloop.logs.followed import FollowedContainer, LogFile
from devloop.logs.joints import OTHER, Joints
from devloop.logs.lines import Splitter, to_key
from devloop.logs.output import LineOutput
from devloop.logs.reading import (
    End,
    Instance,
    Position,
    backoff,
    learned,
    next_read,
    outdated,
)
from devloop.logs.rotation import LOOK_EVERY, at_the_end, attend, look_if_due

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.errors import Diagnosis
    from devloop.events import Event
    from devloop.logs.lines import Piece
    from devloop.logs.ports import LogFiles, OpenLog
    from devloop.logs.reading import Read
    from devloop.model import ContainerView, PodView


_LOG = logging.getLogger(__name__)

# Lines a second that one container may show; a person reads none of them at a tenth of this.
_RATE = 20_000

# How long a pod that is gone may keep its streams open: longer than any final output takes.
_FINAL_OUTPUT = 10.0

_GONE = "the pod is gone"

# How long the reader of a container that is not to be shown any more has to end, in seconds.
_LET_GO = 1.0


@dataclass(eq=False)
class LogFollower:
    """Publishes a `LogLine` for every line of the containers that `pods_changed` brings.

    `patterns` gives each service's container names or fnmatch patterns (init containers count),
    until `show` gives others.
    `since` is the server's time when the session began: of pods older than that only what they
    write from then on is shown; empty shows every pod from its first line. `publish` is called
    from many threads. Without `files` a rotation shows only where a stream is opened again.
    `idle`: seconds without a byte after which a stream may be ended; `tick`: how often that and
    rotations are looked at, and these after every `look_every` bytes."""

    open_log: OpenLog
    publish: Callable[[Event], None]
    _: KW_ONLY
    patterns: Mapping[str, Sequence[str]]
    since: str = ""
    rate: int = _RATE
    clock: Callable[[], float] = time.monotonic
    backoff: Callable[[int], float] = backoff
    report_dropped_after: float = 1.0
    files: LogFiles | None = None
    look_every: int = LOOK_EVERY
    tick: float = 0.25
    idle: float = 0.3

    def __post_init__(self) -> None:
        self._ending = Cancel()
        self._joints = Joints(self.files, self._ending)
        self._changed = threading.Condition()
        self._containers: dict[tuple[str, str], FollowedContainer] = {}
        self._outputs: list[LineOutput] = []
        self._watching: threading.Thread | None = None
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
                    if _named(container.name, patterns):
                        self._update(service, pod, container, cut)
            self._changed.notify_all()
        for stream in cut:  # without the lock: it runs what the stream's owner registered
            stream.set()

    def show(self, service: str, patterns: Sequence[str]) -> None:
        """From now on show the service's containers that `patterns` name; what was shown of one
        before is not shown again. The next `pods_changed` begins with those that are new."""
        with self._changed:
            self.patterns = {**self.patterns, service: tuple(patterns)}
            out = [
                entry
                for entry in self._containers.values()
                if entry.service == service and not _named(entry.name, patterns)
            ]
            for entry in out:
                entry.closed = True
            self._changed.notify_all()
        for entry in out:
            entry.stream.set()
        for entry in out:
            if entry.thread is not None:
                entry.thread.join(_LET_GO)

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
            entry = FollowedContainer(
                service=service,
                pod=pod,
                name=container.name,
                instance=instance,
                position=Position(self.since if old else ""),
                output=LineOutput(
                    service,
                    pod,
                    container.name,
                    self.publish,
                    rate=self.rate,
                    clock=self.clock,
                    report_after=self.report_dropped_after,
                ),
            )
            self._containers[key] = entry
        if entry.reading and outdated(entry.instance, instance, deleting=pod.deleting):
            if self.clock() - entry.file.active >= self.idle:
                cut.append(entry.stream)
            else:
                # It still gives what was written before, and of a rotated file only it has that.
                entry.file.outdated = True
                self._watch()
        entry.pod, entry.instance, entry.gone_since = pod, instance, None
        if not entry.reading:
            entry.closed = False
        if not entry.reading and next_read(entry.progress, entry.instance):
            entry.reading = True
            name = f"log-{entry.service}-{entry.pod.suffix}-{entry.name}"
            entry.thread = supervised(name, self._run, entry)
            entry.thread.start()

    def _mark_gone(self, key: tuple[str, str], entry: FollowedContainer, cut: list[Cancel]) -> None:
        now = self.clock()
        if entry.gone_since is None:
            entry.gone_since = now
            entry.instance = replace(entry.instance, over=True, gone=True)
        if not entry.reading:
            del self._containers[key]
            self._outputs = [output for output in (*self._outputs, entry.output) if output.busy]
            if entry.thread is not None:
                entry.thread.join()  # it let go of the lock for the last time
        elif now - entry.gone_since > _FINAL_OUTPUT:
            entry.closed = True
            cut.append(entry.stream)

    # --- what shows in no stream ---------------------------------------------------------------

    def _watch(self) -> None:
        """See to it that rotations are noticed; the lock is held."""
        if self._watching is None and not self._closed:
            self._watching = supervised("log-watch", self._look_after)
            self._watching.start()

    def _look_after(self) -> None:
        while not self._ending.wait(self.tick):
            with self._changed:
                entries = [
                    entry
                    for entry in self._containers.values()
                    if entry.reading and entry.file.watched
                ]
                if not entries:
                    self._watching = None
                    return
            for entry in entries:
                stream, silent = entry.stream, self.clock() - entry.file.active
                if self.files is not None:
                    with contextlib.suppress(Cancelled):
                        look_if_due(self.files, entry, silent, self.idle, self._ending)
                if attend(entry, self.clock() - entry.file.active, self.idle):
                    stream.set()

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
            watching = self._watching
            for entry in entries:
                entry.closed = True
            self._changed.notify_all()
        for entry in entries:
            entry.stream.set()
        self._ending.set()
        outputs = [*self._outputs, *(entry.output for entry in entries)]
        notices = [output.close() for output in outputs]
        owned = [watching, *notices, *(entry.thread for entry in entries)]
        threads = [thread for thread in owned if thread is not None]
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return tuple(thread.name for thread in threads if thread.is_alive())

    # --- a container's thread ------------------------------------------------------------------

    def _run(self, entry: FollowedContainer) -> None:
        while (step := self._next(entry)) is not None:
            read, instance = step
            entry.failures += 1  # until a new line proves the opposite
            end = self._read(entry, read, instance)
            if entry.stream.is_set():  # then it matters little what the reader made of it
                end = End.CUT
            with contextlib.suppress(Cancelled):
                if end is End.CLOSED and instance.over and self._ends_early(entry, read):
                    end = End.CUT
                self._joints.cross(entry, instance)
            settled = self._settle(entry, read, instance, end)
            entry.output.report_dropped()
            if end is End.CUT:
                entry.failures = 0
            elif not settled:
                self._pause(entry, instance)

    def _next(self, entry: FollowedContainer) -> tuple[Read, Instance] | None:
        with self._changed:
            read = next_read(entry.progress, entry.instance)
            if read is None or entry.closed:
                gone = entry.instance.gone and not self._closed
                if read is not None and not entry.whole and gone:
                    entry.output.report_gap(entry.position.latest, "", _GONE)
                entry.reading = False
                self._changed.notify_all()
                return None
            entry.stream = Cancel()
            if read.follows_on:
                entry.file.outdated = False
                entry.file.active = self.clock()
            else:
                entry.file = LogFile(active=self.clock())
                if not read.previous:
                    entry.file.before = entry.position.latest or entry.position.floor
            return read, entry.instance

    def _pause(self, entry: FollowedContainer, instance: Instance) -> None:
        """Wait before the next try, but no longer than until something about it changes."""
        with self._changed:
            self._changed.wait_for(
                lambda: entry.closed or entry.instance != instance, self.backoff(entry.failures)
            )

    def _settle(self, entry: FollowedContainer, read: Read, instance: Instance, end: End) -> bool:
        """Note how a stream ended; True when there is no reason to wait before the next."""
        with self._changed:
            old = entry.progress
            new = entry.progress = learned(old, read, instance, end, entry.failures)
        if new.begun != old.begun:
            entry.restarts = instance.restarts
        if (old.before, old.done, old.trail) == (new.before, new.done, new.trail):
            return False
        entry.failures = 0
        if read.previous or new.done != old.done:
            with contextlib.suppress(Cancelled):
                self._show(entry, entry.tail)
            entry.tail = []
        if new.done != old.done and end is not End.FINAL:
            if entry.doubt is not None or not entry.whole:
                after = entry.doubt[0] if entry.doubt else entry.position.latest
                entry.output.report_gap(after, "", _GONE if instance.gone else OTHER)
            entry.doubt = None
        return True

    def _read(self, entry: FollowedContainer, read: Read, instance: Instance) -> End:
        """Show what is new of one stream; how it ended."""
        try:
            return self._stream(entry, read, instance)
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

    def _stream(self, entry: FollowedContainer, read: Read, instance: Instance) -> End:
        splitter = Splitter()
        unproven = self._joints.must_follow_on(entry, read, instance)
        since = entry.position.open(previous=read.previous)
        try:
            chunks = self.open_log(
                entry.pod,
                entry.name,
                since_time=since,
                previous=read.previous,
                cancel=entry.stream,
            )
        except DevloopError as error:
            if error.code is Code.CLUSTER_UNREACHABLE:
                return End.AWAY
            raise
        entry.whole = False
        entry.output.restarts = max(0, instance.restarts - read.previous)
        if read.follows_on:
            self._look(entry)
        try:
            for chunk in chunks:
                pieces = splitter.feed(chunk)
                first = next((piece for piece in pieces if piece.key), None)
                if first is not None and not entry.file.first and not read.previous:
                    entry.file.first = first.key
                    if since is None:
                        entry.file.head = first.key
                self._received(entry, len(chunk), read)
                if unproven and first is not None:
                    unproven = False
                    if not self._joints.follows_on(entry, first, read, instance):
                        return End.ASTRAY
                self._show(entry, pieces)
                if entry.file.first and entry.size > self.look_every:
                    self._joints.older(entry, instance)
                if entry.file.rotated:
                    self._joints.cross(entry, instance)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        # What has no newline is either the last line of an app that ended, then they are shown
        # when that is known, or it was cut with the stream, then the next one repeats it whole.
        entry.tail = splitter.end()
        entry.whole = True
        return End.CLOSED

    def _ends_early(self, entry: FollowedContainer, read: Read) -> bool:
        """Whether the stream of a container that is over ended in a file before its last one."""
        if self.files is None or read.previous or entry.size <= self.look_every:
            return False
        return at_the_end(self.files, entry, self._ending)

    def _received(self, entry: FollowedContainer, size: int, read: Read) -> None:
        file = entry.file
        file.received += size
        entry.size += size
        file.active = self.clock()
        if file.received - file.looked > self.look_every and not read.previous:
            self._look(entry)

    def _look(self, entry: FollowedContainer) -> None:
        if self.files is not None and not entry.file.due:
            with self._changed:
                entry.file.due = entry.file.unsettled = True
                self._watch()

    # --- lines ---------------------------------------------------------------------------------

    def _show(self, entry: FollowedContainer, pieces: list[Piece]) -> None:
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
            if entry.doubt is not None:
                entry.output.report_gap(entry.doubt[0], piece.key, OTHER)
                entry.doubt = None
            entry.output.show(piece)

    def _report_once(self, entry: FollowedContainer, diagnosis: Diagnosis) -> None:
        with self._changed:
            if (entry.service, diagnosis.code) in self._reported:
                return
            self._reported.add((entry.service, diagnosis.code))
        self.publish(
            DiagnosticRaised.of(replace(diagnosis, severity="warning"), service=entry.service)
        )


def _named(container: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(container, pattern) for pattern in patterns)
