"""File events from systems that watch whole trees at no cost (FSEvents), through watchfiles; the
only module that imports it. Linux has inotify.py, though this works there too.

Not for deciding anything: events go to the buffer as they come. What watchfiles 1.x does, and what
that means here: it yields once its set of changes stood still for one step or grew for longer than
the debounce; a timeout or the stop event throws away what was collected, so no timeout is used and
a stop only once nobody cares; an overflow goes unnoticed, which the regular look at everything
makes up for.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from watchfiles import watch

from devloop.base.threads import supervised
from devloop.watch.event_buffer import FileEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.watch.event_buffer import EventBuffer


_STEP_MILLISECONDS = 10
"""How often watchfiles looks at what the kernel told it."""

# It writes a line for each change, which with -v would drown everything else.
logging.getLogger("watchfiles.main").setLevel(logging.WARNING)


class _StopEvent:
    """What watchfiles asks, once a step, whether to stop: being asked proves that it watches."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.stopped = False

    def is_set(self) -> bool:
        self.asked.set()
        return self.stopped


class TreeWatch:
    """Watches the trees at `paths` (absolute, UTF-8) until closed; it does so when the constructor
    returns. An error, also one in the beginning, goes to the buffer."""

    def __init__(self, paths: Sequence[str], buffer: EventBuffer) -> None:
        self._paths = tuple(paths)
        self._buffer = buffer
        self._stop = _StopEvent()
        # FSEvents reports real paths: what lies behind a symlink has to get its own name back.
        real = ((os.path.realpath(p), p) for p in paths)
        self._names = [(r.rstrip("/"), p.rstrip("/")) for r, p in real if r != p]
        self._thread = supervised("watch", self._run, on_bug=self._failed)
        self._thread.start()
        self._stop.asked.wait()

    def close(self) -> None:
        """Returns when the thread is gone, after one step at most."""
        self._stop.stopped = True
        self._thread.join()

    def _failed(self, error: BaseException) -> None:
        self._buffer.fail(error)
        self._stop.asked.set()

    def _run(self) -> None:
        for changes in watch(
            *self._paths,
            watch_filter=None,
            debounce=1,
            step=_STEP_MILLISECONDS,
            stop_event=self._stop,
            rust_timeout=0,
            raise_interrupt=False,
            force_polling=False,
            # A directory that may not be listed need not be watched: the scan says so to the user.
            ignore_permission_denied=True,
        ):
            self._buffer.put([FileEvent(int(kind), self._named(path)) for kind, path in changes])

    def _named(self, path: str) -> str:
        for real, name in self._names:
            if path == real or path.startswith(real + "/"):
                return name + path[len(real) :]
        return path
