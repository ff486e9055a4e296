"""Whatever happens to streams and containers: no line is lost, none comes twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devloop.events import LogLine
from devloop.logs import LogFollower
from tests.support.examples import examples
from tests.support.waiting import until
from tests.unit.logs.kubelet import Kubelet

if TYPE_CHECKING:
    from devloop.events import Event

WRITE = st.tuples(
    st.just("write"),
    st.sampled_from([0, 0, 1, 200_000, 400_000, 1_500_000]),  # microseconds since the last line
    st.booleans(),  # stamped a little before the line above it
    st.sampled_from(["x", "y", "", "long" * 10]),
)
ACTIONS = st.lists(
    st.one_of(
        WRITE,
        WRITE,
        st.tuples(st.just("break"), st.booleans(), st.booleans()),
        st.tuples(st.just("restart"), st.booleans()),
        st.tuples(st.just("rotate"), st.booleans(), st.integers(0, 2)),
        st.tuples(st.just("tell")),
        st.tuples(st.just("pause")),
    ),
    max_size=30,
)


class Run:
    def __init__(self, chunk: int) -> None:
        self.kubelet = Kubelet(chunk=chunk)
        self.got: list[str] = []
        self.rotated = False
        self.written: list[list[str]] = [[]]  # of each instance
        self.now = datetime(2026, 11, 23, 14, 31, tzinfo=UTC)
        self.follower = LogFollower(
            self.kubelet.open_log,
            self._collect,
            patterns={"web": ("*",)},
            backoff=lambda _: 0.002,
            idle=0.0,
            files=self.kubelet,
            look_every=0,
            tick=0.002,
        )
        self.tell()

    def _collect(self, event: Event) -> None:
        if isinstance(event, LogLine):
            self.got.append(event.ts + event.text)

    def tell(self) -> None:
        self.follower.pods_changed("web", (self.kubelet.view(),))

    def write(self, micros: int, early: bool, text: str) -> None:
        self.now += timedelta(microseconds=micros)
        stamp = self.now - timedelta(microseconds=300) * early
        ts = stamp.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        self.kubelet.write(ts, text.encode())
        self.written[-1].append(ts + text)

    def rotate(self, silent: bool, left: int) -> None:
        # Until its first line is known it is not known that there is another file.
        self.tell()
        self.write(1, False, "first")
        self.catch_up()
        until(lambda: all(not e.file.watched for e in self.follower._containers.values()))
        lines = []
        for n in range(left):
            self.now += timedelta(microseconds=1)
            ts = self.now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            lines.append((ts, b"left %d" % n))
            self.written[-1].append(f"{ts}left {n}")
        self.kubelet.rotate(left=lines, silent=silent)
        if silent:
            self.kubelet.break_off(OSError("reset"))
        self.rotated = True
        self.write(1, False, "next")

    def catch_up(self) -> None:
        until(lambda: len(self.got) >= sum(map(len, self.written)))
        self.check()

    def check(self) -> None:
        assert sorted(self.got) == sorted(line for lines in self.written for line in lines)
        if self.rotated:
            return  # what a stream left out comes late
        # An instance that took the other's place unnoticed may be seen before it.
        for lines in self.written:
            assert [line for line in self.got if line in lines] == lines

    def restart(self, told: bool) -> None:
        # The kubelet keeps one instance: the one before it must have been read by now.
        self.tell()
        self.catch_up()
        self.now += timedelta(seconds=1)
        self.write(0, False, "last words")
        self.kubelet.restart()
        self.written.append([])
        if told:
            self.tell()
        self.write(900_000, False, "first words")


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
@given(ACTIONS, st.sampled_from([1, 7, 50, 10_000]))
def test_each_line_once_and_in_order(actions: list[tuple[object, ...]], chunk: int) -> None:
    run = Run(chunk)
    try:
        for action in actions:
            match action:
                case ("write", int(micros), bool(early), str(text)):
                    run.write(micros, early, text)
                case ("break", bool(fault), bool(inside)):
                    run.kubelet.break_off(OSError("reset") if fault else None, inside_a_line=inside)
                case ("rotate", bool(silent), int(left)):
                    run.rotate(silent, left)
                case ("restart", bool(told)):
                    run.restart(told)
                case ("tell",):
                    run.tell()
                case _:
                    time.sleep(0.003)
        run.kubelet.end()
        run.tell()
        assert run.follower.drain(30)
        run.check()
    finally:
        assert run.follower.close(2) == ()
