"""Cancelling: every callback once, and none at work any more when its block is left."""

from __future__ import annotations

import contextlib
import threading

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import supervised


def test_a_callback_runs_once_when_it_is_set_inside_its_block() -> None:
    cancel, calls = Cancel(), list[str]()
    with cancel.closing(lambda: calls.append("outer")):
        with cancel.closing(lambda: calls.append("left")):
            pass
        cancel.set()
        cancel.set()
        with cancel.closing(lambda: calls.append("late")):
            pass
    assert calls == ["outer", "late"]
    with pytest.raises(Cancelled):
        cancel.check()


def test_what_is_closed_already_keeps_no_other_callback_from_running() -> None:
    cancel, calls = Cancel(), list[str]()

    def closed() -> None:
        raise ValueError("I/O operation on closed file")

    with cancel.closing(closed), cancel.closing(lambda: calls.append("next")):
        cancel.set()
    assert calls == ["next"]


def test_a_block_is_not_left_while_its_callback_is_under_way() -> None:
    cancel = Cancel()
    began, may_end, left = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def callback() -> None:
        began.set()
        may_end.wait(30)
        order.append("callback")

    def work() -> None:
        with cancel.closing(callback):
            began.wait(30)
        order.append("left")
        left.set()

    threads = [supervised("worker", work), supervised("setter", cancel.set)]
    threads[0].start()
    while not cancel._callbacks:  # the block is entered
        threading.Event().wait(0.001)
    threads[1].start()
    assert began.wait(30)
    assert not left.wait(0.05)
    may_end.set()
    for thread in threads:
        thread.join(30)
    assert order == ["callback", "left"]


def test_a_callback_that_has_not_begun_does_not_run_after_its_block() -> None:
    cancel, calls = Cancel(), list[str]()
    second = contextlib.ExitStack()

    def first() -> None:
        # The set is under way and the second callback is next, as its block is left.
        second.close()
        calls.append("first")

    with cancel.closing(first):
        second.enter_context(cancel.closing(lambda: calls.append("second")))
        cancel.set()
    assert calls == ["first"]


def test_a_callback_may_leave_its_own_block() -> None:
    cancel = Cancel()
    block = contextlib.ExitStack()
    block.enter_context(cancel.closing(block.close))
    cancel.set()
    assert cancel.is_set()


def test_the_thread_that_sets_may_leave_the_block() -> None:
    cancel, calls = Cancel(), list[str]()
    with cancel.closing(lambda: calls.append("once")):
        cancel.set()
    assert calls == ["once"]


def test_a_callback_that_fails_leaves_nobody_waiting() -> None:
    cancel = Cancel()

    def fails() -> None:
        raise ZeroDivisionError

    block = contextlib.ExitStack()
    block.enter_context(cancel.closing(fails))
    with pytest.raises(ZeroDivisionError):
        cancel.set()
    block.close()
