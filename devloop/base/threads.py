"""Every thread of devloop: started here, so that none ends on an unexpected exception unnoticed.

A subsystem whose thread died in silence looks alive and serves stale state. So such an exception
goes to whoever runs the process (`reporting_bugs`), who ends the session with a report.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from devloop.base.cancel import Cancel, Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


T = TypeVar("T")

# How long an end waits for a thread that was told to stop.
_END = 1.0

_REPORTS: list[Callable[[BaseException], None]] = []


@contextlib.contextmanager
def reporting_bugs(on_bug: Callable[[BaseException], None]) -> Iterator[None]:
    """Inside, `on_bug` gets what `report_bug` is called with; it must not block or raise.

    One for the process, like a signal handler: of two, the one entered last."""
    _REPORTS.append(on_bug)
    try:
        yield
    finally:
        _REPORTS.remove(on_bug)


def report_bug(error: BaseException) -> None:
    """Hand on an exception that nobody expected; from any thread.

    Without a `reporting_bugs` around it is treated as the interpreter treats what a thread does
    not catch: the traceback is printed, and a test fails."""
    if _REPORTS:
        _REPORTS[-1](error)
        return
    thread = threading.current_thread()
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, thread))
    )


def supervised(
    name: str,
    target: Callable[..., object],
    *args: object,
    on_bug: Callable[[BaseException], None] = report_bug,
) -> threading.Thread:
    """A thread `devloop-<name>` for `target(*args)`, not yet started and never waited for at exit.

    `Cancelled` is an ordinary end; any other exception goes to `on_bug`, in that thread."""

    def run() -> None:
        try:
            target(*args)
        except Cancelled:
            pass
        except Exception as error:  # noqa: BLE001 - that is what it is for
            on_bug(error)

    return threading.Thread(target=run, name=f"devloop-{name}", daemon=True)


class Background(Generic[T]):
    """The result of `call`, which runs in a thread of its own from now on.

    What `call` raises is raised by `result`. As nobody may ever ask for that, it is also reported
    as a bug, unless it is an `OSError`, one of `expected` or follows from being told to stop."""

    def __init__(
        self, name: str, call: Callable[[Cancel], T], *, expected: tuple[type[Exception], ...] = ()
    ) -> None:
        self._call = call
        self._expected: tuple[type[Exception], ...] = (OSError, Cancelled, *expected)
        self._cancel = Cancel()
        self._end: Future[T] = Future()
        self._thread = supervised(name, self._run)
        self._thread.start()

    def result(self, cancel: Cancel) -> T:
        """Wait for the result, or raise what `call` raised. Raises Cancelled when `cancel` is set
        first, or when this was closed."""
        self.wait(None, cancel)
        return self._end.result()

    def wait(self, seconds: float | None, cancel: Cancel) -> bool:
        """Whether it comes to its end within so many seconds. Raises Cancelled."""
        woken = threading.Event()
        self._end.add_done_callback(lambda _: woken.set())
        with cancel.closing(woken.set):
            woken.wait(seconds)
        cancel.check()
        return self._end.done()

    @property
    def failed(self) -> bool:
        """Whether it came to its end without a result."""
        return self._end.done() and self._end.exception() is not None

    def join(self) -> None:
        """Wait for the end, whatever it is."""
        self._thread.join()

    def stop(self) -> None:
        """Tell it to end and do not wait."""
        self._cancel.set()

    def close(self) -> None:
        """End it; waits a second at most."""
        self._cancel.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_END)

    def _run(self) -> None:
        try:
            result = self._call(self._cancel)
        except Exception as error:  # noqa: BLE001 - raised again where the result is wanted
            if not self._cancel.is_set() and not isinstance(error, self._expected):
                report_bug(error)
            self._end.set_exception(error)
        else:
            self._end.set_result(result)


def side_by_side(calls: Sequence[Callable[[], object]]) -> None:
    """Run all calls at the same time and wait for all; the first failure is raised, one that is
    no mere `Cancelled` before one that is."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    threads = [supervised("beside", run, call) for call in calls[1:]]
    for thread in threads:
        thread.start()
    for call in calls[:1]:
        run(call)
    for thread in threads:
        thread.join()
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Cancelled))
