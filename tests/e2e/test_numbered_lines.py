"""Numbered log lines of an app that is replaced ten times, over a connection that is cut five
times: each comes exactly once, or what was reported says that it may not.

`DEVLOOP_TEST_LINES` says how many, at how many a second `DEVLOOP_TEST_RATE`; the long form is
1,000,000.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.session import Devloop
from tests.support.cut import Cuttable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Event

LINES = int(os.environ.get("DEVLOOP_TEST_LINES", "60000"))
RATE = int(os.environ.get("DEVLOOP_TEST_RATE", "2500"))

DAY = 86400.0

KINDS = (
    "hot",
    "in-place",
    "rolling",
    "crash",
    "hot",
    "rolling",
    "in-place",
    "crash",
    "hot",
    "in-place",
)
CUT_AT = (1, 2, 4, 6, 9)

NUMBERED = re.compile(r"n (\S+) (\d+) of a line like any")
END = re.compile(r"end (\S+) (\d+)")
DROPPED = re.compile(r"… ([\d,]+) lines dropped")
MISSING = re.compile(
    r"… lines may be missing(?: (between|after|before) (\S+)(?: and (\S+))? UTC)?:"
)

SIGNAL = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    command = open(f"/proc/{pid}/cmdline", "rb").read()
    if pid != "1" and command.split(b"\\0")[1:2] == [b"app.py"]:
        os.kill(int(pid), signal.SIGUSR1)
"""


@dataclass(slots=True)
class _Lines:
    """Of one start of the process: how often each number came, when the kubelet had it, and how
    many there are by its own word."""

    pod: str
    began: float
    times: array[int] = field(default_factory=lambda: array("B"))
    stamps: array[float] = field(default_factory=lambda: array("d"))
    count: int | None = None
    ended: float = DAY

    def came(self, number: int, ts: str) -> None:
        if number >= len(self.times):
            more = number + 1 - len(self.times)
            self.times.extend([0] * more)
            self.stamps.extend([0.0] * more)
        self.times[number] = min(255, self.times[number] + 1)
        self.stamps[number] = _seconds(ts)

    def missing(self) -> Iterator[tuple[int, float, float]]:
        """Runs of numbers that did not come: how many, and the times of their neighbours."""
        count = len(self.times) if self.count is None else self.count
        before, run = self.began, 0
        for number in range(count):
            if number < len(self.times) and self.times[number]:
                if run:
                    yield run, before, self.stamps[number]
                before, run = self.stamps[number], 0
            else:
                run += 1
        if run:
            yield run, before, self.ended


def _seconds(ts: str) -> float:
    """Of the day: what is said of missing lines has no date."""
    return int(ts[11:13]) * 3600 + int(ts[14:16]) * 60 + float(ts[17:29].rstrip("Z"))


class Ledger:
    """Every line that came, and what was said of those that did not."""

    def __init__(self) -> None:
        self.starts: dict[str, _Lines] = {}
        self.total = 0
        self.dropped = 0
        self.gaps: list[tuple[str, float, float]] = []
        self.said: list[str] = []
        self.seq = 0

    def take(self, event: Event) -> None:
        self.seq += 1
        if event["type"] == "dropped":
            self.seq += event["count"]
            self.dropped += event["count"]
            self.said.append(json.dumps(event))
        assert event["seq"] == self.seq, event
        if event["type"] == "log":
            self._log(event["text"], event["ts"], event["pod"])

    def _log(self, text: str, ts: str, pod: str) -> None:
        if match := NUMBERED.fullmatch(text):
            self._of(match[1], pod).came(int(match[2]), ts)
            self.total += 1
        elif match := END.fullmatch(text):
            lines = self._of(match[1], pod)
            lines.count, lines.ended = int(match[2]), _seconds(ts)
        elif text.startswith("…"):
            self.said.append(f"{pod}: {text}")
            if match := DROPPED.match(text):
                self.dropped += int(match[1].replace(",", ""))
            elif match := MISSING.match(text):
                kind, first, last = match.groups()
                after = _seconds(f"{'':11}{first}") if kind in ("between", "after") else 0.0
                before = {"between": last, "before": first}.get(kind)
                until = _seconds(f"{'':11}{before}") if before else DAY
                self.gaps.append((pod, after, until))

    def _of(self, start: str, pod: str) -> _Lines:
        if start not in self.starts:
            began = int(start.rpartition(".")[2]) / 1e9 % DAY
            self.starts[start] = _Lines(pod, began)
        return self.starts[start]

    @property
    def double(self) -> int:
        return sum(n - 1 for lines in list(self.starts.values()) for n in lines.times if n > 1)

    def missing(self) -> tuple[int, int]:
        """How many lines did not come where it was said that some may not, and how many more."""
        covered = bare = 0
        for lines in list(self.starts.values()):
            gaps = [(a, b) for pod, a, b in self.gaps if pod == lines.pod]
            for run, before, after in lines.missing():
                if any(a <= before + 0.002 and b >= after - 0.002 for a, b in gaps):
                    covered += run
                else:
                    bare += run
        return covered, bare

    def unfinished(self) -> list[str]:
        """Starts of which the end did not come and nothing was said."""
        return [
            start
            for start, lines in list(self.starts.items())
            if lines.count is None and not any(pod == lines.pod for pod, _, _ in self.gaps)
        ]


