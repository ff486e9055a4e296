"""Noticing that the kubelet rotated a log away under a stream, and reading what was in it.

A followed log goes over from the old file to the new one by itself, but not whole (cri-client,
pkg/logs, ReadLogs): what is written to the old file after its last look is never sent; of two
rotations while the reader is behind the file between is skipped; and when the rotation comes
before the first end of file, the stream falls silent until the next one. None of it shows in the
stream. What shows is the first line of the file that the API serves: it changes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.errors import Code, DevloopError
from devloop.logs.lines import Splitter, to_key
from devloop.logs.reading import backoff, to_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.logs.followed import FollowedContainer, LogFile
    from devloop.logs.ports import LogFiles
    from devloop.logs.reading import Line

_LOG = logging.getLogger(__name__)

# So many bytes of a stream make a look at the file's first line due. The kubelet rotates at 10 MiB
# unless told otherwise, and at most every ten seconds.
LOOK_EVERY = 1024 * 1024

# A stream that has yet to reach the new file is opened again when it is so much longer idle.
_STALLED = 4

# What is read of rotated files to fill one gap, in bytes; of more the rest is reported as missing.
_FILL_LIMIT = 64 * 1024 * 1024

_TRIES = 4

# In place of the key of a first line: there is no line.
EMPTY = "~"


def look_if_due(
    files: LogFiles, entry: FollowedContainer, silent: float, idle: float, cancel: Cancel
) -> None:
    """Look where enough came since the last time, or at a stream that is idle for the first time.

    `silent`: seconds since its last byte; `idle`: as many that it may be ended. Raises
    `Cancelled`."""
    file = entry.file
    first_idle = file.unsettled and silent >= _STALLED * idle
    if file.due or first_idle:
        look(files, entry, file, cancel)
        if first_idle and not file.due:
            file.unsettled = False


def look(files: LogFiles, entry: FollowedContainer, file: LogFile, cancel: Cancel) -> bool:
    """Note what the first line of the newest file tells of the `file` that is read; whether there
    is one. A look that fails stays due. The reader may be at another file by then, of which it
    tells nothing."""
    received = file.received
    try:
        head = files.first_line(entry.pod, entry.name, cancel=cancel)
    except (DevloopError, OSError) as error:
        _LOG.debug("first line of %s/%s: %s", entry.pod.name, entry.name, error)
        # A log that may not be read is the stream's to report.
        file.due = isinstance(error, OSError) or error.code is Code.CLUSTER_UNREACHABLE
        return True
    file.due = False
    key = to_key(head.split(b" ", 1)[0].decode("ascii", "replace"))
    if not key:
        return False  # nothing was written since the rotation: the next bytes make it due again
    before, file.head = file.head, key
    file.looked = received
    latest = entry.position.latest
    # Before a line of the file that is read is known, the other may be its own.
    another = bool(file.first) and key != file.first
    if another and ((latest and key > latest) or (before and key != before)):
        file.pending = key
    return True


def attend(entry: FollowedContainer, silent: float, idle: float) -> bool:
    """What is known becomes due as the stream goes on; True when the stream is to be ended.

    `silent`: seconds since its last byte; `idle`: as many that it may be ended."""
    file = entry.file
    if file.pending and entry.position.latest >= file.pending:
        file.pending, file.rotated = "", file.pending
    if file.pending and silent >= _STALLED * idle:
        return True
    return silent >= idle and (file.outdated or bool(file.rotated))


class Unfilled(Exception):  # noqa: N818 - the answer of a look, not an error
    """What lies between cannot be had whole; `last` is the last line before what is missing, and
    `found` whether it stands in a rotated file: else the container may be another."""

    def __init__(self, last: Line, *, found: bool = False) -> None:
        super().__init__()
        self.last = last
        self.found = found


class Filling:
    """Shows what the rotated files hold of one container that was not seen, in one go or several.

    After the line `last` everything is missing; before it only what is not remembered, as it can
    have been more than one rotation."""

    def __init__(self, entry: FollowedContainer, last: Line, until: str, floor: str) -> None:
        self.last = last
        self._floor = floor
        self.found = False
        self._entry = entry
        self._until = until
        self._seen = entry.position.seen()

    def read(self, chunks: Iterator[bytes]) -> bool:
        """Whether it is filled, up to the line with the key `until`. Raises `Unfilled` when it is
        too much."""
        splitter = Splitter()
        left = self._seen.copy()
        at_last = False
        size = 0
        for chunk in chunks:
            size += len(chunk)
            for piece in splitter.feed(chunk):
                line = to_line(piece)
                if not at_last and (line == self.last or piece.key <= self._floor):
                    at_last = line == self.last
                    self.found = self.found or at_last
                elif piece.key == self._until:
                    return True
                elif left[line] > 0:
                    left[line] -= 1
                else:
                    self._entry.output.show(piece)
                    self._entry.position.fill(line)
                    self._seen[line] += 1
                    self.last = line if at_last else self.last
            if size > _FILL_LIMIT:
                raise Unfilled(self.last, found=self.found)
        return at_last


def fill(
    files: LogFiles | None,
    entry: FollowedContainer,
    last: Line,
    until: str,
    *,
    restarts: int,
    cancel: Cancel,
    floor: str | None = None,
    pause: Callable[[int], float] = backoff,
) -> None:
    """Show what the rotated files of the instance after so many `restarts` hold from the line
    `last` on, up to the one with the key `until`.

    `floor`: the key up to which nothing counts, if not all that is remembered is of this instance.
    Raises `Unfilled`; `Cancelled` when the follower ends."""
    if files is None:
        raise Unfilled(last)
    floor = entry.position.floor if floor is None else floor
    filling = Filling(entry, last, until, floor)
    since = f"{floor}Z" if floor else ""
    for attempt in range(1, _TRIES + 1):
        try:
            chunks = files.rotated(
                entry.pod, entry.name, restarts=restarts, since=since, cancel=cancel
            )
            if filling.read(chunks):
                return
            break
        except (DevloopError, OSError) as error:
            _LOG.debug("rotated log of %s/%s: %s", entry.pod.name, entry.name, error)
            if isinstance(error, DevloopError) and error.code is not Code.CLUSTER_UNREACHABLE:
                break
            if cancel.wait(pause(attempt)):
                raise Cancelled from None
    raise Unfilled(filling.last, found=filling.found)


def at_the_end(files: LogFiles, entry: FollowedContainer, cancel: Cancel) -> bool:
    """Look once more when a container is over; True when its stream never came to the last file."""
    file = entry.file
    if not look(files, entry, file, cancel) and file.head:
        file.rotated = EMPTY
    attend(entry, 0.0, 1.0)
    file.due = False
    return bool(file.pending)
