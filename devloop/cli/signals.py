"""What Ctrl-C, TERM and a closed terminal do to a command that takes its time.

Python runs a handler in the main thread and only when that gets to it: a signal that arrives as the
thread goes to sleep in a lock is seen with the next one. So the handlers here do nothing, and a
thread reads the numbers that the interpreter's C handler writes into a pipe at once, whatever
thread the system gave the signal to (`signal.set_wakeup_fd`). Nothing is blocked, so child
processes inherit no mask.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, NoReturn, Self, TypeVar

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import supervised
from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")

_STATUS = {
    int(signal.SIGINT): ExitStatus.INTERRUPTED,
    int(signal.SIGTERM): ExitStatus.TERMINATED,
    int(signal.SIGHUP): ExitStatus.TERMINATED,
}

# Two presses of a key are further apart, in seconds.
_MOMENT = 0.15

# What ends the thread; no signal has this number.
_END = b"\0"


class Signals:
    """The first signal says so at once and stops the command, a second one leaves now.

    `stop` is called in a thread of its own; as long as it is None, the first signal leaves as well.
    What comes within `moment` seconds of the first is the same request: `timeout`, systemd and
    editors signal a process and its group, and who starts another passes on what both got. The
    process is left `limit` seconds after the first signal, with None never. A hangup or interrupt
    that is ignored when this begins (`nohup`, `devloop dev &` in a script) stays so. Restores the
    old handlers at the end; in another thread than the main one it does nothing. `first` is the
    status that the first signal asks for; `before_leaving` is called before the process is left
    without waiting for its end, and has a tenth of a second."""

    def __init__(self, *, limit: float | None = None, moment: float = _MOMENT) -> None:
        self.stop: Callable[[ExitStatus, str], None] | None = None
        self.before_leaving: Callable[[], None] = lambda: None
        self._limit = limit
        self._moment = moment
        self._since = 0.0
        self.first: ExitStatus | None = None
        self._leave = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        thread = supervised("signals", self._listen, reader)
        thread.start()
        self._leave.callback(os.close, reader)
        self._leave.callback(os.close, writer)
        self._leave.callback(thread.join)
        self._leave.callback(os.write, writer, _END)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._leave.callback(signal.set_wakeup_fd, before)
        for number in _STATUS:
            if number != signal.SIGTERM and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._leave.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.close()

    def _listen(self, reader: int) -> None:
        deadline: float | None = None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([reader], [], [], left)[0]:
                self._leave_now(self.first or 0)
            numbers = os.read(reader, 64)
            for number in numbers:
                if number in _STATUS:
                    self._received(signal.Signals(number))
            if self._limit is not None and self.first is not None and deadline is None:
                deadline = time.monotonic() + self._limit
            if _END in numbers:
                return

    def _received(self, number: signal.Signals) -> None:
        status = _STATUS[number]
        if self.first is not None and time.monotonic() - self._since < self._moment:
            return
        if self.first is not None or self.stop is None:
            self._leave_now(status)
        self.first, self._since = status, time.monotonic()
        # Not here: this thread must see the second signal and the time limit, whatever blocks.
        supervised("stop", self.stop, status, f"stopped by {number.name}").start()
        if number is signal.SIGINT:
            supervised("stopping", _report_stopping).start()

    def _leave_now(self, status: int) -> NoReturn:
        # Whatever that is stuck in, it is left.
        thread = supervised("leaving", self.before_leaving)
        thread.start()
        thread.join(0.1)
        os._exit(status)


def _report_stopping() -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopping (ctrl-C again to leave now)\n")


def interruptible(work: Callable[[Cancel], T]) -> T:
    """`work`, which the first signal cancels, however it blocks, and the second leaves at once.

    Between the two it may take the time that it needs to tidy up. Ends the process with 130 or 143
    when a signal came."""
    cancel = Cancel()
    asked: list[ExitStatus] = []

    def stop(status: ExitStatus, _why: str) -> None:
        asked.append(status)
        cancel.set()

    with Signals() as signals:
        signals.stop = stop
        try:
            result = work(cancel)
        except Cancelled:
            if not asked:
                raise
        else:
            if not asked:
                return result
    raise SystemExit(asked[0])
