"""Carrying events from those who publish to those who read, so that no reader can slow the loop.

Every reader has its own thread and its own bounded queue. `publish` numbers, stamps and appends;
it never waits for a reader, never runs a reader's code and never raises because of one.

What a reader that falls behind loses, in this order: the oldest log lines; when none are left, the
oldest other events; never `session.ended`. Iterations are few and their meaning is lost with any
part of them, log lines are many and each stands for itself.

Numbers are per reader: everything a reader gets, `Dropped` included, has a `seq` of its own, and
the only gaps are those right before a `Dropped`, of exactly its `count`. For readers that keep up
the numbers are the same everywhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import supervised
from devloop.events import Dropped, LogLine, Record, SessionEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.events import Event


_LOG = logging.getLogger(__name__)

# Log lines differ in size by four orders of magnitude, so a bound on their number is none on the
# memory; this one is in characters, per reader.
_TEXT_LIMIT = 8 * 1024 * 1024

# How many records a reader's thread takes at a time: enough to pay for the lock, few enough that
# what was taken cannot be called a queue.
_BATCH = 256


@dataclass(kw_only=True, eq=False)
class EventBus:
    """The one stream of a session's events.

    `clock` gives seconds since the epoch. `on_lost(name, error)` is called, in the reader's
    thread, when a sink raised: that subscription is over, the others go on."""

    clock: Callable[[], float] = time.time
    on_lost: Callable[[str, Exception], None] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._seq = 0
        self._now = 0
        self._ts = _rfc3339(0)
        self._ended = False
        self._subscriptions: list[_Subscription] = []

    def publish(self, event: Event) -> None:
        """Give `event` to every reader; from any thread. Ignored after `SessionEnded` or close."""
        with self._lock:
            if self._ended:
                return
            self._ended = isinstance(event, SessionEnded)
            self._seq += 1
            now = int(self.clock() * 1000)
            if now != self._now:
                # In a flood most events share their millisecond with the one before.
                self._now, self._ts = now, _rfc3339(now / 1000)
            record = Record(self._seq, self._ts, event)
            for subscription in self._subscriptions:
                subscription.append(record)

    def subscribe(
        self,
        name: str,
        sink: Callable[[Record], None],
        *,
        batch: Callable[[Sequence[Record]], None] | None = None,
        capacity: int = 10_000,
    ) -> None:
        """Call `sink` with every record from now on, in a thread named after `name`.

        At most `capacity` records wait for it. A sink that raises is not called again. With `batch`
        that is called instead, with all that waited (never nothing): a reader that writes can do so
        once, and a flood of log lines does not cost a system call for each."""
        if capacity < 1:
            raise ValueError(f"a queue for {capacity} records")
        with self._lock:
            subscription = _Subscription(
                name=name,
                sink=sink,
                batch=batch,
                capacity=capacity,
                lock=self._lock,
                on_lost=self.on_lost,
                seen=self._seq,
            )
            self._subscriptions.append(subscription)
            if self._ended:
                subscription.finish(self._seq)
            # Started with the lock held: nobody must be able to join a thread not yet started.
            subscription.thread.start()

    def close(self, timeout: float = 1.0) -> tuple[str, ...]:
        """Accept nothing more, deliver what waits, end the threads.

        Returns the names of the readers that were still busy after `timeout` seconds; they get
        nothing more once their present call returns. Safe to call twice and from a sink."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._ended = True
            for subscription in self._subscriptions:
                subscription.finish(self._seq)
        return tuple(s.name for s in self._subscriptions if not s.join(deadline))


