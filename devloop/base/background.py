"""Work in threads of its own: one call in the background, several at once.

No thread outlives what it was started for; `close` ends it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from devloop.base.cancel import Cancel, Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Background", "side_by_side"]

T = TypeVar("T")

# How long an end waits for a thread that was told to stop.
_END = 1.0


class Background(Generic[T]):
    """The result of `call`, which runs in a thread of its own from now on."""

    def __init__(self, name: str, call: Callable[[Cancel], T]) -> None:
        self._call = call
        self._cancel = Cancel()
        self._done = threading.Condition()
        self._ended = False
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"devloop-{name}", daemon=True)
        self._thread.start()

    def result(self, cancel: Cancel) -> T:
        """Wait for the result, or raise what `call` raised. Raises Cancelled when `cancel` is set
        first, or when this was closed."""
        with cancel.closing(self._wake), self._done:
            while not self._ended and not cancel.is_set():
                self._done.wait()
        cancel.check()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def wait(self, seconds: float, cancel: Cancel) -> bool:
        """Whether it comes to its end within so many seconds. Raises Cancelled."""
        with cancel.closing(self._wake), self._done:
            self._done.wait_for(lambda: self._ended or cancel.is_set(), seconds)
            ended = self._ended
        cancel.check()
        return ended

    @property
    def failed(self) -> bool:
        """Whether it came to its end without a result."""
        return self._error is not None

    def join(self) -> None:
        """Wait for the end, whatever it is."""
        self._thread.join()

    def stop(self) -> None:
        """Tell it to end and do not wait."""
        self._cancel.set()

    def close(self) -> None:
        self._cancel.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_END)

    def _run(self) -> None:
        try:
            self._result.append(self._call(self._cancel))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is wanted
            self._error = error
        self._wake()

    def _wake(self) -> None:
        with self._done:
            if self._result or self._error is not None:
                self._ended = True
            self._done.notify_all()


def side_by_side(calls: Sequence[Callable[[], object]]) -> None:
    """Run all calls at the same time and wait for all; the first failure is raised, one that is
    no mere `Cancelled` before one that is."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(call,), name="devloop-beside", daemon=True)
        for call in calls[1:]
    ]
    for thread in threads:
        thread.start()
    for call in calls[:1]:
        run(call)
    for thread in threads:
        thread.join()
    errors.sort(key=lambda error: isinstance(error, Cancelled))
    if errors:
        raise errors[0]
