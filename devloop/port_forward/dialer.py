"""A few threads that open streams, so that the port forward's loop never waits for a network.

Bounded, made when needed, gone when there is no more to dial. Knows no deadlines: whoever asked
sets the `Cancel`.
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
        self._lock = threading.Lock()
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._threads: set[threading.Thread] = set()
        self._cancels: set[Cancel] = set()
        self._closed = False

    def start(self, pod: PodView, port: int | str, done: Callable[[Duplex | str], None]) -> Cancel:
        """Dial in some thread and hand the stream, or why there is none, to `done`,
        which is called in that thread. The returned `Cancel` ends the dial early."""
        cancel = Cancel()
        with self._lock:
            if self._closed:
                cancel.set()
            self._cancels.add(cancel)
            self._jobs.append(lambda: self._one(pod, port, cancel, done))
            if len(self._threads) < self._most:
                thread = supervised("dial", self._work)
                self._threads.add(thread)
                thread.start()
        return cancel

    def close(self, seconds: float) -> None:
        """End every dial and thread; waits at most `seconds`. `done` is called for all."""
        with self._lock:
            self._closed = True
            cancels = tuple(self._cancels)
            threads = tuple(self._threads)
        for cancel in cancels:
            cancel.set()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._threads.discard(threading.current_thread())
                    return
                job = self._jobs.popleft()
            job()

    def _one(
        self, pod: PodView, port: int | str, cancel: Cancel, done: Callable[[Duplex | str], None]
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
            with self._lock:
                self._cancels.discard(cancel)
        done(result)
