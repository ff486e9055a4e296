"""How far a container's log was read, exactly to the line. Pure.

The API resumes by time only, in whole seconds, so a resumed stream repeats lines. The runtime
stamps stdout and stderr apart, so neighbours can stand in the file out of order, and several lines
can share a timestamp. Hence a position is not a time but the bag of lines seen lately: what a
resumed stream repeats is taken out of the bag, what is not in there is new.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from devloop.logs.lines import second_before, to_key

if TYPE_CHECKING:
    from devloop.logs.lines import Piece


# How many of the latest lines are remembered: all of the last two seconds, which a resumed stream
# repeats, and some more for short logs, which can then be compared as a whole. More than the upper
# bound in two seconds is a flood; then lines older than the oldest remembered count as seen,
# whatever their order in the file.
_AT_LEAST = 1024
_AT_MOST = 16_384


class Position:
    """The lines of one container that were seen, over all its restarts.

    `start` is an RFC 3339 time: lines from before it are nobody's business; empty for none.
    Relies on the node's clock: set back by more than a second, it hides as much of a resumed
    stream."""

    def __init__(self, start: str = "") -> None:
        self._start = to_key(start) if start else ""
        self._recent: deque[tuple[str, int]] = deque()
        self._latest = ""
        self._window = ""
        self._forgotten = ""
        self._expected: Counter[tuple[str, int]] = Counter()
        self._resumed = False

    def open(self, *, previous: bool = False) -> str | None:
        """A stream is about to begin; returns its `since_time` (None: from the first line).

        `previous`: of the instance before. Lines of its successor may have been seen already,
        taken for its own; so it is read as a whole where that doubles nothing."""
        self._expected = Counter(self._recent)
        self._resumed = bool(self._latest)
        if self._latest and (self._forgotten or not previous):
            return f"{self._window}Z"
        return f"{self._start[:19]}Z" if self._start else None

    def repeats(self, piece: Piece) -> bool:
        """Whether `piece` was seen before. The first one of a resumed stream always was, else it
        is another log than the one that broke off: the container was restarted."""
        return (
            not self._resumed
            or piece.key < self._start
            or piece.key <= self._forgotten
            or self._expected.get(_line(piece), 0) > 0
        )

    def is_new(self, piece: Piece) -> bool:
        """Whether to show `piece`; it counts as seen from now on."""
        key = piece.key
        if key < self._start:
            return False
        line = _line(piece)
        if self._resumed:
            if left := self._expected.get(line, 0):
                self._expected[line] = left - 1
                return False
            if key <= self._forgotten:
                return False
            if key > self._latest:  # all that was seen stands before all that was not
                self._expected.clear()
                self._resumed = False
        self._remember(line)
        return True

    def _remember(self, line: tuple[str, int]) -> None:
        key = line[0]
        self._recent.append(line)
        if key > self._latest:
            if key[:19] != self._latest[:19]:
                self._window = second_before(key)
            self._latest = key
        while len(self._recent) > _AT_MOST or (
            len(self._recent) > _AT_LEAST and self._recent[0][0] < self._window
        ):
            self._forgotten = max(self._forgotten, self._recent.popleft()[0])


def _line(piece: Piece) -> tuple[str, int]:
    return piece.key, hash((piece.index, piece.body))
