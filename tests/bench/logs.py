"""Log lines: what the way from the kubelet to the output can carry, and what it does with a flood.

    python -m tests.bench.logs way [--lines 200000]
    eval "$(script/env)"; python -m tests.bench.logs pod [--rate 10000] [--seconds 10]

`way` feeds made-up chunks to the real follower, bus and output of a process of its own, as fast as
they are taken: lines a second on one core, and the share of what was read that came out. `pod` runs
a whole `devloop dev` on a pod that prints `rate` lines a second: all lines must come, each once and
in order; `late` is how long after it was printed a line was read from devloop's output.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from devloop.engine.bus import EventBus
from devloop.logs import LogFollower
from devloop.model import ContainerView, PodView
from devloop.ui import make_sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel

NAMESPACE = "logs-bench"
_CHUNK = 65536
Kind = Literal["lines", "json"]

APP = """import sys, time
rate, seconds = RATE, SECONDS
time.sleep(3)
began = time.time()
count = 0
while count < rate * seconds:
    due = min(rate * seconds, int((time.time() - began) * rate))
    out = "".join(f"line {i} {time.time():.4f} of a request that took as long as ever\\n"
                  for i in range(count, due))
    sys.stdout.write(out)
    sys.stdout.flush()
    count = due
    time.sleep(0.005)
print("over", flush=True)
time.sleep(100000)
"""
CONFIG = """version: 1
name: logs
registry: ${DEVLOOP_TEST_REGISTRY}
services:
  web: {image: logs-bench/web, build: ., deploy: {manifests: [k8s.yaml]}}
"""
MANIFEST = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: logs-bench/web}]
"""


def peak(pid: int | str = "self") -> float:
    """The most memory that a process ever held, in MB."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the way alone --------------------------------------------------------------------------------


def chunks(lines: int) -> Iterator[bytes]:
    """A kubelet's stream."""
    text = bytearray()
    for i in range(lines):
        seconds, part = divmod(i, 10_000)
        minute, second = divmod(seconds, 60)
        text += (
            f"2026-01-01T00:{minute % 60:02}:{second:02}.{part:04}00000Z line {i} "
            "of a request that took as long as ever\n"
        ).encode()
        if len(text) >= _CHUNK:
            yield bytes(text[:_CHUNK])
            del text[:_CHUNK]
    yield bytes(text)


def feed(kind: Kind, lines: int) -> None:
    """The process under test; its figures go to stderr."""
    stream = list(chunks(lines))
    container = ContainerView(name="web", image="x", state="running", container_id="c1")
    pod = PodView(
        name="web-6f9-abc12",
        namespace="x",
        uid="u",
        phase="Running",
        containers=(container,),
    )
    over = threading.Event()

    def read(
        pod: PodView, container: str, *, since_time: str | None, previous: bool, cancel: Cancel
    ) -> Iterator[bytes]:
        yield from stream
        over.set()
        cancel.wait(1000)

    bus = EventBus()
    sink = make_sink(kind, sys.stdout, env={})
    bus.subscribe("output", sink, batch=sink.batch)
    follower = LogFollower(read, bus.publish, patterns={"web": ("*",)}, rate=10**9)
    before = peak()
    began = time.perf_counter()
    follower.pods_changed("web", (pod,))
    over.wait()
    followed = time.perf_counter() - began
    follower.close()
    bus.close(60)
    took = time.perf_counter() - began
    figures = {"followed": followed, "took": took, "mb": peak() - before}
    sys.stderr.write(json.dumps(figures))


def way(kind: Kind, lines: int) -> dict[str, float]:
    words = [sys.executable, "-m", "tests.bench.logs", "feed", "--kind", kind]
    process = subprocess.Popen(
        [*words, "--lines", str(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    came = sum(b"line " in line for line in process.stdout)
    figures = json.loads(process.stderr.read())
    process.wait()
    return {
        "lines": lines,
        "lines_per_second": round(lines / figures["took"]),
        "shown_percent": round(100 * came / lines, 2),
        "more_mb": round(figures["mb"], 1),
    }


# --- a pod ----------------------------------------------------------------------------------------


def pod(kind: Kind, rate: int, seconds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        root = Path(directory)
        base = os.environ["DEVLOOP_TEST_BASE_IMAGE"]
        (root / "Dockerfile").write_text(
            f'FROM {base}\nCOPY app.py /\nCMD ["python3", "/app.py"]\n'
        )
        app = APP.replace("RATE", str(rate)).replace("SECONDS", str(seconds))
        (root / "app.py").write_text(f"# {time.time()}\n{app}")
        (root / "devloop.yaml").write_text(CONFIG)
        (root / "k8s.yaml").write_text(MANIFEST)
        subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=False)
        process = subprocess.Popen(
            [sys.executable, "-m", "devloop", "dev", "-n", NAMESPACE, "--output", kind],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            return _read(process, rate * seconds)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=10)
            words = ["kubectl", "delete", "namespace", NAMESPACE, "--wait=true"]
            subprocess.run(words, check=True)


def _read(process: subprocess.Popen[bytes], lines: int) -> dict[str, float]:
    assert process.stdout is not None
    wanted = re.compile(rb"line (\d+) ([\d.]+) of")
    numbers: list[int] = []
    late: list[float] = []
    dropped = 0
    began = used = 0.0
    for line in process.stdout:
        match = wanted.search(line)
        if match:
            if not numbers:
                began, used = time.perf_counter(), cpu(process.pid)
            numbers.append(int(match[1]))
            late.append(time.time() - float(match[2]))
        elif b"dropped" in line:
            dropped += 1
        if b"over" in line and numbers:
            break
    took = time.perf_counter() - began
    late.sort()
    return {
        "lines": lines,
        "missing": len(set(range(lines)) - set(numbers)),
        "doubled": len(numbers) - len(set(numbers)),
        "out_of_order": sum(a > b for a, b in itertools.pairwise(numbers)),
        "dropped_notices": dropped,
        "late_ms_p50": round(statistics.median(late) * 1000, 1),
        "late_ms_max": round(late[-1] * 1000, 1),
        "cpu_percent": round(100 * (cpu(process.pid) - used) / took, 1),
        "peak_mb": round(peak(process.pid), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["way", "pod", "feed"])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--kind", choices=["lines", "json"])
    options = parser.parse_args()
    if options.what == "feed":
        feed(options.kind, options.lines)
        return
    kinds: tuple[Kind, ...] = (options.kind,) if options.kind else ("lines", "json")
    for kind in kinds:
        if options.what == "way":
            found = way(kind, options.lines)
        else:
            found = pod(kind, options.rate, options.seconds)
        print(json.dumps({"output": kind, **found}), flush=True)


if __name__ == "__main__":
    main()
