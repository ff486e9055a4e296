"""A session's control socket from the first moment on, without anybody waiting for it.

What it takes is imported in a thread of its own while the cluster, its registry and Docker answer;
what happens meanwhile is kept for it, so that a late reader misses nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.base.threads import Background
from devloop.errors import DevloopError
from devloop.events import DiagnosticRaised

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from devloop.app.control import SessionControl
    from devloop.base.cancel import Cancel
    from devloop.engine.bus import EventBus
    from devloop.events import Record


class EarlyControl:
    """Opens the socket of a session for these services, and is a reader of its events. With a
    `page` also the session's page at that port, 0 for the usual one or any."""

    def __init__(
        self, state_dir: Path, bus: EventBus, services: Iterable[str], *, page: int | None = None
    ) -> None:
        self._place = (state_dir, tuple(services))
        self._page = page
        self._publish = bus.publish
        self._lock = threading.Lock()
        self._kept: list[Record] = []
        self._control: SessionControl | None = None
        self._withdrawn = False
        bus.subscribe("control", lambda record: self._take([record]), batch=self._take)
        self._opening = Background("open-control", self._open)

    def opened(self, cancel: Cancel) -> SessionControl:
        """Wait until it is open. Raises Cancelled."""
        return self._opening.result(cancel)

    def withdraw(self) -> None:
        """The next session may have the socket's place."""
        with self._lock:
            self._withdrawn = True
            control = self._control
        if control is not None:
            control.withdraw()

    def close(self, seconds: float) -> None:
        """Hand out the last events, for so many seconds, and end."""
        self.withdraw()
        if self._control is not None:
            self._control.close(seconds)

    def _open(self, _cancel: Cancel) -> SessionControl:
        from devloop.app.control import SessionControl  # noqa: PLC0415 - that is what it is for

        with self._lock:
            if self._withdrawn:
                raise Cancelled
            control = self._control = SessionControl(*self._place, publish=self._publish)
            control.take(self._kept)
            self._kept.clear()
        if self._page is not None:
            try:
                control.open_page(self._page)
            except DevloopError as error:
                self._publish(DiagnosticRaised.of(error.diagnosis))
        return control

    def _take(self, records: Sequence[Record]) -> None:
        with self._lock:
            if self._control is None:
                self._kept.extend(records)
            else:
                self._control.take(records)
