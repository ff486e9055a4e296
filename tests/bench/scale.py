"""One session with many services: start, first deploy, idle cost, one edit, and a burst of hints.

    python -m tests.bench.scale hints [--services 100] [--paths 5000]
    eval "$(script/env)"; python -m tests.bench.scale session [--services 100] [--pods 0] ...

`session` runs a real `devloop dev`. Its Deployments have no replicas, as a small node has no room
for so many pods; with `--pods` (30 services with one each, say) each serves HTTP, has a port
forwarded, and an edit of one must leave the pods of all others alone. `hints` asks each source of a
session about each path of a burst, as the watcher and the engine do, and scans all at once.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
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
  replicas: {pods}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: app
          image: scale-bench/{name}
          readinessProbe: {{httpGet: {{path: /src/app.txt, port: 8080}}, periodSeconds: 5}}
"""
_COPY = "WORKDIR /app\nCOPY . .\n"
_SERVE = 'CMD ["busybox", "httpd", "-f", "-p", "8080"]\n'
_FIRST_PORT = 20_000


def make_project(root: Path, services: int, dockerfile: str, pods: int = 0) -> list[str]:
    names = [f"svc-{index:03}" for index in range(services)]
    entries = []
    for index, name in enumerate(names):
        directory = root / name
        (directory / "src").mkdir(parents=True)
        (directory / "Dockerfile").write_text(dockerfile)
        (directory / "src/app.txt").write_text(f"{name} {time.time()}\n")
        (directory / "k8s.yaml").write_text(MANIFEST.format(name=name, pods=pods))
        rest = f"image: scale-bench/{name}, build: {name}, deploy: {{manifests: [{name}/k8s.yaml]}}"
        rest += f', ports: ["{_FIRST_PORT + index}:8080"]' if pods else ""
        entries.append(f"  {name}: {{{rest}}}\n")
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
        self._begun: set[str] = set()
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
            self._note(event)
            if event["type"] == "diagnostic":
                print(event["code"], event["message"], file=sys.stderr)
            if event["type"] == "iteration.finished":
                count -= 1
                services.add(event["service"])
                outcomes.add(event["outcome"])
        return when - self._began, services, outcomes

    def begun(self) -> set[str]:
        """Of which services iterations have begun that were not those at the start."""
        while not self._events.empty():
            self._note(self._events.get()[1])
        return self._begun

    def _note(self, event: dict[str, Any]) -> None:
        if event["type"] == "iteration.started" and event["trigger"]["kind"] != "start":
            self._begun.add(event["service"])

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


def running() -> dict[str, set[tuple[str, int]]]:
    """The pods of each service: uid and restarts."""
    words = ["kubectl", "-n", NAMESPACE, "get", "pods", "-o", "json"]
    listed = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    found: dict[str, set[tuple[str, int]]] = {}
    for pod in listed["items"]:
        if "deletionTimestamp" not in pod["metadata"]:
            restarts = sum(c["restartCount"] for c in pod["status"].get("containerStatuses", ()))
            own = found.setdefault(pod["metadata"]["labels"]["app"], set())
            own.add((pod["metadata"]["uid"], restarts))
    return found


def served(index: int) -> str:
    url = f"http://127.0.0.1:{_FIRST_PORT + index}/src/app.txt"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def session(services: int, idle: int, pods: int) -> dict[str, float]:
    # One that is small enough to run so often.
    base = "busybox-base:dev" if pods else os.environ["DEVLOOP_TEST_BASE_IMAGE"]
    dockerfile = f"FROM {base}\n{_COPY}{_SERVE if pods else ''}"
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        root = Path(directory)
        names = make_project(root, services, dockerfile, pods)
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
            before = running()
            edits = []
            for index in range(min(services, 8) if pods else 1):
                began = time.perf_counter()
                (root / names[index] / "src/app.txt").write_text("edited\n")
                _, who, outcomes = dev.finished(1)
                edits.append(time.perf_counter() - began)
                assert (who, outcomes) == ({names[index]}, {"ready"}), (who, outcomes)
                assert not pods or served(index) == "edited\n"
            edited = statistics.median(edits)
            # What follows the hot saves, an image of each, touches no other either.
            time.sleep(5 if pods else 0)
            after = running()
            assert {n: after.get(n) for n in names[8:]} == {n: before.get(n) for n in names[8:]}
            assert dev.begun() == set(names[: len(edits)])
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
        "pods": pods,
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
    parser.add_argument("--pods", type=int, default=0)
    options = parser.parse_args()
    if options.what == "hints":
        print(json.dumps(hints(options.services, options.paths)))
    else:
        print(json.dumps(session(options.services, options.idle, options.pods)))


if __name__ == "__main__":
    main()
