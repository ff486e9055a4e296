"""Which folders are watched, and by what means.

Keeps the set of watched folders equal to the set of folders that matter: nothing that is left out
of every service is ever watched (a node_modules costs thousands of watches and wakes devloop at
each install), nothing that matters is ever unwatched: where the kernel or the file system does not
help, folders are polled and the user is told. Does not look at events.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devloop.errors import Diagnosis
from devloop.watch.globs import existing_folder
from devloop.watch.mounts import SilentMounts
from devloop.watch.native import LimitReachedError, NativeWatch
from devloop.watch.polling import PollWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from devloop.watch.mailbox import Mailbox

__all__ = ["WatchSet", "Watched"]

# A folder may get a folder between the walk and its watch; each round sees one level of that.
_ROUNDS = 5
_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")


class Watched(Protocol):
    """What `ServiceSource` tells a watcher, see there."""

    def concerns(self, path: Path) -> bool: ...

    def reshapes(self, path: Path) -> bool: ...

    def folders(self) -> set[str]: ...

    def roots(self) -> set[str]: ...


class WatchSet:
    """Watches for `sources` and single `files` from the first `renew` until `close`.

    `trees` watches whole trees at once, for systems where that costs nothing; `odd_names` says that
    names that are not UTF-8 were met, which watchfiles cannot bear: their folders are polled.
    `warn` is told what is polled and why, once for each reason."""

    def __init__(
        self,
        sources: Collection[Watched],
        files: Collection[str],
        mailbox: Mailbox,
        warn: Callable[[Diagnosis], None],
        *,
        poll_seconds: float,
        polling: bool = False,
        trees: bool = False,
        odd_names: bool = False,
    ) -> None:
        self.trees = trees
        self._sources = sources
        self._files = files
        self._mailbox = mailbox
        self._warn = warn
        self._poll_seconds = poll_seconds
        self._polling = polling
        self._odd_names = odd_names
        self._watched: set[str] = set()
        self._native: NativeWatch | None = None
        self._poll: PollWatch | None = None

    def holds(self, path: str) -> bool:
        """Whether `path` itself is a watched folder (or was, until it went away)."""
        return path in self._watched

    def roots(self) -> set[str]:
        """The tops of what is watched."""
        found = {existing_folder(os.path.dirname(file)) for file in self._files}  # noqa: PTH120
        return found.union(*(source.roots() for source in self._sources))

    def renew(self, lost: Iterable[str] = ()) -> set[str]:
        """Watch what matters now; the folders that were not watched before.

        `lost` are folders that were replaced: they and all beneath are watched anew. What changed
        in the folders returned, before this returns, may have gone unnoticed. Raises OSError or
        RuntimeError when the watcher fails."""
        for path in lost:
            inside = path + "/"
            self._watched = {w for w in self._watched if w != path and not w.startswith(inside)}
        new: set[str] = set()
        for _ in range(_ROUNDS):
            wanted = self._wanted()
            added = wanted - self._watched
            if not added and not any(os.path.isdir(p) for p in self._watched - wanted):  # noqa: PTH112
                self._watched = wanted
                break
            self._watch(wanted)
            self._watched = wanted
            new |= added
        return new

    def close(self) -> None:
        """Returns when all threads are gone."""
        native, poll, self._native, self._poll = self._native, self._poll, None, None
        for watch in (native, poll):
            if watch is not None:
                watch.close()

    def _wanted(self) -> set[str]:
        if self.trees and not self._polling:
            return self.roots()
        found = {existing_folder(os.path.dirname(file)) for file in self._files}  # noqa: PTH120
        return found.union(*(source.folders() for source in self._sources))

    def _watch(self, wanted: Iterable[str]) -> None:
        mounts = SilentMounts.read()
        native: list[str] = []
        polled: list[str] = []
        # From the top down: should the watches not suffice, the deepest folders are polled.
        for folder in sorted(wanted, key=lambda path: (path.count("/"), path)):
            kind = mounts.kind(folder)
            if kind:
                self._warn(_silent(kind))
            if kind or self._polling or not _is_utf8(folder) or self._has_odd_names(folder):
                polled.append(folder)
            else:
                native.append(folder)
        new_native = self._watch_natively(native, polled)
        new_poll = PollWatch(polled, self._mailbox, seconds=self._poll_seconds) if polled else None
        # Only now, so that there is no moment without a watch.
        self.close()
        self._native, self._poll = new_native, new_poll

    def _watch_natively(self, folders: list[str], polled: list[str]) -> NativeWatch | None:
        """Watch `folders`; those that cannot be are added to `polled`."""
        tries = _ROUNDS
        while folders:
            try:
                return NativeWatch(folders, self._mailbox, trees=self.trees)
            except LimitReachedError as limit:
                if self._native is not None:
                    # The old watches count until they are gone.
                    self.close()
                    continue
                # A dropped watcher gives its watches back a moment later, so not all of them.
                keep = min(limit.watched, len(folders) - 1) * 9 // 10
                polled += folders[keep:]
                folders = folders[:keep]
                self._warn(_limited(len(polled), self._poll_seconds))
            except (FileNotFoundError, PermissionError):
                tries -= 1
                if not tries:
                    raise
                folders = [path for path in folders if os.access(path, os.R_OK)]
        return None

    def _has_odd_names(self, folder: str) -> bool:
        if not self._odd_names:
            return False
        try:
            return not all(map(_is_utf8, os.listdir(folder)))  # noqa: PTH208
        except OSError:
            return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _silent(kind: str) -> Diagnosis:
    return Diagnosis(
        code="env/watch-polling",
        severity="warning",
        message=f"files on {kind} are polled: it does not tell of changes",
        cause="changes made outside of this machine would go unnoticed otherwise",
        suggestions=("keep the project on a local disk (in WSL: not under /mnt)",),
    )


def _limited(polled: int, seconds: float) -> Diagnosis:
    try:
        limit = _LIMIT.read_text().strip()
    except OSError:
        limit = "a number"
    return Diagnosis(
        code="env/inotify-limit",
        severity="warning",
        message=f"the kernel's limit of file watches is used up: {polled} folders are polled",
        cause=f"fs.inotify.max_user_watches is {limit}, for all programs of this user together; "
        f"polling sees a change after {seconds:g} s or more",
        suggestions=(
            "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024",
            "leave big folders out with a line in .dockerignore",
        ),
    )
