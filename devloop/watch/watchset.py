"""Which directories are watched, and by what means.

Keeps the set of watched directories equal to the set of directories that matter: nothing that is
left out of every service is ever watched (a node_modules costs thousands of watches and wakes
devloop at each install), nothing that matters is ever unwatched: where the kernel or the file
system does not help, directories are polled and the user is warned. Does not look at events.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from dataclasses import KW_ONLY, field
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import existing_directory
from devloop.base.threads import supervised
from devloop.errors import Code, Diagnosis
from devloop.watch.event_buffer import ADDED, DELETED, MODIFIED, FileEvent
from devloop.watch.inotify import InotifyWatch, LimitReachedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from devloop.watch.event_buffer import EventBuffer
    from devloop.watch.native import TreeWatch
    from devloop.watch.source import ServiceSource


# A directory may get a directory between the walk and its watch; each round sees one level of that.
_ROUNDS = 5
_SHARE = 10
_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")

# File systems that keep quiet about changes that are made on the other side.
_SILENT = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "drvfs", "fuse", "gfs2", "glusterfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs"}
    | {"vmhgfs"}
)
# FUSE, but with the files on this machine.
_LOCAL_FUSE = frozenset(
    {"bindfs", "cryfs", "encfs", "fuse-overlayfs", "gocryptfs", "mergerfs", "ntfs-3g", "overlayfs"}
)
_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(slots=True, eq=False)
class WatchSet:
    """Watches for `sources` and single `files` from the first `renew` until `close`.

    `trees` watches whole trees at once, for systems where that costs nothing; `polling` never asks
    the system. `warn` gets what is polled and why."""

    sources: Collection[ServiceSource]
    files: Collection[str]
    buffer: EventBuffer
    warn: Callable[[Diagnosis], None]
    _: KW_ONLY
    poll_seconds: float
    polling: bool
    trees: bool
    _watched: frozenset[str] = field(default=frozenset(), init=False)
    _polled: frozenset[str] = field(default=frozenset(), init=False)
    _inotify: InotifyWatch | None = field(default=None, init=False)
    _tree: TreeWatch | None = field(default=None, init=False)
    _poll: PollWatch | None = field(default=None, init=False)

    def holds(self, path: str) -> bool:
        """Whether `path` itself is a watched directory (or was, until it went away)."""
        return path in self._watched

    def roots(self) -> set[str]:
        """The tops of what is watched."""
        return self._around.union(*(source.roots() for source in self.sources))

    def renew(self, lost: Iterable[str] | None = None) -> set[str]:
        """Watch what matters now; the directories that were not watched before.

        `lost` are directories that were replaced: they and all beneath are watched anew; None: any
        may have been. What changed in the directories returned, before this returns, may have gone
        unnoticed. Raises OSError or RuntimeError when the watcher fails."""
        if self.trees:
            return self._renew_trees(lost)
        inside = None if lost is None else tuple(path + "/" for path in lost)
        new: set[str] = set()
        fresh: set[str] = set()
        for _ in range(_ROUNDS):
            wanted = self._around.union(*(source.directories() for source in self.sources))
            fresh = self._watch(wanted, inside)
            self._watched = frozenset(wanted)
            new |= fresh
            inside = ()
            if not fresh:
                return new
        # They may have got directories still; whoever waits for events looks again.
        self.buffer.put(FileEvent(ADDED, path, None) for path in fresh)
        return new

    def close(self) -> None:
        """Returns when all threads are gone."""
        watches = (self._inotify, self._tree, self._poll)
        self._inotify = self._tree = self._poll = None
        for watch in watches:
            if watch is not None:
                watch.close()

    @property
    def _around(self) -> set[str]:
        """Where the single files are, or will be."""
        return {existing_directory(os.path.dirname(file)) for file in self.files}  # noqa: PTH120

    def _renew_trees(self, lost: Iterable[str] | None) -> set[str]:
        # Imported late: it takes longer than all the rest of devloop's start.
        from devloop.watch.native import TreeWatch  # noqa: PLC0415

        wanted = frozenset(self.roots())
        new = set(wanted.difference(self._watched.difference(lost or ())))
        if new or wanted != self._watched:
            old, self._tree = self._tree, TreeWatch(sorted(wanted), self.buffer)
            # Only now, so that there is no moment without a watch.
            if old is not None:
                old.close()
        self._watched = wanted
        return new

    def _watch(self, wanted: Iterable[str], inside: tuple[str, ...] | None) -> set[str]:
        """Watch `wanted` and nothing else; those that were not before. What lies `inside` may have
        been replaced, with None anything may."""
        mounts = SilentMounts.read()
        native: list[str] = []
        polled: set[str] = set()
        # From the top down: should the watches not suffice, the deepest directories are polled.
        for directory in sorted(wanted, key=lambda path: (path.count("/"), path)):
            kind = mounts.kind(directory)
            if kind:
                self.warn(_silent(kind))
            if kind or self.polling:
                polled.add(directory)
            else:
                native.append(directory)
        new = self._watch_natively(native, inside, polled)
        if polled != self._polled:
            new |= polled - self._polled
            old, self._poll = self._poll, None
            if polled:
                self._poll = PollWatch(sorted(polled), self.buffer, seconds=self.poll_seconds)
            # Only now, so that there is no moment without a watch.
            if old is not None:
                old.close()
            self._polled = frozenset(polled)
        return new

    def _watch_natively(
        self, directories: list[str], inside: tuple[str, ...] | None, polled: set[str]
    ) -> set[str]:
        """`_watch` by inotify alone; directories that it has no watches for are added to
        `polled`."""
        if not directories and self._inotify is None:
            return set()
        new: set[str] = set()
        index = 0
        try:
            watch = self._inotify = self._inotify or InotifyWatch(self.buffer)
            known = watch.directories
            for path in known.difference(directories):
                watch.remove(path)
            for index, path in enumerate(directories):  # noqa: B007 - the handler wants it
                seen = path in known and inside is not None
                if seen and not f"{path}/".startswith(inside or ()):
                    continue
                if watch.add(path):
                    new.add(path)
        except LimitReachedError:
            held = self._inotify.directories if self._inotify else frozenset()
            polled.update(path for path in directories[index:] if path not in held)
            self.warn(_limited(len(polled), self.poll_seconds))
        return new


def _silent(kind: str) -> Diagnosis:
    return Diagnosis(
        code=Code.ENV_WATCH_POLLING,
        severity="warning",
        message=f"files on {kind} are polled: it does not report changes",
        cause="changes made outside of this machine would go unnoticed otherwise",
        suggestions=("keep the project on a local disk (in WSL: not under /mnt)",),
    )


def _limited(polled: int, seconds: float) -> Diagnosis:
    try:
        limit = _LIMIT.read_text().strip()
    except OSError:
        limit = "a number"
    return Diagnosis(
        code=Code.ENV_INOTIFY_LIMIT,
        severity="warning",
        message=f"the kernel's limit of file watches is used up: {polled} directories are polled",
        cause=f"fs.inotify.max_user_watches is {limit}, for all programs of this user together; "
        f"polling sees a change after {seconds:g} s or more",
        suggestions=(
            "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024",
            "leave big directories out with a line in .dockerignore",
        ),
    )


class SilentMounts:
    """The mount table as it was when this was made; without one (macOS) nothing is silent.

    inotify sees what this kernel does. A share that Windows, the host of a virtual machine or
    another computer writes to changes without a word."""

    def __init__(self, mountinfo: str) -> None:
        # A later mount at the same place hides the earlier.
        self._types = dict(_parse(line) for line in mountinfo.splitlines() if " - " in line)
        self._any = any(_is_silent(kind) for kind in self._types.values())

    @classmethod
    def read(cls) -> SilentMounts:
        try:
            return cls(_MOUNTINFO.read_text(errors="surrogateescape"))
        except OSError:
            return cls("")

    def kind(self, path: str) -> str | None:
        """The type of file system that keeps changes of the absolute `path` to itself, if so."""
        if not self._any:
            return None
        while path not in self._types and path != "/":
            path = path.rpartition("/")[0] or "/"
        kind = self._types.get(path)
        return kind if kind and _is_silent(kind) else None


def _is_silent(kind: str) -> bool:
    family, _, name = kind.partition(".")
    return family in _SILENT and name not in _LOCAL_FUSE


def _parse(line: str) -> tuple[str, str]:
    """Mount point and type from one line of proc(5)'s mountinfo."""
    left, _, right = line.partition(" - ")
    point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split(" ")[4])
    return point, right.split(" ")[0]


_State = dict[str, tuple[int, ...]]


class PollWatch:
    """Polls `directories` (not what is beneath them) at most every `seconds` until closed.

    Compares what `lstat` says of each entry, directory by directory, at a pace that never takes
    more than a tenth of a core. watchfiles can poll too, but it follows symlinks and compares
    modification times alone."""

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
            kinds = dict.fromkeys(now.keys() - before.keys(), ADDED)
            kinds |= dict.fromkeys(before.keys() - now.keys(), DELETED)
            both = now.keys() & before.keys()
            kinds |= {path: MODIFIED for path in both if now[path] != before[path]}
            self._buffer.put(FileEvent(kind, path) for path, kind in kinds.items())


def _state(directory: str) -> _State:
    """What a change of anything directly in `directory`, or of `directory` itself, would change."""
    found: _State = {}
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
