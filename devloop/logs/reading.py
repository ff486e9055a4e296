"""How far a log was read, which stream to read next, and whether a line fits the rate. Pure.

The API knows two streams a container: the present instance's and the one before's. An instance is
over when its container no longer runs, and read when a stream that was opened after that came to
its end: only then can nothing follow.

The API resumes by time only, in whole seconds, so a resumed stream repeats lines. The runtime
stamps stdout and stderr apart, so neighbours can stand in the file out of order, and several lines
can share a timestamp. Hence a position is not a time but the bag of lines seen lately: what a
resumed stream repeats is taken out of the bag, what is not in there is new.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.logs.lines import second_before, seconds_between, to_key

if TYPE_CHECKING:
    from devloop.logs.lines import Piece

# How many refusals in a row are believed.
_TRIES = 3

# How many of the latest lines are remembered: all of the last two seconds, which a resumed stream
# repeats, and some more for short logs, which can then be compared as a whole. More than the upper
# bound in two seconds is a flood; then lines older than the oldest remembered count as seen,
# whatever their order in the file. A line takes some 180 bytes.
_AT_LEAST = 1024
_AT_MOST = 65_536

# How many times as fast as allowed a log may pass that comes late.
_CATCH_UP = 3

# Seconds; stdout and stderr of a container are stamped apart, but no two neighbours that far.
_SKEW = 0.01

# A line as it is remembered: its key, and a hash of the rest.
Line = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What is known of a container now. `over`: it does not run (any more); `gone`: its pod does
    not exist any more."""

    id: str
    restarts: int = 0
    over: bool = False
    gone: bool = False


class Trail(enum.Enum):
    """Whether streams follow on from one another: `LOST` when one did not begin with what was
    seen last, `FOUND` when what lies between was looked for."""

    KEPT = enum.auto()
    LOST = enum.auto()
    FOUND = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadProgress:
    """`begun`: the instance of which something was read; `done`: the last one read to its end;
    `before`: the instance whose predecessor was looked at."""

    begun: str = ""
    done: str = ""
    before: str = ""
    trail: Trail = Trail.KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Open a stream; `follows_on`: it must begin with lines that were seen already."""

    previous: bool = False
    follows_on: bool = False


class End(enum.Enum):
    """How a stream ended: closed in order, cut by us because the container changed, broken off,
    not begun because the cluster cannot be reached, refused for now, refused for good, or left
    because it did not follow on."""

    CLOSED = enum.auto()
    CUT = enum.auto()
    BROKEN = enum.auto()
    AWAY = enum.auto()
    REFUSED = enum.auto()
    FINAL = enum.auto()
    ASTRAY = enum.auto()


def next_read(progress: ReadProgress, instance: Instance) -> Read | None:
    """The stream to open now, None when there is nothing to read."""
    if not instance.id or instance.id == progress.done:
        return None
    if progress.trail is Trail.LOST:
        return Read(previous=True)
    if instance.id == progress.begun:
        return Read(follows_on=progress.trail is Trail.KEPT)
    # A new instance. The one before may have ended before its stream was opened, or while it was
    # broken; what was seen of it is not shown twice, so look whenever there was one.
    if (instance.restarts or progress.begun) and progress.before != instance.id:
        return Read(previous=True)
    return Read()


def outdated(old: Instance, new: Instance, *, deleting: bool) -> bool:
    """Whether a stream opened when `old` was known is better ended by us.

    The kubelet ends it by itself, but up to five seconds after the container did, and what the
    next stream repeats is not shown twice. Only of a pod on its way out there may be no next."""
    return old.id != new.id or (new.over and not old.over and not deleting)


def learned(
    progress: ReadProgress, read: Read, instance: Instance, end: End, failures: int
) -> ReadProgress:
    """The progress after a stream; `instance` is what was known when it was opened, `failures`
    how many streams in a row brought nothing new, this one included."""
    if end is End.AWAY:
        return progress
    if read.previous:
        if end is End.CUT or (end is End.BROKEN and failures < _TRIES):
            return progress
        # Refused: the kubelet keeps nothing of the one before.
        trail = Trail.FOUND if progress.trail is Trail.LOST else progress.trail
        return replace(progress, before=instance.id, trail=trail)
    if end is End.ASTRAY:
        return replace(progress, trail=Trail.LOST)
    given_up = (
        end is End.FINAL
        or (instance.gone and (end is End.REFUSED or failures >= _TRIES))
        or (instance.over and end is End.REFUSED and failures >= _TRIES)
    )
    if given_up or (end is End.CLOSED and instance.over):
        return replace(progress, begun=instance.id, done=instance.id, trail=Trail.KEPT)
    if end is End.CLOSED or not failures:
        return replace(progress, begun=instance.id, trail=Trail.KEPT)
    return progress


def backoff(failures: int) -> float:
    """Seconds to wait after so many streams in a row that brought nothing: 0.2, 0.4 ... 5."""
    return float(min(5.0, 0.2 * 2 ** min(failures - 1, 10)))


class RateLimit:
    """At most `limit` lines of each second by their own timestamps: of a faster log each second's
    first lines are kept. What comes late, as after a broken connection, is no flood: it passes
    somewhat faster than it was written, and what is faster still waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = ""
        self._written = 0
        self._since = float("-inf")
        self._passed = 0

    def admit(self, now: float, second: str) -> float | None:
        """Seconds until a line may pass, None when it is to be dropped. `now` is of a monotonic
        clock in seconds, `second` the timestamp's second."""
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        if self._written > self._limit:
            return None
        if now - self._since >= 1.0:
            self._since, self._passed = now, 0
        self._passed += 1
        return 0.0 if self._passed <= _CATCH_UP * self._limit else self._since + 1.0 - now


