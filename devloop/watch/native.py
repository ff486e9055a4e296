"""File events from systems that watch whole trees at no cost (FSEvents), through watchfiles; the
only module that imports it. Linux has inotify.py.

Not for deciding anything: events go to the mailbox as they come. What watchfiles 1.x does, and what
that means here: `watch` returns after its set of changes stood still for one step or grew for
longer than the debounce; a stop event or a timeout throws away what it had collected, so neither is
used while anybody cares.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from watchfiles._rust_notify import RustNotify

from devloop.watch.event_buffer import FileEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.watch.event_buffer import EventBuffer

__all__ = ["TreeWatch"]

_STEP_MILLISECONDS = 10
"""How often watchfiles looks at what the kernel told it."""


class TreeWatch:
    """Watches the trees at `paths` (absolute, UTF-8) until closed.

    Raises FileNotFoundError when one of them is gone, OSError or RuntimeError for anything else."""

    def __init__(self, paths: Sequence[str], mailbox: EventBuffer) -> None:
        # A folder that may not be listed need not be watched: the scan says so to the user.
        self._notify = RustNotify(list(paths), False, False, 0, True, False)
        self._mailbox = mailbox
        self._stop = threading.Event()
        # FSEvents tells real paths: what lies behind a symlink has to get its own name back.
        real = ((os.path.realpath(p), p) for p in paths)
        self._names = [(r.rstrip("/"), p.rstrip("/")) for r, p in real if r != p]
        self._thread = threading.Thread(target=self._run, name="devloop-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when the thread is gone, after one step at most."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                changes = self._notify.watch(1, _STEP_MILLISECONDS, 0, self._stop)
                if not isinstance(changes, str):
                    self._mailbox.put(
                        [FileEvent(kind, self._named(path)) for kind, path in changes]
                    )
        except Exception as error:  # noqa: BLE001 - whatever it was, the watcher is dead
            self._mailbox.fail(error)
        finally:
            self._notify.close()

    def _named(self, path: str) -> str:
        for real, name in self._names:
            if path == real or path.startswith(real + "/"):
                return name + path[len(real) :]
        return path
