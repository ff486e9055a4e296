"""Signals as images, Kubernetes and the kernel write them."""

from __future__ import annotations

import platform
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.base.linux_signals import signal_name, signal_number


@given(number=st.integers(1, 31))
def test_a_number_has_the_name_that_has_the_number(number: int) -> None:
    name = signal_name(number)
    assert signal_number(name) == number
    assert signal_number(name.removeprefix("SIG").lower()) == number


@given(number=st.integers(1, 64))
def test_a_number_is_its_own_name(number: int) -> None:
    assert signal_number(str(number)) == number
    assert signal_number(f"0{number}") == number


@given(number=st.integers(34, 64))
def test_real_time_signals_are_counted_from_both_ends(number: int) -> None:
    assert signal_number(f"SIGRTMIN+{number - 34}") == number
    assert signal_number(f"RTMAX-{64 - number}") == number
    assert signal_name(number) == f"signal {number}"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("TERM", 15),
        ("sigterm", 15),
        ("SIGHUP", 1),
        ("SIGQUIT", 3),
        ("SIGWINCH", 28),
        ("SIGSYS", 31),
        ("SIGRTMIN", 34),
        ("SIGRTMAX", 64),
        ("SIGCLD", 17),  # Docker knows the three other names as well
        ("SIGIOT", 6),
        ("SIGPOLL", 29),
    ],
)
def test_a_name_has_a_number(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "65", "-1", "+9", "1.5", " 15", "\u0663", "\u00b2"),
        *("SIG", "SIGSIGTERM", "SIGNONE", "SIGTERM ", "SIG15"),
        *("SIGRTMIN-1", "SIGRTMAX+1", "SIGRTMIN+31", "SIGRTMAX-31", "SIGRTMIN+", "SIGRTMIN+1x"),
    ],
)
def test_what_is_no_signal_has_none(text: str) -> None:
    assert signal_number(text) is None


def test_what_has_no_name_is_said_by_its_number() -> None:
    assert [signal_name(n) for n in (0, 32, 65)] == ["signal 0", "signal 32", "signal 65"]


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="this computer has its signals numbered otherwise",
)
def test_they_are_those_of_linux() -> None:
    for found in signal.Signals:
        if found < signal.SIGRTMIN:
            assert signal_number(found.name) == found
