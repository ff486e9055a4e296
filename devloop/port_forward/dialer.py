"""A few threads that open streams, so that the port forward's loop never waits for a network.

Bounded, made when needed, gone when idle. Knows no deadlines: whoever asked sets the `Cancel`.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import supervised
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.model import PodView
    from devloop.port_forward.ports import Dial, Duplex
    from devloop.port_forward.settings import ForwardSettings


_LOG = logging.getLogger(__name__)


class Dialer:
    """At most `dial_threads` dials at a time, the others in line."""

    def __init__(self, dial: Dial, settings: ForwardSettings) -> None:
        self._dial = dial
        self._most = settings.dial_threads
        self._idle_timeout = settings.dial_thread_idle
        self._changed = threading.Condition()
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._made = 0
        self._cancels: set[Cancel] = set()
        self._closed = False

    def start(self, pod: PodView, port: int, done: Callable[[Duplex | str], None]) -> Cancel:
        """Dial in some thread and hand the stream, or why there is none, to `done`,
        which is called in that thread. The returned `Cancel` ends the dial early."""
        cancel = Cancel()
        with self._changed:
            if self._closed:
                cancel.set()
            self._cancels.add(cancel)
            self._jobs.append(lambda: self._one(pod, port, cancel, done))
            if len(self._jobs) > self._idle and len(self._threads) < self._most:
                self._made += 1
                thread = supervised(f"dial-{self._made}", self._work)
                self._threads.add(thread)
                thread.start()
            self._changed.notify()
        return cancel

    def close(self, seconds: float) -> None:
        """End every dial and thread; waits at most `seconds`. `done` is called for all."""
        with self._changed:
            self._closed = True
            cancels = tuple(self._cancels)
            threads = tuple(self._threads)
            self._changed.notify_all()
        for cancel in cancels:
            cancel.set()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs or self._closed, self._idle_timeout)
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads.discard(threading.current_thread())
            return None

    def _one(
        self, pod: PodView, port: int, cancel: Cancel, done: Callable[[Duplex | str], None]
    ) -> None:
        result: Duplex | str = "cancelled"
        try:
            if not cancel.is_set():
                result = self._dial(pod, port, cancel)
        except Cancelled:
            result = "no answer in time"
        except DevloopError as error:
            result = error.diagnosis.message
        except OSError as error:
            result = str(error)
        except Exception as error:  # noqa: BLE001 - somebody waits for an answer
            _LOG.exception("a bug in devloop: no stream to %s", pod.name)
            result = f"a bug in devloop: {error!r}"
        finally:
            with self._changed:
                self._cancels.discard(cancel)
        done(result)
