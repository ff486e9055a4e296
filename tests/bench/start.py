"""How long a warm `devloop dev` takes from exec to its first line, its session and to watching.

    eval "$(script/env)"; python -m tests.bench.start [--runs 10] [--json]

A session on an unchanged tree: everything was built, pushed and deployed by a run before. `first`
is the first byte of `--output lines`, `help` all of `devloop --help`, `started` the
`session.started` event, `settled` the end of the first look at the cluster, after which files are
watched and the deployed image is proven to be the one on disk; `patches` counts what was written
to the Deployment meanwhile. `python` is the interpreter alone, started and ended: the baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.e2e.session import Workspace

NAMESPACE = "start-bench"
DEVLOOP = (sys.executable, "-m", "devloop")


class Bench:
    def __init__(self, root: Path) -> None:
        self._root = Workspace(root).root
        self._env = {
            **os.environ,
            "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
            "IMAGE": f"{NAMESPACE}/web",
            "PORT": "18473",
        }
        # As it is installed: compiled once and not at each start.
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*DEVLOOP, *words],
            cwd=self._root,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def prepare(self) -> None:
        subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=False)
        done = subprocess.run(
            [*DEVLOOP, "run", "-n", NAMESPACE, "--output", "lines"],
            cwd=self._root,
            env=self._env,
            check=False,
        )
        if done.returncode:
            raise SystemExit("the first deploy failed")

    def generation(self) -> int:
        words = ["kubectl", "-n", NAMESPACE, "get", "deployment", "web", "-o", "json"]
        found = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        return int(found["metadata"]["generation"])

    def first(self) -> float:
        began = time.perf_counter()
        process = self._start("dev", "-n", NAMESPACE, "--output", "lines")
        assert process.stdout is not None
        process.stdout.read(1)
        took = time.perf_counter() - began
        self._end(process)
        return took * 1000

    def settled(self) -> tuple[float, float]:
        began = time.perf_counter()
        process = self._start("dev", "-n", NAMESPACE, "--output", "json")
        assert process.stdout is not None
        started = 0.0
        for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["type"] == "session.started":
                started = time.perf_counter() - began
            if event["type"] == "iteration.finished":
                if event["outcome"] != "unchanged":
                    raise SystemExit(f"not warm: {event}")
                break
        took = time.perf_counter() - began
        self._end(process)
        return started * 1000, took * 1000

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=10)

    def whole(self, *words: str) -> float:
        began = time.perf_counter()
        subprocess.run(words, cwd=self._root, env=self._env, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) * 1000


def measure(runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        bench = Bench(Path(directory, "app"))
        bench.prepare()
        before = bench.generation()
        times: dict[str, list[float]] = {}
        for _ in range(runs):
            started, settled = bench.settled()
            found = {
                "python": bench.whole(sys.executable, "-c", ""),
                "help": bench.whole(*DEVLOOP, "--help"),
                "first": bench.first(),
                "started": started,
                "settled": settled,
            }
            for name, value in found.items():
                times.setdefault(name, []).append(value)
        patches = bench.generation() - before
    subprocess.run(["kubectl", "delete", "namespace", NAMESPACE, "--wait=false"], check=True)
    spread = {
        f"{name}_ms_{word}": round(value, 1)
        for name, values in times.items()
        for word, value in (("min", min(values)), ("p50", statistics.median(values)))
    }
    return {"runs": runs, **spread, "patches": patches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.runs)
    print(json.dumps(found) if options.json else "  ".join(f"{k} {v:g}" for k, v in found.items()))


if __name__ == "__main__":
    main()
