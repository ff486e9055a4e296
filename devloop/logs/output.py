"""What is published of one container's log: its lines, and a word about each that is not.

Nothing is left out in silence: lines over the bound are counted, and what is lost for reasons that
nobody here has a hand in is reported with the times between which it lies.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import supervised
from devloop.events import LogLine
from devloop.logs.reading import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.events import Event
    from devloop.logs.lines import Piece
    from devloop.model import PodView


class LineOutput:
    """The lines of one container on their way out. `show` belongs to the thread that reads."""

    def __init__(
        self,
        service: str,
        pod: PodView,
        container: str,
        publish: Callable[[Event], None],
        *,
        rate: int,
        clock: Callable[[], float],
        report_after: float,
    ) -> None:
        # Of the instance whose log is read; set by the thread that reads.
        self.restarts = 0
        self._service = service
        self._pod = pod
        self._container = container
        self._publish = publish
        self._rate = rate
        self._limit = RateLimit(rate)
        self._clock = clock
        self._report_after = report_after
        self._ending = Cancel()
        self._lock = threading.Lock()
        self._dropped = 0
        self._notice: threading.Thread | None = None

    def show(self, piece: Piece) -> None:
        """Raises `Cancelled` when closed."""
        self._ending.check()
        wait = self._limit.admit(self._clock(), piece.key[:19])
        if wait is None:
            self._note_dropped()
            return
        if wait and self._ending.wait(wait):
            raise Cancelled
        if self._dropped:
            self.report_dropped()
        self._say(piece.text, piece.ts)

    def report_gap(self, after: str, before: str, why: str) -> None:
        """Lines between these two keys may be missing, how many is unknown; either can be empty."""
        if self._ending.is_set():
            return
        self.report_dropped()
        a, b = after[11:23], before[11:23]
        where = f"between {a} and {b}" if a and b else f"after {a}" if a else f"before {b}"
        self._say(f"… lines may be missing{f' {where} UTC' if a or b else ''}: {why}", "")

    def report_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped and not self._ending.is_set():
            lines = "line" if dropped == 1 else "lines"
            self._say(f"… {dropped:,} {lines} dropped: more than {self._rate:,} a second", "")

    @property
    def busy(self) -> bool:
        """Whether a report is still to come by itself."""
        return self._notice is not None

    def close(self) -> threading.Thread | None:
        """Publish nothing more; the thread that has yet to end, if there is one."""
        self._ending.set()
        with self._lock:
            return self._notice

    def _note_dropped(self) -> None:
        """Count a line that was not shown. A flood can stop as suddenly as it began, so another
        thread sees to it that the loss is reported even if no line follows."""
        with self._lock:
            self._dropped += 1
            if self._notice is not None or self._ending.is_set():
                return
            name = f"log-dropped-{self._pod.suffix}-{self._container}"
            self._notice = supervised(name, self._report_later)
            self._notice.start()

    def _report_later(self) -> None:
        self._ending.wait(self._report_after)
        with self._lock:
            self._notice = None
        self.report_dropped()

    def _say(self, text: str, ts: str) -> None:
        self._publish(
            LogLine(
                service=self._service,
                pod=self._pod.name,
                container=self._container,
                text=text,
                ts=ts,
                restarts=self.restarts,
            )
        )