class Counting(Devloop):
    """A session whose log lines are counted as they come and not kept."""

    ledger: Ledger

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.ledger.take(event)
            if event["type"] != "log":
                self._queue.put(event)
        self._queue.put(None)


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Cuttable]:
    proxy = Cuttable.of_kubeconfig(Path(os.environ["KUBECONFIG"]), tmp_path / "kubeconfig")
    yield proxy
    proxy.close()


@pytest.fixture
def session(cluster: Cluster, tmp_path: Path, way: Cuttable) -> Iterator[Counting]:
    root = tmp_path / "app"
    shutil.copytree(Path(__file__).parent / "numbered", root)
    text = (root / "k8s.yaml").read_text()
    (root / "k8s.yaml").write_text(text.replace('"1000"', f'"{RATE}"'))
    Counting.ledger = Ledger()
    session = Counting(
        "dev",
        "--namespace",
        cluster.namespace,
        cwd=root,
        env={
            "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
            "IMAGE": f"{cluster.namespace}/web",
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
        },
    )
    yield session
    session.close()


def _edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert re.search(old, text)
    temporary = root / f"{name}.tmp~"
    temporary.write_text(re.sub(old, new, text))
    temporary.replace(root / name)


def _replace(session: Counting, cluster: Cluster, root: Path, kind: str, number: int) -> None:
    if kind == "crash":
        running = next(
            pod["metadata"]["name"]
            for pod in cluster.get("pods")["items"]
            if "deletionTimestamp" not in pod["metadata"]
        )
        cluster.kubectl("exec", running, "--", "python3", "-c", SIGNAL)
    if kind in ("crash", "hot"):
        _edit(root, "app.py", 'VERSION = ".*"', f'VERSION = "v{number}"')
    elif kind == "in-place":
        _edit(root, "Dockerfile", "WORKDIR .*", f"WORKDIR /app\nLABEL round={number}")
    else:
        _edit(root, "k8s.yaml", 'round: ".*"', f'round: "{number}"')


def _ready(session: Counting) -> int:
    return sum(e["outcome"] == "ready" for e in session.of("iteration.finished"))


def _until(session: Counting, total: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while session.ledger.total < total:
        session.quiet(0.2)
        assert time.monotonic() < deadline, f"{session.ledger.total} lines\n{session.story()}"


@pytest.mark.timeout(300 + 3 * LINES / RATE)
def test_each_line_comes_once_or_it_is_said(
    session: Counting, cluster: Cluster, way: Cuttable, tmp_path: Path
) -> None:
    session.finished("ready", seconds=180)
    began = time.monotonic()
    cuts = 0
    for number, kind in enumerate(KINDS):
        share = LINES * (number + 1) // (len(KINDS) + 1)
        _until(session, share, 60 + share / RATE)
        before = _ready(session)
        _replace(session, cluster, tmp_path / "app", kind, number + 1)
        if number in CUT_AT:
            session.quiet(0.3)
            cuts += way.cut() > 0
            session.quiet(1.0 + number / 4)
            way.mend()
        deadline = time.monotonic() + 120
        while _ready(session) == before:
            session.quiet(0.2)
            assert time.monotonic() < deadline, session.story()
        print(
            f"{time.monotonic() - began:6.1f} s: {kind}, {session.ledger.total} lines", flush=True
        )
    _until(session, LINES, 60 + LINES / RATE)
    cluster.kubectl("scale", "deployment/web", "--replicas=0")
    ledger = session.ledger
    deadline = time.monotonic() + 60
    while ledger.unfinished() and time.monotonic() < deadline:
        session.quiet(0.5)
    took = time.monotonic() - began
    covered, bare = ledger.missing()
    figures = {
        "lines": ledger.total,
        "starts": len(ledger.starts),
        "missing_in_silence": bare,
        "missing_where_said": covered,
        "reported_dropped": ledger.dropped,
        "double": ledger.double,
        "cuts": cuts,
        "seconds": round(took, 1),
        "peak_mb": _peak(session.process.pid),
    }
    print(json.dumps(figures), *ledger.said, sep="\n")
    session.interrupt()
    assert cuts == len(CUT_AT)
    assert len(ledger.starts) > len(KINDS) or ledger.gaps, figures
    assert ledger.double == 0, figures
    assert ledger.unfinished() == [], figures
    assert bare <= ledger.dropped, figures


def _peak(pid: int) -> float:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(match[1]) / 1024, 1) if match else 0.0
