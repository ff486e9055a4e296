"""Watching by looking: for directories whose file system or kernel does not report changes.

Compares what `lstat` says of each entry, directory by directory, at a pace that never takes more
than a tenth of a core. watchfiles can poll too, but it follows symlinks and compares modification
times alone.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import TYPE_CHECKING

from devloop.base.threads import supervised
from devloop.watch.event_buffer import ADDED, DELETED, MODIFIED, FileEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.watch.event_buffer import EventBuffer


_SHARE = 10

State = dict[str, tuple[int, ...]]


class PollWatch:
    """Polls `directories` (not what is beneath them) at most every `seconds` until closed."""

    def __init__(self, directories: Iterable[str], buffer: EventBuffer, *, seconds: float) -> None:
        self._directories = tuple(directories)
        self._buffer = buffer
        self._seconds = seconds
        self._stop = threading.Event()
        # Before the constructor returns: what changes from now on is a change.
        self._known = [_state(directory) for directory in self._directories]
        self._thread = supervised("poll", self._run, on_bug=buffer.fail)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._seconds
        while not self._stop.wait(pause):
            began = time.monotonic()
            self._look()
            pause = max(self._seconds, _SHARE * (time.monotonic() - began))

    def _look(self) -> None:
        for index, directory in enumerate(self._directories):
            if self._stop.is_set():
                return
            before, now = self._known[index], _state(directory)
            if before == now:
                continue
            self._known[index] = now
            self._buffer.put(
                [
                    FileEvent(
                        ADDED if path not in before else DELETED if path not in now else MODIFIED,
                        path,
                    )
                    for path in before.keys() | now.keys()
                    if before.get(path) != now.get(path)
                ]
            )


def _state(directory: str) -> State:
    """What a change of anything directly in `directory`, or of `directory` itself, would change."""
    found: State = {}
    try:
        status = os.stat(directory)  # noqa: PTH116 - names in any bytes
        found[directory] = (status.st_dev, status.st_ino)
        with os.scandir(directory) as listing:
            for entry in listing:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                key: tuple[int, ...] = (status.st_dev, status.st_ino, status.st_mode)
                if not stat.S_ISDIR(status.st_mode):
                    key += (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                found[f"{directory}/{entry.name}"] = key
    except OSError:
        pass
    return found
