"""File events as hints for the engine: where to look, soon after a save and only then.

The hints may be too many and must not be too few: where an event may be missing (a new directory,
too many changes at once, a restart of the watcher, sleep) the hint is None, look everywhere, and it
is None once in a while anyway. Nothing here decides whether anything changed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import KW_ONLY, field
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import is_directory
from devloop.errors import Code, Diagnosis
from devloop.watch.event_buffer import MODIFIED, EventBuffer
from devloop.watch.pauses import GitOperations, Pace, SleepDetector
from devloop.watch.watchset import WatchSet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.watch.event_buffer import BufferedEvents
    from devloop.watch.source import ServiceSource


_CAP_SECONDS = 0.3
_GIT_SECONDS = 5.0
_MOMENT_SECONDS = 0.02
_WAKE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
_FAILURES = 3


@dataclass(slots=True)
class _Found:
    """What the events since the last hint come down to. `lost` are directories whose watch is dead,
    `unfinished` and `new` files that may not be as they will be left; `last` is when it came."""

    paths: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
    new: bool = False
    everything: bool = False
    last: float = field(default_factory=time.monotonic)

    def __bool__(self) -> bool:
        return bool(self.paths) or self.everything

    def add(self, other: _Found) -> None:
        # In this order: the later event of a path counts.
        self.unfinished = (self.unfinished - other.paths) | other.unfinished
        self.paths |= other.paths
        self.lost |= other.lost
        self.new |= other.new
        self.everything |= other.everything
        self.last = other.last


@dataclass(slots=True, eq=False)
class WatchHints:
    """The engine's `Hints` for several sources and single `files` (the config file).

    The first hint is always None: from now on nothing is missed. `warn` gets, in the thread that
    iterates, what is polled and why, and when the watcher had to be restarted; `woke` is called
    there after the machine has slept. `audit_seconds` is how often a None comes without a reason.
    `trees` watches trees instead of directories (the default on macOS); `polling` never asks the
    system."""

    sources: Collection[ServiceSource]
    _: KW_ONLY
    files: Iterable[Path] = ()
    warn: Callable[[Diagnosis], None] = lambda _: None
    woke: Callable[[], None] = lambda: None
    audit_seconds: float = 60.0
    poll_seconds: float = 0.3
    polling: bool = False
    trees: bool = sys.platform == "darwin"
    _files: frozenset[str] = field(init=False)
    _renew: bool = field(default=False, init=False)
    _reported: set[tuple[str, str]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._files = frozenset(os.fspath(file) for file in self.files)

    def renew(self, files: Iterable[Path]) -> None:
        """The sources are others, and these are the single files, from the next hint on; in the
        thread that iterates."""
        self._files = frozenset(os.fspath(file) for file in files)
        self._renew = True

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        """See engine.ports.Hints."""
        failures = 0
        while not cancel.is_set():
            began = time.monotonic()
            buffer = EventBuffer()
            watches = WatchSet(
                self.sources,
                self._files,
                buffer,
                self._warn_once,
                poll_seconds=self.poll_seconds,
                polling=self.polling,
                trees=self.trees and not self.polling,
            )
            try:
                with contextlib.closing(watches), cancel.closing(buffer.wake):
                    yield from self._watch(watches, buffer, cancel)
            except (OSError, RuntimeError) as fault:
                if time.monotonic() - began > _HEALTHY_SECONDS:
                    failures = 0
                failures += 1
                message = "the file watcher failed and is started again"
                self._warn_once(_failed(fault, Code.ENV_WATCH_RESTARTED, message))
                if failures >= _FAILURES and not self.polling:
                    # It fails as soon as it is started: better slow than blind.
                    self.polling = True
                    message = "the file watcher keeps failing: files are polled instead"
                    self._warn_once(_failed(fault, Code.ENV_WATCH_POLLING, message))
                    continue
                pause = _FIRST_PAUSE_SECONDS * 2 ** (failures - 1)
                cancel.wait(min(pause, _LONGEST_PAUSE_SECONDS))

    def _watch(
        self, watches: WatchSet, buffer: EventBuffer, cancel: Cancel
    ) -> Iterator[frozenset[Path] | None]:
        """Hints until cancelled; raises what the watcher died of."""
        watches.renew()
        git = GitOperations(watches.roots())
        sleep = SleepDetector()
        pace = Pace()
        audit = time.monotonic() + self.audit_seconds
        if not cancel.is_set():
            yield None
        while not cancel.is_set():
            wait = min(_WAKE_SECONDS, max(0.0, audit - time.monotonic()))
            found = self._sift(buffer.take(0 if self._renew else wait), watches)
            others, self._renew = self._renew, False
            found.everything |= time.monotonic() >= audit or others
            watches.files = self._files
            # Asked each time, so that it notices the sleep and not the hours since the last call.
            if sleep.woke():
                found.everything = True
                self.woke()
            if not found:
                continue
            pace.came(found.last)
            self._settle(found, watches, buffer, pace, cancel)
            if git.busy():
                self._wait_for_git(git, cancel)
                found.everything = True
                found.add(self._sift(buffer.take(0), watches))
                self._settle(found, watches, buffer, pace, cancel)
            if cancel.is_set():
                return
            pace.hinted(found.last)
            if found.everything or found.lost:
                # Before the hint: the look that follows must come after the watch.
                found.paths |= watches.renew(None if found.everything else found.lost)
            if others:
                git = GitOperations(watches.roots())
            if found.everything:
                audit = time.monotonic() + self.audit_seconds
                yield None
            else:
                yield frozenset(map(Path, found.paths))

    def _settle(
        self, found: _Found, watches: WatchSet, buffer: EventBuffer, pace: Pace, cancel: Cancel
    ) -> None:
        """Wait for the end of a save: until nothing that matters came for a moment, but not
        long. What does not matter does not delay."""
        cap = time.monotonic() + _CAP_SECONDS
        while not cancel.is_set():
            window = pace.window(unfinished=bool(found.unfinished), new=found.new)
            left = min(found.last + window, cap) - time.monotonic()
            if left <= 0:
                return
            if more := self._sift(buffer.take(left), watches):
                found.add(more)

    def _wait_for_git(self, git: GitOperations, cancel: Cancel) -> None:
        deadline = time.monotonic() + _GIT_SECONDS
        while git.busy() and not cancel.wait(_MOMENT_SECONDS):
            if time.monotonic() > deadline:
                git.tolerate()

    def _sift(self, events: BufferedEvents, watches: WatchSet) -> _Found:
        """Keep what some source is concerned with. Raises the fault among them, if any."""
        if events.fault is not None:
            raise events.fault
        found = _Found(everything=events.many)
        for kind, name in events.changes:
            path = Path(name)
            if not self._concerns(path, name):
                continue
            found.paths.add(name)
            if any(source.reshapes(path) for source in self.sources):
                # Other rules: other directories to watch, and other files in those that are.
                found.everything = True
            # By the kind of event and not by inode: numbers are given again at once.
            if kind != MODIFIED and (
                watches.holds(name) or (not watches.trees and is_directory(name))
            ):
                found.lost.add(name)
            found.new |= name in events.begun
        found.unfinished = {
            name
            for name in found.paths
            if name in events.unfinished or (name in events.whole and _is_empty(name))
        }
        return found

    def _concerns(self, path: Path, name: str) -> bool:
        if name in self._files or any(file.startswith(name + "/") for file in self._files):
            return True
        return any(source.concerns(path) for source in self.sources)

    def _warn_once(self, diagnosis: Diagnosis) -> None:
        """Report it unless it was reported: renewing the watches finds the same again."""
        # The limit's message says how many directories, which is nothing new.
        limit = diagnosis.code == Code.ENV_INOTIFY_LIMIT
        key = (diagnosis.code, "" if limit else diagnosis.message)
        if key not in self._reported:
            self._reported.add(key)
            self.warn(diagnosis)


def _is_empty(path: str) -> bool:
    """Whether a file has nothing in it (yet): some programs empty it, close it and write then."""
    try:
        return os.lstat(path).st_size == 0
    except OSError:
        return False


def _failed(fault: Exception, code: Code, message: str) -> Diagnosis:
    cause = str(fault) or type(fault).__name__
    return Diagnosis(code=code, severity="warning", message=message, cause=cause)
