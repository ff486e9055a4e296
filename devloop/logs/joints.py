"""Whether one stream of a container goes on where the one before broke off, and what lies between.

A stream that is opened again begins with lines that were seen. One that does not is another log:
of the next instance, or of the next file. What lies between is shown where it can be had, else it
is put in doubt, and whoever shows the next line reports that.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.logs.rotation import EMPTY, Unfilled, fill

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.logs.followed import FollowedContainer
    from devloop.logs.lines import Piece
    from devloop.logs.ports import LogFiles
    from devloop.logs.reading import Instance, Line, Read

ROTATED = "the kubelet rotated the log"
OTHER = "the log was rotated, or its container is another"


@dataclass(frozen=True, eq=False)
class Joints:
    """All of it runs in the thread that reads the container; `Cancelled` when `ending` is set."""

    files: LogFiles | None
    ending: Cancel

    def must_follow_on(self, entry: FollowedContainer, read: Read, instance: Instance) -> bool:
        """Whether a stream must begin with lines that were seen already."""
        last, progress = entry.position.last, entry.progress
        if last is None:
            return False
        if read.follows_on:
            return True
        broken_off = progress.begun != progress.done
        if read.previous and broken_off:
            entry.doubt = last  # until the stream proves the opposite
            return True
        if instance.id != progress.begun and instance.restarts > entry.restarts + 2:
            entry.doubt = last  # of three starts the kubelet keeps two
        return False

    def follows_on(
        self, entry: FollowedContainer, first: Piece, read: Read, instance: Instance
    ) -> bool:
        """Whether the stream that begins with `first` is the log that broke off; what lies between
        is shown."""
        last = entry.position.last
        if last is None or entry.position.repeats(first):
            entry.doubt = None
            return True
        if read.previous and first.key < last[0]:
            entry.doubt = None  # what was seen last was its successor's, taken for its own
            return True
        try:
            restarts = instance.restarts - read.previous
            self._fill(entry, last, first.key, restarts)
            entry.doubt = None
        except Unfilled as unfilled:
            if read.follows_on and not unfilled.found:
                return False
            entry.doubt = unfilled.last
        entry.position.heads.append(first.key)
        return True

    def cross(self, entry: FollowedContainer, instance: Instance) -> None:
        """The stream went over to another file: show what it left behind."""
        key, entry.file.rotated = entry.file.rotated, ""
        if not key:
            return
        if key in entry.position.heads:
            return  # the stream began with it
        if key == EMPTY:
            key, last = "", entry.position.last
        else:
            entry.position.heads.append(key)
            last = entry.position.before(key)
        if last is None:
            entry.output.report_gap("", key, ROTATED)
            return
        try:
            self._fill(entry, last, key, instance.restarts)
        except Unfilled as unfilled:
            entry.output.report_gap(unfilled.last[0], key, ROTATED)

    def older(self, entry: FollowedContainer, instance: Instance) -> None:
        """The first file of an instance that was seen may not be the first that it wrote."""
        file = entry.file
        floor, file.before = file.before, None
        if floor is None:
            return
        with contextlib.suppress(Unfilled):  # there are none, or they may not be read
            self._fill(entry, ("", 0), file.first, instance.restarts, floor)

    def _fill(
        self,
        entry: FollowedContainer,
        last: Line,
        until: str,
        restarts: int,
        floor: str | None = None,
    ) -> None:
        fill(self.files, entry, last, until, restarts=restarts, cancel=self.ending, floor=floor)
