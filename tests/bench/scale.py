"""One session with many services: start, first deploy, idle cost, one edit, and a burst of hints.

    python -m tests.bench.scale hints [--services 100] [--paths 5000]
    eval "$(script/env)"; python -m tests.bench.scale session [--services 100] [--idle 30]

`session` runs a real `devloop dev`; its Deployments have no replicas, as a small node has no room
for so many pods. `hints` asks each source of a session about each path of a burst, as the watcher
and the engine do, and scans all services at once.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from devloop.base.cancel import Cancel
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.manifests.files import FilesRendering
from devloop.watch.source import ServiceSource
from tests.bench.logs import cpu, peak

NAMESPACE = "scale-bench"
MANIFEST = """apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: app, image: scale-bench/{name}}}]}}
"""


def make_project(root: Path, services: int, dockerfile: str) -> list[str]:
    names = [f"svc-{index:03}" for index in range(services)]
    entries = []
    for name in names:
        directory = root / name
        (directory / "src").mkdir(parents=True)
        (directory / "Dockerfile").write_text(dockerfile)
        (directory / "src/app.txt").write_text(f"{name} {time.time()}\n")
        (directory / "k8s.yaml").write_text(MANIFEST.format(name=name))
        build = f"image: scale-bench/{name}, build: {name}"
        entries.append(f"  {name}: {{{build}, deploy: {{manifests: [{name}/k8s.yaml]}}}}\n")
    head = "version: 1\nname: scale\nregistry: ${DEVLOOP_TEST_REGISTRY:-localhost:1}\nservices:\n"
    (root / "devloop.yaml").write_text(head + "".join(entries))
    return names


# --- hints ----------------------------------------------------------------------------------------


def hints(services: int, paths: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        root = Path(directory)
        names = make_project(root, services, "FROM scratch\nCOPY . /\n")
        sources = [
            ServiceSource(
                Service(
                    name=name,
                    image=name,
                    build=Build(context=root / name, dockerfile=root / name / "Dockerfile"),
                    deploy=Deploy(workload_name=name),
                ),
                root,
                FilesRendering([str(root / name / "k8s.yaml")]),
            )
            for name in names
        ]
        cancel = Cancel()
        began = time.perf_counter()
        sources[0].scan(None, cancel)
        one = time.perf_counter() - began
        began = time.perf_counter()
        threads = [threading.Thread(target=s.scan, args=(None, cancel)) for s in sources[1:]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        all_scans = time.perf_counter() - began
        burst = [root / names[i % services] / f"src/f{i}.txt" for i in range(paths)]
        began = time.perf_counter()
        mine = sum(source.concerns(path) for path in burst for source in sources)
        asked = time.perf_counter() - began
        assert mine == paths
        began = time.perf_counter()
        for source in sources:
            source.directories()
        walked = time.perf_counter() - began
    return {
        "services": services,
        "first_scan_ms": round(one * 1000, 2),
        "all_scans_ms": round(all_scans * 1000, 1),
        "burst_ms": round(asked * 1000, 1),
        "directories_ms": round(walked * 1000, 1),
    }


# --- a session ------------------------------------------------------------------------------------


class Dev:
    def __init__(self, root: Path) -> None:
        self._began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "devloop", "dev", "-n", NAMESPACE, "--output", "json"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._events: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put((time.perf_counter(), json.loads(line)))

    def finished(self, count: int) -> tuple[float, set[str], set[str]]:
        """Wait for the end of so many iterations: when, of which services, with what outcomes."""
        services: set[str] = set()
        outcomes: set[str] = set()
        when = 0.0
        while count:
            when, event = self._events.get(timeout=300)
            if event["type"] == "diagnostic":
                print(event["code"], event["message"], file=sys.stderr)
            if event["type"] == "iteration.finished":
                count -= 1
                services.add(event["service"])
                outcomes.add(event["outcome"])
        return when - self._began, services, outcomes

    def end(self) -> float:
        began = time.perf_counter()
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(10)
        self._reader.join()
        return time.perf_counter() - began

    def status(self, key: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition(f"{key}:")[2].split()[0])

    def sockets(self) -> int:
        directory = Path(f"/proc/{self.process.pid}/fd")
        return sum(str(fd.readlink()).startswith("socket:") for fd in directory.iterdir())


def session(services: int, idle: int) -> dict[str, float]:
    base = os.environ["DEVLOOP_TEST_BASE_IMAGE"]
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        root = Path(directory)
        names = make_project(root, services, f"FROM {base}\nWORKDIR /app\nCOPY . .\n")
        subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=False)
        dev = Dev(root)
        try:
            first, who, outcomes = dev.finished(services)
            assert who == set(names)
            assert outcomes == {"ready"}, outcomes
            time.sleep(3)
            threads, resident = dev.status("Threads"), dev.status("VmRSS") / 1024
            sockets = dev.sockets()
            used, began = cpu(dev.process.pid), time.perf_counter()
            time.sleep(idle)
            share = (cpu(dev.process.pid) - used) / (time.perf_counter() - began)
            (root / names[7] / "src/app.txt").write_text("edited\n")
            began = time.perf_counter()
            _, who, outcomes = dev.finished(1)
            edited = time.perf_counter() - began
            assert (who, outcomes) == ({names[7]}, {"ready"}), (who, outcomes)
            most = peak(dev.process.pid)
        finally:
            ended = dev.end()
        again = Dev(root)
        try:
            warm, _, outcomes = again.finished(services)
            assert outcomes == {"unchanged"}, outcomes
        finally:
            again.end()
            words = ["kubectl", "delete", "namespace", NAMESPACE, "--wait=true"]
            subprocess.run(words, check=True)
    return {
        "services": services,
        "first_deploy_s": round(first, 2),
        "warm_s": round(warm, 2),
        "edit_s": round(edited, 2),
        "end_s": round(ended, 2),
        "threads": threads,
        "sockets": sockets,
        "rss_mb": round(resident, 1),
        "peak_mb": round(most, 1),
        "idle_percent": round(100 * share, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["hints", "session"])
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--paths", type=int, default=5000)
    parser.add_argument("--idle", type=int, default=30)
    options = parser.parse_args()
    if options.what == "hints":
        print(json.dumps(hints(options.services, options.paths)))
    else:
        print(json.dumps(session(options.services, options.idle)))


if __name__ == "__main__":
    main()
