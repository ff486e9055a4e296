"""What signals do to a process of devloop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

UNSEEN = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})"


SIGNALLED = """
import signal, sys, threading, time
from devloop.cli.signals import Signals
asked = threading.Event()
status = []
def stop(*given):
    status.extend(given)
    asked.set()
with Signals(limit={limit}, moment={moment}) as signals:
    {stop}
    print("ready", flush=True)
    asked.wait()
    print("ended", flush=True)
    sys.exit(int(status[0]))
"""


@pytest.mark.parametrize(
    ("number", "stop", "status", "limit"),
    [
        (signal.SIGINT, "signals.stop = stop", 130, None),
        (signal.SIGTERM, "signals.stop = stop", 143, None),
        # A session that cannot stop is left by the watchdog.
        (signal.SIGINT, "signals.stop = lambda status, why: None", 130, 0.2),
        (signal.SIGTERM, "signals.stop = lambda status, why: None", 143, 0.2),
        # Before there is a session.
        (signal.SIGTERM, "pass", 143, None),
        # The system gives it to another thread, and nothing wakes the main one.
        (signal.SIGINT, f"signals.stop = stop; {UNSEEN}", 130, None),
        (signal.SIGTERM, f"signals.stop = stop; {UNSEEN}", 143, None),
    ],
)
def test_a_signal_ends_the_process(
    number: signal.Signals, stop: str, status: int, limit: float | None
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED.format(stop=stop, limit=limit, moment=60)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert ("stopping" in err) == (number == signal.SIGINT)


def test_a_second_ctrl_c_leaves_at_once() -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SIGNALLED.format(stop="signals.stop = lambda status, why: None", limit=None, moment=0),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert "ctrl-C again" in process.stderr.readline()
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_two_signals_at_once_are_one_request() -> None:
    stop = "signals.stop = lambda *given: threading.Timer(0.3, stop, given).start()"
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED.format(stop=stop, limit=None, moment=60)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == "ended\n"
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_stays_ignored(number: signal.Signals) -> None:
    ignoring = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n"
    script = SIGNALLED.format(stop="signals.stop = stop", limit=None, moment=0)
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring + script], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
