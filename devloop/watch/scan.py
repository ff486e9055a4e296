"""The truth about a build context: which files are there, with what content, right now.

Everything else in devloop that speaks of change compares two results of this scan; file events only
say when to look. So it must be exact (a lost change is a stale image), must not follow symlinks out
of the tree, and must be cheap enough to run at every save: what was read stays known by inode, size
and timestamps, and digests are kept by directory, so that one changed file costs one directory.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import os
import stat
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from devloop.base.editor_files import has_mark
from devloop.base.file_content import RACY_NS, hash_file, key_of, read_small, read_whole
from devloop.errors import unreadable
from devloop.model import ContextEntry, Snapshot
from devloop.watch.scan_progress import ScanProgress
from devloop.watch.tree import Directory, Leaf, all_directories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.watch.rules import ContextRules


_DIRECTORY = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
# An editor's temporary file is gone by then, or the editor is at it still and its content is old.
_PASSING_NS = 60 * 10**9
# What is kept of files that keep changing, in bytes: one that is bigger is read again by builders.
_MOST_KEPT = 64 << 20
_SWAPPED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class _Look(NamedTuple):
    """One look into the directory open as `fd`; what changed since `trusted_before` (wall clock,
    ns) is too young to be known by its timestamps."""

    fd: int
    trusted_before: int
    work: ScanProgress


class TreeScanner:
    """Scans one context directory. For one thread at a time.

    After a scan, `changes` are the paths that differ from the scan before, sorted, `files` the
    number of files in the snapshot, `read` the number whose content was read; `looks` counts all
    scans so far. `kept` is the content of those that it was to keep."""

    def __init__(
        self,
        root: Path,
        rules: ContextRules,
        *,
        clock: Callable[[], int] = time.time_ns,
        needed: Callable[[str], bool] = lambda _: True,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`needed` is asked of paths in the context that may not be read: one that no build reads
        does no harm. `progress` gets what a scan that lasts is at."""
        self.root = root
        self.changes: tuple[str, ...] = ()
        self.files = 0
        self.read = 0
        self.looks = 0
        self.kept: dict[str, tuple[int, list[bytes]]] = {}
        self._keeps: frozenset[str] = frozenset()
        self._rules = rules
        self._clock = clock
        self._needed = needed
        self._progress = progress
        self._prefix = os.fspath(root).rstrip("/") + "/"
        self._top = Directory(None, "")
        self._order: list[Directory] | None = None
        # What the nodes say and the published entries do not yet; it outlives a failed scan.
        self._dirty = {self._top}
        self._pending: dict[str, ContextEntry | None] = {}
        self._entries: dict[str, ContextEntry] = {}
        self._complete = False
        # Files with names of editors' temporary ones that have stayed: see `_stays`.
        self._staying: set[str] = set()
        # Which look found a path with other timestamps than the one before.
        self._rewritten: dict[str, int] = {}

    def use(self, rules: ContextRules) -> None:
        """Take other rules from the next scan on, which looks at everything."""
        self._rules = rules
        self._complete = False

    def scan(
        self, hints: Iterable[Path] | None, cancel: Cancel, keep: frozenset[str] = frozenset()
    ) -> Snapshot:
        """Look at `hints` (absolute paths; a directory stands for all in it), or at everything;
        `keep` are paths in the context to read in any case, whose content is wanted.

        The first scan and the one after a failed scan look at everything anyway. Raises
        FileNotFoundError or NotADirectoryError when the root is no directory, `env/file-unreadable`
        and `Cancelled`."""
        self.read = 0
        self.looks += 1
        self.kept, self._keeps = {}, keep
        work = ScanProgress(cancel, self._progress)
        narrow = None if hints is None or not self._complete else self._relative(hints)
        self._complete = False
        try:
            fd = os.open(self.root, _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            self._clear(self._top)
            raise
        except OSError as error:
            raise unreadable(self.root, error) from error
        try:
            status = os.fstat(fd)
            if narrow is None or "" in narrow or self._top.identity != _identity(status):
                self._top.identity = _identity(status)
                with _uncollected():
                    self._walk(self._top, fd, work)
            else:
                # Nobody reports what becomes of those that stay.
                for path in sorted(narrow | self._staying | keep):
                    self._look(path, fd, work)
        finally:
            os.close(fd)
        snapshot = self._publish()
        self._complete = True
        return snapshot

    def rewritten_since(self, look: int) -> set[str]:
        """The paths that were written to after so many `looks`, be it with the same bytes, and that
        were there before and after."""
        return {path for path, found in self._rewritten.items() if found > look}

    def _relative(self, hints: Iterable[Path]) -> set[str]:
        """The hints inside the root; "" for the root itself or a directory above it."""
        found = set()
        for hint in hints:
            path = os.fspath(hint)
            if path.startswith(self._prefix):
                found.add(path[len(self._prefix) :])
            elif self._prefix.startswith(path.rstrip("/") + "/"):
                found.add("")
        return found

    def _walk(self, top: Directory, fd: int, work: ScanProgress) -> None:
        """Bring `top`, open as `fd`, and all beneath it in line with the disk."""
        opened = [fd]  # the first is the caller's
        try:
            todo = [iter(self._list(top, fd, work))]
            while todo:
                directory = next(todo[-1], None)
                if directory is None:
                    todo.pop()
                    if todo:
                        os.close(opened.pop())
                elif (inner := self._enter(directory, opened[-1])) is not None:
                    opened.append(inner)
                    todo.append(iter(self._list(directory, inner, work)))
        finally:
            for inner in opened[1:]:
                os.close(inner)

    def _enter(self, directory: Directory, parent_fd: int) -> int | None:
        """Open `directory`; None when it is not (or no longer) one to look into."""
        try:
            fd = os.open(directory.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        except OSError as error:
            if error.errno in _SWAPPED:
                self._drop(directory)
                return None
            if error.errno == errno.EACCES and not (
                directory.included and self._needed(directory.path)
            ):
                # BuildKit passes over what it may not read when it would not send it anyway.
                self._clear(directory)
                self._closed(directory, parent_fd)
                return None
            raise unreadable(self._prefix + directory.path, error) from error
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode)
        if directory.mode != mode:
            directory.mode = mode
            self._dirty.add(directory)
        directory.identity = _identity(status)
        return fd

    def _closed(self, directory: Directory, parent_fd: int) -> None:
        """Know a directory by what can be seen from outside."""
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(os.lstat(directory.name, dir_fd=parent_fd).st_mode)
            if directory.mode != mode:
                directory.mode = mode
                self._dirty.add(directory)

    def _list(self, directory: Directory, fd: int, work: ScanProgress) -> list[Directory]:
        """Bring what is directly in `directory` in line with the disk; the directories to enter
        next."""
        work.at = directory.path
        work.check()
        leaves: dict[str, Leaf] = {}
        directories: dict[str, Directory] = {}
        look = _Look(fd, self._clock() - RACY_NS, work)
        prefix = directory.below("")
        in_context = self._rules.files_in(directory.inherited)
        known, keeps = directory.leaves.get, self._keeps
        first = not directory.listed
        try:
            with os.scandir(fd) as listing:
                for found in listing:
                    name = found.name
                    if found.is_dir(follow_symlinks=False):
                        child = self._child(directory, name)
                        if child is not None:
                            directories[name] = child
                    elif in_context(prefix + name, name) or (
                        has_mark(name) and self._stays(directory, found, first=first)
                    ):
                        leaf = known(name)
                        stays = leaf is not None and leaf.trusted and _same(found, leaf)
                        if not stays or (keeps and prefix + name in keeps):
                            leaf = self._leaf(found, look, prefix)
                        if leaf is not None:
                            leaves[name] = leaf
        except OSError as error:
            raise unreadable(self._prefix + directory.path, error) from error
        # Dropped first: what was a directory may be a file by now, and the last word on a path
        # counts.
        for name, child in list(directory.directories.items()):
            if name not in directories:
                self._drop(child)
        self._replace(directory, leaves)
        directory.listed = True
        if directories.keys() != directory.directories.keys():
            self._order = None
        directory.directories = directories
        return list(directories.values())

    def _stays(self, directory: Directory, found: os.DirEntry[str], *, first: bool) -> bool:
        """Whether a file that is named like an editor's temporary one is in the context, as it is
        with Docker: it was there before anybody looked (`first`), or for a good while."""
        path = directory.below(found.name)
        if not self._rules.temporary_file(directory.inherited, path, found.name):
            return False
        if not first and path not in self._staying:
            try:
                changed = found.stat(follow_symlinks=False).st_ctime_ns
            except FileNotFoundError:
                return False
            if changed > self._clock() - _PASSING_NS:
                return False
        self._staying.add(path)
        return True

    def _leaf(self, found: os.DirEntry[str], look: _Look, prefix: str) -> Leaf | None:
        if found.is_file(follow_symlinks=False):
            return self._file(found.name, look, prefix)
        return _link(found.name, look.fd) if found.is_symlink() else None

    def _child(self, directory: Directory, name: str) -> Directory | None:
        """The directory `name` in `directory`, known or new; None when the rules leave all of it
        out."""
        included, look_inside, inherited = self._rules.directory(
            directory.inherited, directory.below(name), name
        )
        if not look_inside:
            return None
        child = directory.directories.get(name)
        if child is None:
            # Not dirty before it was entered: a scan that fails here must leave no trace of it.
            child = Directory(directory, name)
        elif child.included != included:
            self._dirty.add(child)
        child.included = included
        child.inherited = inherited
        return child

    def _file(self, name: str, look: _Look, prefix: str) -> Leaf | None:
        work = look.work
        work.check()
        whole = None
        content = None
        try:
            if self._keeps and prefix + name in self._keeps:
                left = _MOST_KEPT - sum(len(data[0]) for _, data in self.kept.values())
                whole = read_whole(name, left, dir_fd=look.fd)
                content = whole[0] if whole else None
            if content is None:
                content = read_small(name, look.fd, look.trusted_before)
            if content is None:
                work.at = prefix + name
                content = hash_file(name, work, dir_fd=look.fd)
        except OSError as error:
            if error.errno == errno.EACCES and not self._needed(prefix + name):
                return None
            raise unreadable(self._prefix + prefix + name, error) from error
        if content is None:
            return None
        self.read += 1
        work.files += 1
        digest, key, settled = content
        # ctime, because mtime can be set to anything and ctime cannot.
        trusted = settled and key[3] < look.trusted_before
        size = key[1]
        if whole is not None:
            _, size, data = whole
            self.kept[prefix + name] = (key[2] // 10**9, [data])
        return Leaf(name, ContextEntry("file", key[4] & 0o7777, size, digest), key, trusted)

    def _replace(self, directory: Directory, leaves: dict[str, Leaf]) -> None:
        old = directory.leaves
        prefix = directory.below("")
        changed = False
        for name, leaf in leaves.items():
            known = old.get(name)
            if known is not leaf:
                changed = True
                self._note(prefix + name, known, leaf)
        if len(old) != len(leaves) or old.keys() != leaves.keys():
            changed = True
            for name in old.keys() - leaves.keys():
                self._note(prefix + name, old[name], None)
        if changed:
            self._dirty.add(directory)
            directory.replace(leaves)

    def _put(self, directory: Directory, name: str, leaf: Leaf | None) -> None:
        """`_replace` for a single name, so that one change in a big directory stays cheap."""
        known = directory.leaves.get(name)
        if leaf is None and known is None:
            return
        self._dirty.add(directory)
        self._note(directory.below(name), known, leaf)
        directory.put(name, leaf)

    def _note(self, path: str, before: Leaf | None, now: Leaf | None) -> None:
        if before is None or now is None or before.entry != now.entry:
            self._pending[path] = now.entry if now else None
        if before is not None and now is not None and before.key != now.key:
            self._rewritten[path] = self.looks

    def _clear(self, directory: Directory) -> None:
        """Forget what is beneath `directory`."""
        for child in list(directory.directories.values()):
            self._drop(child)
        self._replace(directory, {})

    def _drop(self, directory: Directory) -> None:
        """Forget `directory` and what is beneath it."""
        self._clear(directory)
        if directory.shown is not None:
            self._pending[directory.path] = None
            directory.shown = None
        self._dirty.discard(directory)
        self._order = None
        if directory.parent is not None:
            directory.parent.directories.pop(directory.name, None)
            # It may have been what kept an ignored parent in the snapshot.
            self._dirty.add(directory.parent)

    def _look(self, path: str, root_fd: int, work: ScanProgress) -> None:
        """Bring one path (and all beneath it, if it is a directory) in line with the disk."""
        directory = self._top
        opened: list[int] = []
        fd = root_fd
        *parents, last = path.split("/")
        try:
            for name in parents:
                child = directory.directories.get(name)
                before = child.identity if child else None
                inner = self._enter(child, fd) if child else None
                if child is None or inner is None:
                    # Not known, or no directory any more: what stands there now is the question.
                    last = name
                    break
                opened.append(inner)
                directory, fd = child, inner
                if child.identity != before:
                    self._walk(child, fd, work)
                    return
            self._look_at(directory, last, fd, work)
        finally:
            for other in opened:
                os.close(other)

    def _in_context(self, directory: Directory, name: str) -> bool:
        path = directory.below(name)
        if path in self._staying:
            return self._rules.temporary_file(directory.inherited, path, name)
        return self._rules.file(directory.inherited, path, name)

    def _look_at(self, directory: Directory, name: str, fd: int, work: ScanProgress) -> None:
        look = _Look(fd, self._clock() - RACY_NS, work)
        try:
            mode = os.lstat(name, dir_fd=fd).st_mode
        except FileNotFoundError:
            mode = 0
        except OSError as error:
            raise unreadable(self._prefix + directory.below(name), error) from error
        child = None
        leaf = None
        if stat.S_ISDIR(mode):
            child = self._child(directory, name)
        elif mode and self._in_context(directory, name):
            if stat.S_ISLNK(mode):
                leaf = _link(name, fd)
            elif stat.S_ISREG(mode):
                leaf = self._file(name, look, directory.below(""))
        known = directory.directories.get(name)
        if known is not None and known is not child:
            self._drop(known)
        self._put(directory, name, leaf)
        if child is not None:
            if child is not known:
                directory.directories[name] = child
                self._order = None
            inner = self._enter(child, fd)
            if inner is not None:
                try:
                    self._walk(child, inner, work)
                finally:
                    os.close(inner)

    def _publish(self) -> Snapshot:
        """Work out the digests and entries that `_dirty` and `_pending` ask for."""
        self._show(self._dirty)
        for directory in self._dirty:
            directory.rehash()
        if self._order is None:
            self._order = sorted(all_directories(self._top), key=lambda directory: directory.path)
        shown = [f for f in self._order if f.shown is not None or f.parent is None]
        digest = hashlib.sha256(b"".join([f.digest for f in shown]))
        stamp = digest.copy()
        stamp.update(b"".join([f.stamp for f in shown]))

        entries = dict(self._entries)
        changes = []
        grown = False
        for path, entry in self._pending.items():
            before = entries.get(path)
            if before is entry or (before is not None and before == entry):
                continue
            changes.append(path)
            self.files += _is_file(entry) - _is_file(before)
            if entry is None:
                del entries[path]
            else:
                entries[path] = entry
                grown = grown or before is None
        if grown:
            entries = {path: entries[path] for path in sorted(entries)}
        self.changes = tuple(sorted(changes))
        self._entries = entries
        self._pending = {}
        self._dirty = set()
        return Snapshot(
            entries=MappingProxyType(entries), digest=digest.hexdigest(), stamp=stamp.hexdigest()
        )

    def _show(self, dirty: Iterable[Directory]) -> None:
        """Decide which directories are entries, from the deepest up."""
        affected: set[Directory] = set()
        for directory in dirty:
            above: Directory | None = directory
            while above is not None and above.parent is not None and above not in affected:
                affected.add(above)
                above = above.parent
        for directory in sorted(affected, key=lambda directory: -directory.depth):
            beneath = any(child.shown is not None for child in directory.directories.values())
            live = directory.included or directory.leaves or beneath
            entry = ContextEntry("dir", directory.mode) if live else None
            if entry != directory.shown:
                directory.shown = entry
                self._pending[directory.path] = entry


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: a big scan makes tens of thousands of objects that all stay,
    and looking through them again and again for garbage takes a sixth of its time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _same(found: os.DirEntry[str], leaf: Leaf) -> bool:
    try:
        return key_of(found.stat(follow_symlinks=False)) == leaf.key
    except FileNotFoundError:
        return False


def _link(name: str, fd: int) -> Leaf | None:
    try:
        status = os.lstat(name, dir_fd=fd)
        target = os.readlink(name, dir_fd=fd)
    except OSError:
        # Gone, or no symlink any more: the event that says so brings the next scan.
        return None
    # A symlink cannot be rewritten, only replaced by another inode.
    entry = ContextEntry("symlink", stat.S_IMODE(status.st_mode), link=target)
    return Leaf(name, entry, key_of(status), True)


def _is_file(entry: ContextEntry | None) -> bool:
    return entry is not None and entry.type == "file"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
