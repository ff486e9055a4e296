"""Ctrl-C and TERM at any moment: the process is gone in two seconds, and nothing is left paused.

`DEVLOOP_TEST_STOPS` says how many moments are tried (20 if unset), `DEVLOOP_TEST_STOPS_SEED`
repeats the moments of a run that failed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

STOPS = int(os.environ.get("DEVLOOP_TEST_STOPS", "20"))
SEED = int(os.environ.get("DEVLOOP_TEST_STOPS_SEED") or random.randrange(2**32))

# From the first signal to the end of the process, in seconds.
PROMISED = 2.0

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """`after` are the seconds from the start of the process, from a save, or from the end of the
    first iteration. A second signal follows `apart` seconds after the first."""

    phase: Literal["start", "iteration", "quiet"]
    after: float
    signals: tuple[signal.Signals, ...]
    apart: float = 0.0


def moments(count: int, seed: int) -> list[Moment]:
    chance = random.Random(seed)
    kinds: list[tuple[signal.Signals, ...]] = [
        (signal.SIGINT,),
        (signal.SIGTERM,),
        (signal.SIGINT, signal.SIGTERM),
    ]
    return [
        Moment(
            phase="start",
            after=chance.uniform(0, 1.5),
            signals=chance.choice(kinds),
            apart=chance.uniform(0, 0.3),
        )
        if number % 3 == 0
        else Moment(
            phase="iteration",
            after=chance.uniform(0, 2.0),
            signals=chance.choice(kinds),
            apart=chance.uniform(0, 0.3),
        )
        if number % 3 == 1
        # Also at the very moment when an iteration ends.
        else Moment(
            phase="quiet",
            after=chance.choice((0.0, chance.uniform(0, 0.02), chance.uniform(0, 0.5))),
            signals=chance.choice(kinds),
            apart=chance.uniform(0, 0.3),
        )
        for number in range(count)
    ]


def first_iteration(session: Devloop) -> None:
    session.wait(lambda e: e["type"] == "iteration.finished", "iteration", 90)


def stopped(session: Devloop, moment: Moment) -> float:
    """Send the signals; the seconds that the process took to be gone."""
    began = time.monotonic()
    for position, number in enumerate(moment.signals):
        if position:
            time.sleep(moment.apart)
        if session.process.poll() is None:
            # A terminal tells the whole foreground group, everybody else the process alone.
            if number is signal.SIGINT:
                os.killpg(session.process.pid, number)
            else:
                session.process.send_signal(number)
    session.process.wait(10)
    return time.monotonic() - began


@pytest.mark.timeout(60 + 30 * STOPS)
def test_a_signal_at_any_moment_ends_it_in_time_and_leaves_nothing_paused(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    def paused() -> bool:
        return bool(cluster.get("deployment", "web")["spec"].get("paused"))

    first = devloop("dev")
    first.finished("ready", seconds=120)
    first.interrupt()
    for number, moment in enumerate(moments(STOPS, SEED)):
        session = devloop("dev")
        if moment.phase != "start":
            first_iteration(session)
        if moment.phase == "iteration":
            workspace.version(f"v{number + 1}")
        time.sleep(moment.after)
        seconds = stopped(session, moment)
        status = session.join(1)
        told = f"moment {number} of seed {SEED}: {moment}, {seconds:.2f} s\n{session.story()}"
        twice = len(moment.signals) == 2
        session.killed = twice  # leaving at once ends the stream anywhere
        begun = bool(session.events)
        # Before the interpreter is up, the system or the interpreter answers for it.
        early = [] if begun else [-number for number in moment.signals]
        if not begun and "KeyboardInterrupt" in "".join(session.stderr):
            early.append(1)
        assert status in [*(STATUS[n] for n in moment.signals), *early], told
        assert seconds < PROMISED, told
        if begun and not twice:
            session.check_stream()
        if twice and paused():
            # Whoever leaves at once leaves this to the next session.
            healed = devloop("dev")
            first_iteration(healed)
            healed.interrupt()
        assert not paused(), told
        session.close()
    final = devloop("dev")
    first_iteration(final)
    cluster.serves(workspace.read("app.py").partition('VERSION = "')[2].partition('"')[0])
