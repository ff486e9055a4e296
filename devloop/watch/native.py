"""The operating system's file events, through watchfiles; the only module that imports it.

Folders are watched one by one on Linux. watchfiles' recursive mode would be shorter, but there it
follows symlinks (a link to / watches the machine) and cannot leave node_modules out. FSEvents
watches trees at no cost, so there it is trees. Not for deciding anything: events go to the mailbox
as they come.

What watchfiles 1.x does, and what that means here: `watch` returns after its set of changes stood
still for one step or grew for longer than the debounce; a stop event or a timeout throws away what
it had collected, so neither is used while anybody cares; a name that is not UTF-8 makes every later
call fail.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from watchfiles._rust_notify import RustNotify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.watch.mailbox import Mailbox

__all__ = ["STEP_SECONDS", "LimitReachedError", "NativeWatch", "is_undecodable"]

STEP_SECONDS = 0.010
"""How often watchfiles looks at what the kernel told it."""


class LimitReachedError(Exception):
    """The kernel allows no more watches. `watched` is how many of the folders it allowed."""

    def __init__(self, watched: int) -> None:
        super().__init__(f"only {watched} watches")
        self.watched = watched


def is_undecodable(fault: Exception) -> bool:
    """Whether a watcher died of a file name that is not UTF-8."""
    return "Unable to decode path" in str(fault)


class NativeWatch:
    """Watches `paths` (absolute, UTF-8) until closed: folders without what is beneath them, or
    with `trees` whole trees.

    Raises `LimitReachedError`, FileNotFoundError when one of them is gone, OSError or RuntimeError
    for anything else."""

    def __init__(self, paths: Sequence[str], mailbox: Mailbox, *, trees: bool = False) -> None:
        try:
            # A folder that may not be listed need not be watched: the scan says so to the user.
            self._notify = RustNotify(list(paths), False, False, 0, trees, False)
        except (OSError, RuntimeError) as error:
            allowed = _allowed(str(error), paths)
            if allowed is None:
                raise
            raise LimitReachedError(allowed) from error
        self._mailbox = mailbox
        self._stop = threading.Event()
        # FSEvents tells real paths: what lies behind a symlink has to get its own name back.
        real = ((os.path.realpath(p), p) for p in paths) if trees else ()
        self._names = [(r.rstrip("/"), p.rstrip("/")) for r, p in real if r != p]
        self._thread = threading.Thread(target=self._run, name="devloop-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when the thread is gone, after one step at most."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        step = round(STEP_SECONDS * 1000)
        try:
            while not self._stop.is_set():
                changes = self._notify.watch(1, step, 0, self._stop)
                if not isinstance(changes, str):
                    self._mailbox.put([(kind, self._named(path)) for kind, path in changes])
        except Exception as error:  # noqa: BLE001 - whatever it was, the watcher is dead
            self._mailbox.fail(error)
        finally:
            self._notify.close()

    def _named(self, path: str) -> str:
        for real, name in self._names:
            if path == real or path.startswith(real + "/"):
                return name + path[len(real) :]
        return path


def _allowed(error: str, paths: Sequence[str]) -> int | None:
    """How many of `paths` could be watched, from a limit's message; None for another error."""
    if "Too many open files" in error:
        return 0
    if "watch limit" not in error and "No space left" not in error:
        return None
    # They are watched in order, and the message names the first that was too many.
    for index, path in enumerate(paths):
        if f'"{path}"' in error:
            return index
    return len(paths) // 2
