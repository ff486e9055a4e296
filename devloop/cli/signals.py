"""What Ctrl-C, TERM and a closed terminal do to a command that takes its time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Protocol, Self

from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Signals", "Stop"]

_STATUS = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    signal.SIGHUP: ExitStatus.TERMINATED,
}


class Stop(Protocol):
    def __call__(self, status: ExitStatus, why: str = "") -> None: ...


class Signals:
    """The first signal says so at once and stops the session, the second leaves now.

    Before a session can be stopped (`stop` is None) the signal ends the main thread by the usual
    exceptions. `stop` is called in a thread of its own; the process is left `limit` seconds after
    the first signal, with None never. Restores the old handlers at the end; in another thread than
    the main one it does nothing."""

    def __init__(self, *, limit: float | None = None) -> None:
        self.stop: Stop | None = None
        self._limit = limit
        self._seen = False
        self._old = {number: signal.getsignal(number) for number in _STATUS}
        self._watchdog: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            self._old = {}
        for number in self._old:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        status = _STATUS[signal.Signals(number)]
        if self._seen:
            os._exit(status)
        self._seen = True
        # Written past Python's buffers: a handler may interrupt a write in progress.
        if number == signal.SIGINT:
            os.write(2, b"\nstopping (ctrl-C again to leave now)\n")
        if self._limit is not None:
            self._watchdog = threading.Timer(self._limit, os._exit, [int(status)])
            self._watchdog.daemon = True
            self._watchdog.start()
        if self.stop is not None:
            # In a thread of its own: the handler may have interrupted a holder of a lock it needs.
            why = "stopped by " + signal.Signals(number).name
            threading.Thread(target=self.stop, args=(status, why), daemon=True).start()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            sys.exit(int(status))