class Position:
    """The lines of one container that were seen, over all its restarts.

    `start` is an RFC 3339 time: lines from before it are nobody's business; empty for none.
    Relies on the node's clock: set back by more than a second, it hides as much of a resumed
    stream."""

    def __init__(self, start: str = "") -> None:
        self._start = to_key(start) if start else ""
        self._recent: deque[Line] = deque()
        self._filled: deque[Line] = deque()
        self._latest = ""
        self._window = ""
        self._forgotten = ""
        self._expected: Counter[Line] = Counter()
        self._resumed = False
        self._before = ""
        self.heads: deque[str] = deque(maxlen=4)  # keys of first lines of files

    @property
    def latest(self) -> str:
        """The key of the latest line; empty when there was none."""
        return self._latest

    @property
    def last(self) -> Line | None:
        """The line that was seen last."""
        return self._recent[-1] if self._recent else None

    def seen(self) -> Counter[Line]:
        """All lines that are remembered, `filled` ones too."""
        return Counter((*self._recent, *self._filled))

    def fill(self, line: Line) -> None:
        """Note a line that no stream gave: it was taken from a rotated file."""
        self._filled.append(line)
        while len(self._filled) > _AT_MOST or self._filled[0][0] <= self._forgotten:
            self._forgotten = max(self._forgotten, self._filled.popleft()[0])
            if not self._filled:
                return

    def is_past(self, key: str) -> bool:
        """Whether it cannot be told (any more) whether a line of that time was seen."""
        return key < self._start or key <= self._forgotten

    @property
    def floor(self) -> str:
        """The key below which all are past; may be empty."""
        return max(self._start, self._forgotten)

    def before(self, key: str) -> Line | None:
        """The line that was seen right before the first with this key, if both are remembered."""
        last = None
        for line in self._recent:
            if line[0] == key:
                return last
            last = line
        return None

    def open(self, *, previous: bool = False) -> str | None:
        """A stream is about to begin; returns its `since_time` (None: from the first line).

        `previous`: of the instance before. Lines of its successor may have been seen already,
        taken for its own; so it is read as a whole where that doubles nothing."""
        self._resume()
        if self._latest and (self._forgotten or not previous):
            return f"{self._window}Z"
        return f"{self._start[:19]}Z" if self._start else None

    def _resume(self) -> None:
        self._expected = Counter(self._recent)
        self._resumed = bool(self._latest)
        self._before = ""

    def _read_again(self, line: Line) -> bool:
        """Whether a stream begins anew without a word: the kubelet does that with the newest file
        after two rotations that it saw late."""
        return seconds_between(line[0], self._before) > _SKEW and (
            line[0] in self.heads or line in self._recent
        )

    def repeats(self, piece: Piece) -> bool:
        """Whether `piece` was seen before. The first one of a resumed stream always was, else it
        is another log than the one that broke off: the container was restarted."""
        return (
            not self._resumed
            or piece.key < self._start
            or piece.key <= self._forgotten
            or self._expected.get(to_line(piece), 0) > 0
        )

    def is_new(self, piece: Piece) -> bool:
        """Whether to show `piece`; it counts as seen from now on."""
        key = piece.key
        if key < self._start:
            return False
        line = to_line(piece)
        if key < self._before and not self._resumed and self._read_again(line):
            self._resume()
        self._before = key
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


def to_line(piece: Piece) -> Line:
    """What is remembered of a piece."""
    return piece.key, hash((piece.index, piece.body))
