"""Linux's own file events, directory by directory, the moment they happen.

watchfiles wakes up every few milliseconds to look, holds what it saw for two of its steps, follows
symlinks, keeps quiet about an overflow, dies of a name that is not UTF-8 and wants all watches made
anew for one more directory. The kernel does none of this, and it also knows what a save is judged
by: whether a file that was written has been closed. So this talks to it directly; there is no more
to it than three calls (inotify(7)). Not for deciding anything: events go to the buffer as they
come.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
import time
from typing import TYPE_CHECKING

from devloop.base.threads import supervised
from devloop.watch.event_buffer import ADDED, DELETED, MODIFIED, FileEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.watch.event_buffer import EventBuffer


_MODIFY = 0x2
_ATTRIB = 0x4
_CLOSE_WRITE = 0x8
_MOVED_FROM = 0x40
_MOVED_TO = 0x80
_CREATE = 0x100
_DELETE = 0x200
_DELETE_SELF = 0x400
_MOVE_SELF = 0x800
_UNMOUNT = 0x2000
_Q_OVERFLOW = 0x4000
_IGNORED = 0x8000
_ONLYDIR = 0x1000000
_WANTED = (
    _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF
) | _MOVE_SELF
_GONE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT

# What an event about a name in a directory means, the first that fits: the kind of change and
# whether the file is whole now (None: not known).
_MEANING: tuple[tuple[int, int, bool | None], ...] = (
    (_MOVED_TO, ADDED, True),
    (_CLOSE_WRITE, MODIFIED, True),
    (_CREATE, ADDED, False),
    (_DELETE | _MOVED_FROM, DELETED, False),
    (_MODIFY, MODIFIED, False),
    (_ATTRIB, MODIFIED, None),
)
_HEAD = struct.Struct("iIII")
_BUFFER = 256 * 1024
# In a flood each look should find many events: waking two threads for each would cost more than
# what they get. A pause this long is none to a save.
_BREATH_SECONDS = 0.002


class LimitReachedError(Exception):
    """The kernel allows no more watches, or (`instances`) no more watchers."""

    def __init__(self, *, instances: bool = False) -> None:
        super().__init__("no more inotify instances" if instances else "no more inotify watches")
        self.instances = instances


class InotifyWatch:
    """Watches directories (not what is beneath them) until closed.

    Paths are absolute, names may be any bytes (surrogateescape). Raises `LimitReachedError`, and
    OSError where there is no inotify."""

    def __init__(self, buffer: EventBuffer) -> None:
        self._buffer = buffer
        self._libc = ctypes.CDLL(None, use_errno=True)
        fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0:
            number = ctypes.get_errno()
            if number in (errno.EMFILE, errno.ENFILE):
                raise LimitReachedError(instances=True)
            raise OSError(number, os.strerror(number))
        self._fd = fd
        self._lock = threading.Lock()
        # One directory under two names (a symlink to it) is one watch to the kernel.
        self._paths: dict[int, tuple[str, ...]] = {}
        self._numbers: dict[str, int] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = supervised("watch", self._run, on_bug=buffer.fail)
        self._thread.start()

    @property
    def directories(self) -> frozenset[str]:
        """What is watched now."""
        with self._lock:
            return frozenset(self._numbers)

    def add(self, path: str) -> bool:
        """Watch what is at `path` now; False when that is watched already. A directory that is gone
        or not for us to read is passed over: the one above notices when that changes, and the scan
        reports it."""
        with self._lock:  # so that no event is read before its number has a path
            number = self._libc.inotify_add_watch(self._fd, os.fsencode(path), _WANTED | _ONLYDIR)
            if number < 0:
                fault = ctypes.get_errno()
                if fault == errno.ENOSPC:
                    raise LimitReachedError
                if fault in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
                    return False
                raise OSError(fault, os.strerror(fault), path)
            old = self._numbers.get(path)
            if old == number:
                return False
            if old is not None:
                self._release(path, old)
            self._numbers[path] = number
            self._paths[number] = (*self._paths.get(number, ()), path)
            return True

    def remove(self, path: str) -> None:
        """Stop watching `path`, or what stood there when it was added."""
        with self._lock:
            number = self._numbers.pop(path, None)
            if number is not None:
                self._release(path, number)

    def close(self) -> None:
        """Returns when the thread is gone."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._fd)
        os.close(self._wake)

    def _release(self, path: str, number: int) -> None:
        left = tuple(other for other in self._paths.pop(number, ()) if other != path)
        if left:
            self._paths[number] = left
        else:
            # Fails for a directory that is deleted; its watch went with it.
            self._libc.inotify_rm_watch(self._fd, number)

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        last = 0.0
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake in ready:
                return
            pause = _BREATH_SECONDS - (time.monotonic() - last)
            if pause > 0:
                time.sleep(pause)
            last = time.monotonic()
            events, overflow = self._file_events(os.read(self._fd, _BUFFER))
            if events or overflow:
                self._buffer.put(events, many=overflow)

    def _file_events(self, data: bytes) -> tuple[list[FileEvent], bool]:
        """The events in `data`, in its order, and whether the kernel had to leave something out."""
        events: list[FileEvent] = []
        overflow = False
        with self._lock:
            for number, mask, name in _events(data):
                if mask & _Q_OVERFLOW:
                    overflow = True
                for directory in self._paths.get(number, ()):
                    if mask & _GONE:
                        events.append(FileEvent(DELETED, directory, False))
                    elif not mask & _IGNORED:
                        path = f"{directory.rstrip('/')}/{os.fsdecode(name)}" if name else directory
                        events += _meant(mask, path)
                if mask & _IGNORED:
                    for path in self._paths.pop(number, ()):
                        del self._numbers[path]
        return events, overflow


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Watch, mask and name of each event in what a read gave; see inotify(7)."""
    at = 0
    while at < len(data):
        number, mask, _, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        yield number, mask, data[at - length : at].rstrip(b"\0")


def _meant(mask: int, path: str) -> list[FileEvent]:
    return [FileEvent(kind, path, whole) for bits, kind, whole in _MEANING if mask & bits][:1]
