"""What is known of one container whose log is followed."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.logs.reading import ReadProgress

if TYPE_CHECKING:
    import threading

    from devloop.logs.lines import Piece
    from devloop.logs.output import LineOutput
    from devloop.logs.reading import Instance, Line, Position
    from devloop.model import PodView


@dataclass(slots=True, kw_only=True)
class LogFile:
    """The file that a stream comes from, as far as it can be told from outside.

    `received`: bytes so far; `active`: when the last of them came; `due`: a look at the file's
    first line is wanted, at `looked` bytes there was the last one; `head`: the key of that line;
    `pending`: the key of another first line than before, up to which the stream has not come;
    `rotated`: the same when it has; `outdated`: the stream is better ended once it is idle;
    `unsettled`: it was not idle yet, and only from then on the kubelet notices a rotation;
    `first`: the key of the stream's first line; `before`: of a stream of another instance, until
    it is known whether there are older files, the key up to which all is the other's."""

    received: int = 0
    looked: int = 0
    active: float = float("-inf")
    due: bool = False
    head: str = ""
    pending: str = ""
    rotated: str = ""
    outdated: bool = False
    unsettled: bool = False
    first: str = ""
    before: str | None = None

    @property
    def watched(self) -> bool:
        """Whether there is something to look after."""
        return self.due or self.outdated or self.unsettled or bool(self.pending or self.rotated)


@dataclass(slots=True, kw_only=True)
class FollowedContainer:
    """One container of one pod. `position`, `failures`, `tail`, `whole` and `doubt` belong to the
    thread that reads, the rest is guarded by the follower's lock.

    `whole`: the last stream ended in order; `doubt`: the line that was seen last when it could not
    be proven that the next one follows; `restarts`: of the instance that was read last; `size`:
    bytes that came of all instances, repeated ones too."""

    service: str
    pod: PodView
    name: str
    instance: Instance
    position: Position
    output: LineOutput
    stream: Cancel = field(default_factory=Cancel)
    file: LogFile = field(default_factory=LogFile)
    closed: bool = False
    progress: ReadProgress = field(default_factory=ReadProgress)
    gone_since: float | None = None
    thread: threading.Thread | None = None
    reading: bool = False
    failures: int = 0
    tail: list[Piece] = field(default_factory=list)
    whole: bool = False
    doubt: Line | None = None
    restarts: int = 0
    size: int = 0