@dataclass(kw_only=True, eq=False)
class _Subscription:
    """One reader: its queue, its losses and its thread.

    All fields but the thread's own are guarded by the bus's lock. Log lines and other events wait
    apart, so that the oldest log line is found at once; numbers bring them back in order, and a
    hole in the numbers is what was lost."""

    name: str
    sink: Callable[[Record], None]
    batch: Callable[[Sequence[Record]], None] | None
    capacity: int
    lock: threading.Lock
    on_lost: Callable[[str, Exception], None] | None
    seen: int  # the number of the last record that was handed over or lost
    last: int | None = None  # the bus's number at the end, once that is known
    logs: deque[Record] = field(default_factory=deque)
    others: deque[Record] = field(default_factory=deque)
    text: int = 0
    over: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        self.wake = threading.Condition(self.lock)
        self.thread = supervised(f"bus-{self.name}", self._run)

    # --- with the bus's lock held --------------------------------------------------------------

    def append(self, record: Record) -> None:
        if self.over:
            return
        if isinstance(record.event, LogLine):
            self.logs.append(record)
            self.text += len(record.event.text)
        else:
            self.others.append(record)
            if isinstance(record.event, SessionEnded):
                self.last = record.seq
        while len(self.logs) + len(self.others) > self.capacity or self.text > _TEXT_LIMIT:
            if self.logs:
                self._forget(self.logs.popleft())
            elif len(self.others) > 1:
                self.others.popleft()
            else:
                break
        self.wake.notify()

    def finish(self, seq: int) -> None:
        if self.last is None:
            self.last = seq
        self.wake.notify()

    def _forget(self, record: Record) -> None:
        if isinstance(record.event, LogLine):
            self.text -= len(record.event.text)

    def _take(self) -> list[Record]:
        """The oldest records that wait; blocks for one, empty at the end."""
        self.wake.wait_for(lambda: self.logs or self.others or self.over or self.last is not None)
        batch: list[Record] = []
        while len(batch) < _BATCH and not self.over and (self.logs or self.others):
            if self.others and (not self.logs or self.others[0].seq < self.logs[0].seq):
                batch.append(self.others.popleft())
            else:
                record = self.logs.popleft()
                self._forget(record)
                batch.append(record)
        return batch

    # --- the reader's thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                with self.wake:
                    batch = self._take()
                    end = self.last
                if not batch:
                    break
                self._deliver(batch)
            if end is not None and (gap := self._gap(end + 1, None)):
                self._hand_over([gap])
        except Exception as error:  # noqa: BLE001 - whatever a reader does, the others go on
            with self.wake:
                self._stop()
            if not isinstance(error, OSError):
                _LOG.error("the reader %s failed", self.name, exc_info=error)
            if self.on_lost is not None:
                self.on_lost(self.name, error)

    def _deliver(self, batch: list[Record]) -> None:
        renumbered: list[Record] = []
        for record in batch:
            if gap := self._gap(record.seq, record.ts):
                renumbered.append(gap)
            self.seen = record.seq
            shift = self.shift
            renumbered.append(
                Record(record.seq + shift, record.ts, record.event) if shift else record
            )
        self._hand_over(renumbered)

    def _hand_over(self, records: list[Record]) -> None:
        # When the bus gave up waiting nothing more is shown.
        if self.batch is not None:
            if not self.over:
                self.batch(records)
            return
        for record in records:
            if self.over:
                return
            self.sink(record)

    def _gap(self, seq: int, ts: str | None) -> Record | None:
        """What reports the records that were lost before number `seq`, if there are any."""
        lost = seq - self.seen - 1
        if lost <= 0:
            return None
        self.seen += lost
        self.shift += 1
        return Record(self.seen + self.shift, ts or _rfc3339(time.time()), Dropped(count=lost))

    def _stop(self) -> None:
        self.over = True
        self.logs.clear()
        self.others.clear()
        self.text = 0

    # --- the closing thread --------------------------------------------------------------------

    def join(self, deadline: float) -> bool:
        if self.thread is threading.current_thread():
            return True
        self.thread.join(max(0.0, deadline - time.monotonic()))
        if not self.thread.is_alive():
            return True
        with self.wake:
            self._stop()
            self.wake.notify()
        return False


def _rfc3339(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
