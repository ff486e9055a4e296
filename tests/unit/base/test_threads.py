"""Threads: what nobody expected is handed on, what was expected is not."""

from __future__ import annotations

import threading

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import Background, report_bug, reporting_bugs, supervised


def _raises(error: Exception) -> None:
    raise error


def test_an_unexpected_exception_goes_to_whoever_runs_the_process() -> None:
    bugs: list[BaseException] = []
    error = ZeroDivisionError("surprise")
    with reporting_bugs(bugs.append):
        thread = supervised("test", _raises, error)
        thread.start()
        thread.join(30)
    assert bugs == [error]
    assert thread.name == "devloop-test"
    assert thread.daemon


def test_a_thread_may_have_somebody_of_its_own_to_tell() -> None:
    own: list[BaseException] = []
    error = ZeroDivisionError("surprise")
    with reporting_bugs(lambda _: pytest.fail("told the wrong one")):
        thread = supervised("test", _raises, error, on_bug=own.append)
        thread.start()
        thread.join(30)
    assert own == [error]


def test_being_cancelled_is_an_ordinary_end() -> None:
    with reporting_bugs(lambda _: pytest.fail("no bug")):
        thread = supervised("test", _raises, Cancelled())
        thread.start()
        thread.join(30)


def test_a_bug_that_nobody_waits_for_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    error = ZeroDivisionError("surprise")
    report_bug(error)
    assert [args.exc_value for args in seen] == [error]


@pytest.mark.parametrize(
    ("error", "bugs"),
    [
        (ZeroDivisionError("surprise"), 1),
        (KeyError("expected"), 0),
        (ConnectionResetError(), 0),
    ],
)
def test_background_work_that_fails_is_raised_and_only_a_bug_reported(
    error: Exception, bugs: int
) -> None:
    found: list[BaseException] = []
    with reporting_bugs(found.append):
        work: Background[None] = Background("test", lambda _: _raises(error), expected=(KeyError,))
        work.join()
    assert len(found) == bugs
    assert work.failed
    with pytest.raises(type(error)):
        work.result(Cancel())
    work.close()


def test_what_follows_from_the_end_of_background_work_is_no_bug() -> None:
    def broken_by_the_end(cancel: Cancel) -> None:
        cancel.wait(30)
        raise ValueError("I/O operation on closed file")

    with reporting_bugs(lambda _: pytest.fail("no bug")):
        Background("test", broken_by_the_end).close()
