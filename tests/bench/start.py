"""How long a warm `devloop dev` takes from exec to its first line, its session and to watching.

    eval "$(script/env)"; python -m tests.bench.start [--runs 10] [--edit auto|in-place] [--json]

A session on an unchanged tree: everything was built, pushed and deployed by a run before. `first`
is the first byte of `--output lines`, `help` all of `devloop --help`, `started` the
`session.started` event, `settled` the end of the first look at the cluster, after which files are
watched and the deployed image is proven to be the one on disk; `patches` counts what was written
to the Deployment meanwhile. With `--edit`, one file was edited since the session before, and
`ready` and `served` are the times until the iteration's end and until the Service serves it, with
that `deploy.replace`; `run` and `edited run` are whole `devloop run`s, with nothing changed and
after an edit. `python` is the interpreter alone, started and ended: the baseline. `cpu` is what the
process itself has computed until `started` (user and system, on Linux): on a machine that is busy
with something else it tells more than the times do.
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
import threading
import time
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Cluster
from tests.e2e.session import Workspace

NAMESPACE = "start-bench"
DEVLOOP = (sys.executable, "-m", "devloop")
RUN = (*DEVLOOP, "run", "-n", NAMESPACE, "--output", "json")


class Bench:
    def __init__(self, root: Path) -> None:
        self._workspace = Workspace(root)
        self._root = self._workspace.root
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

    def edit(self, version: str) -> None:
        self._workspace.version(version)

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

    def settled(self) -> dict[str, float]:
        began = time.perf_counter()
        process = self._start("dev", "-n", NAMESPACE, "--output", "json")
        assert process.stdout is not None
        started = cpu = 0.0
        for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["type"] == "session.started":
                started, cpu = time.perf_counter() - began, _cpu_ms(process.pid)
            if event["type"] == "iteration.finished":
                if event["outcome"] != "unchanged":
                    raise SystemExit(f"not warm: {event}")
                break
        took = time.perf_counter() - began
        self._end(process)
        return {"started": started * 1000, "cpu": cpu, "settled": took * 1000}

    def edited(self, replace: str, proxy: str, runs: int) -> dict[str, list[float]]:
        """Sessions that each begin with one file edited, the first of them only to deploy."""
        workspace = self._workspace
        config = workspace.read("devloop.yaml").replace("replace: in-place", f"replace: {replace}")
        workspace.save("devloop.yaml", config)
        times: dict[str, list[float]] = {"started": [], "ready": [], "served": []}
        for number in range(runs + 1):
            self.edit(f"v{number}")
            began = time.perf_counter()
            process = self._start("dev", "-n", NAMESPACE, "--output", "json")
            found = self._until_served(process, proxy, f"v{number}", began)
            for name, took in found.items():
                times[name] += [took * 1000] if number else []
            time.sleep(4)  # the image follows
            self._end(process)
        return times

    def _until_served(
        self, process: subprocess.Popen[bytes], proxy: str, wanted: str, began: float
    ) -> dict[str, float]:
        found: dict[str, float] = {}

        def look() -> None:
            cluster = Cluster(NAMESPACE, proxy)
            while cluster.answer() != wanted:
                time.sleep(0.005)
            found["served"] = time.perf_counter() - began

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        assert process.stdout is not None
        for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["type"] == "session.started":
                found["started"] = time.perf_counter() - began
            if event["type"] == "iteration.finished":
                found["ready"] = time.perf_counter() - began
                break
        looking.join(60)
        return found

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=10)

    def whole(self, *words: str) -> float:
        began = time.perf_counter()
        subprocess.run(words, cwd=self._root, env=self._env, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) * 1000


def _cpu_ms(pid: int) -> float:
    """What a process has computed so far; 0 where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def measure(runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        bench = Bench(Path(directory, "app"))
        bench.prepare()
        before = bench.generation()
        times: dict[str, list[float]] = {}
        for _ in range(runs):
            found = {
                "python": bench.whole(sys.executable, "-c", ""),
                "help": bench.whole(*DEVLOOP, "--help"),
                "first": bench.first(),
                **bench.settled(),
                "run": bench.whole(*RUN),
            }
            for name, value in found.items():
                times.setdefault(name, []).append(value)
        patches = bench.generation() - before
        for number in range(runs):
            bench.edit(f"run{number}")
            times.setdefault("edited run", []).append(bench.whole(*RUN))
    subprocess.run(["kubectl", "delete", "namespace", NAMESPACE, "--wait=false"], check=True)
    spread = {
        f"{name}_ms_{word}": round(value, 1)
        for name, values in times.items()
        for word, value in (("min", min(values)), ("p50", statistics.median(values)))
    }
    return {"runs": runs, **spread, "patches": patches}


def measure_edits(runs: int, replace: str) -> dict[str, float | str]:
    words = ["kubectl", "proxy", "--port=0"]
    with (
        tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory,
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as proxy,
    ):
        assert proxy.stdout is not None
        address = "http://" + proxy.stdout.readline().split()[-1]
        subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=False)
        try:
            times = Bench(Path(directory, "app")).edited(replace, address, runs)
        finally:
            proxy.terminate()
            subprocess.run(
                ["kubectl", "delete", "namespace", NAMESPACE, "--wait=false"], check=True
            )
    medians = {f"{name}_ms_p50": round(statistics.median(t), 1) for name, t in times.items()}
    return {"runs": runs, "replace": replace, **medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--edit", choices=["auto", "in-place"])
    options = parser.parse_args()
    found: dict[str, Any] = (
        measure_edits(options.runs, options.edit) if options.edit else {**measure(options.runs)}
    )
    print(json.dumps(found) if options.json else "  ".join(f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
