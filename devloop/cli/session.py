"""Running a session from the command line: its signals, its project, its exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Literal, Protocol, Self

from devloop import __version__
from devloop.errors import ExitStatus
from devloop.ui import say_early
from devloop.ui.sanitize import plain

if TYPE_CHECKING:
    from types import FrameType

    from devloop.cli.options import CommonOptions

__all__ = ["OUTPUTS", "Output", "Signals", "run_session"]

Output = Literal["auto", "live", "lines", "json", "quiet"]
OUTPUTS = ("auto", "live", "lines", "json", "quiet")

# From the first Ctrl-C to being gone, whatever a library is stuck in.
_LIMIT = 1.9

# Seconds that a busy thread may keep the interpreter from the others.
_TURN = 0.001

_STATUS = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    signal.SIGHUP: ExitStatus.TERMINATED,
}


class _Stop(Protocol):
    def __call__(self, status: ExitStatus, why: str = "") -> None: ...


class Signals:
    """The first signal says so at once and stops the session, the second leaves now.

    Before a session can be stopped (`stop` is None) the signal ends the main thread by the usual
    exceptions. Main thread only; restores the old handlers at the end."""

    def __init__(self) -> None:
        self.stop: _Stop | None = None
        self._seen = False
        self._old = {number: signal.getsignal(number) for number in _STATUS}
        self._watchdog: threading.Timer | None = None

    def __enter__(self) -> Self:
        for number in _STATUS:
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
        self._watchdog = threading.Timer(_LIMIT, os._exit, [int(status)])
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


def run_session(
    options: CommonOptions,
    *,
    mode: Literal["dev", "run"],
    services: tuple[str, ...],
    output: Output,
    tail: bool = False,
) -> int:
    """Run a session to its end; returns the exit status. Errors before it could start raise."""
    with Signals() as signals:
        # Before anything is imported that takes as long as a person notices.
        file = options.file or "devloop.yaml"
        say_early(
            f"{__version__} {mode}: reading {plain(str(file))}",
            output,
            color=options.color,
            env=os.environ,
        )
        from devloop.app import Session  # noqa: PLC0415 - see main.py: help must stay quick
        from devloop.cli.options import load  # noqa: PLC0415 - as above

        # A thread that wakes for a save must not wait 5 ms for each that reads or prints logs.
        sys.setswitchinterval(_TURN)
        session = Session(
            lambda: load(options),
            mode=mode,
            only=services,
            output=output,
            tail=tail,
            color=options.color,
        )
        signals.stop = session.stop
        return session.run()
