"""From the save of a file to its being served, beside what bare Kubernetes needs, in one run.

usage: python -m tests.bench.served [N] [--only CASE ...] [--record NOTE]
                                                      (in the environment of `script/env`)

Runs `devloop dev` on tests/bench/app in a namespace of its own and times N saves of each case, with
bare replacements of either kind in between: their median is the baseline. A save is timed until a
new connection, tried every 3 ms, is answered with the new content. --record appends the figures to
history.jsonl: ratios to the baselines of the same run are what can be compared with other days and
machines.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from devloop.cluster.api.connection import Connection
from tests.bench.baseline import REST, Answers, Bare, fresh_images, measure, rest

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
HISTORY = HERE / "history.jsonl"
NAMESPACE = "devloop-bench"
NODE_PORT, LOCAL_PORT = 30811, 18311


def node_address() -> str:
    name = os.environ["DEVLOOP_TEST_CONTEXT"].removeprefix("kind-") + "-control-plane"
    shape = "{{.NetworkSettings.Networks.kind.IPAddress}}"
    done = subprocess.run(
        ["docker", "inspect", "-f", shape, name], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class Session:
    """`devloop dev` on a copy of the app, and the edits in it."""

    def __init__(self, directory: Path, replace: str = "auto") -> None:
        self.directory = directory
        self.log = directory.parent / "events.jsonl"
        self._edit = 0
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env |= {"BASE": "python-base:dev", "REPLACE": replace, "PYTHONPATH": str(HERE.parents[1])}
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "devloop", "dev", "-n", NAMESPACE, "--output", "json"],
                cwd=directory,
                env=env,
                stdout=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 120
        while not self.finished():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("devloop did not get ready: " + self.log.read_text()[-2000:])
            time.sleep(0.1)
        time.sleep(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def finished(self) -> list[dict[str, object]]:
        lines = self.log.read_text().splitlines()
        return [e for e in map(json.loads, lines) if e["type"] == "iteration.finished"]

    def source(self) -> tuple[str, float]:
        """Save app.py with another version; what it will answer, and when it was saved."""
        self._edit += 1
        version = f"v{time.time_ns()}-{self._edit}"
        text = (self.directory / "app.py").read_text()
        return version, self._save(
            "app.py", re.sub(r'VERSION = ".*"', f'VERSION = "{version}"', text)
        )

    def message(self) -> tuple[str, float]:
        text = f"m{time.time_ns()}"
        return text, self._save("message.txt", text)

    def _save(self, name: str, text: str) -> float:
        beside = self.directory / f"{name}.tmp~"
        beside.write_text(text)
        beside.replace(self.directory / name)
        return time.monotonic()


def saves(
    edit: Callable[[], tuple[str, float]], url: str, n: int, least: float = REST
) -> list[float]:
    answers = Answers(url)
    taken: list[float] = []
    for _ in range(n):
        text, began = edit()
        taken.append(answers.wait_for(text) - began)
        print(f"{taken[-1]:.3f}", end=" ", flush=True)
        rest(least)
    print()
    return taken


class Noise:
    """A file in .git that is written every 0.3 s."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".git" / "index"
        self._path.parent.mkdir(exist_ok=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            self._path.write_text(str(time.time_ns()))


def touched(session: Session, n: int) -> list[float]:
    """How many of `n` touches without a change built, pushed or deployed anything."""
    before = len(session.finished())
    for _ in range(n):
        os.utime(session.directory / "app.py")
        time.sleep(0.3)
    return [float(sum(e["outcome"] != "unchanged" for e in session.finished()[before:]))]


def baselines(namespace: str, service: str, n: int, found: dict[str, list[float]]) -> None:
    connection = Connection.open(None, namespace)
    bare = Bare(connection, "web")
    for mode in ("in-place", "rolling"):
        print(f"baseline {mode}: ", end="", flush=True)
        images = list(fresh_images(bare.image, "app/message.txt", n))
        found.setdefault(f"baseline {mode}", []).extend(
            measure(bare, Answers(f"{service}/msg"), images, mode)
        )
        print()
    connection.close()


CASES = ("service", "localhost", "5000 files", "git noise", "rolling", "sync", "touch")


def run(n: int, only: tuple[str, ...]) -> dict[str, list[float]]:
    service, local = f"http://{node_address()}:{NODE_PORT}", f"http://127.0.0.1:{LOCAL_PORT}"
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as top:
        directory = Path(top) / "app"
        shutil.copytree(HERE / "app", directory)

        def case(name: str, url: str, edit: str = "source", least: float = REST) -> None:
            if name in only:
                print(f"{name}: ", end="", flush=True)
                found[name] = saves(getattr(session, edit), url, n, least)

        with Session(directory) as session:
            pass
        for name, url in (("service", service), ("localhost", local)):
            if name in only:
                baselines(NAMESPACE, service, n // 4 or 1, found)
                with Session(directory) as session:
                    case(name, url)
        if {"git noise", "sync", "touch"}.intersection(only):
            baselines(NAMESPACE, service, n // 4 or 1, found)
            with Session(directory) as session:
                with Noise(directory):
                    case("git noise", service)
                case("sync", f"{service}/msg", "message", 1.5)
                if "touch" in only:
                    found["touch"] = touched(session, n)
        if "rolling" in only:
            with Session(directory, "rolling") as session:
                case("rolling", service)
        if "5000 files" in only:
            for number in range(5000):
                path = directory / "many" / str(number // 100) / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{number} " * 800)
            with Session(directory) as session:
                case("5000 files", service)
        baselines(NAMESPACE, service, n // 4 or 1, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=20)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--record", metavar="NOTE")
    options = parser.parse_args()
    body = json.dumps(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    ).encode()
    subprocess.run(["kubectl", "apply", "-f", "-"], input=body, check=True)
    load = os.getloadavg()[0]
    found = run(options.n, tuple(options.only))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, middle in medians.items():
        if name == "touch":
            print(f"touch: {middle:.0f} did anything")
            continue
        kind = "rolling" if name == "rolling" else "in-place"
        ratio = middle / medians[f"baseline {kind}"]
        print(f"{name:<16} median {middle:.3f} s   {ratio:.2f} x the {kind} baseline")
    if options.record is not None:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        line = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit.stdout.strip(),
            "note": options.record,
            "load before": round(load, 1),
            "n": options.n,
            "seconds": {k: round(v, 3) for k, v in medians.items() if k != "touch"},
            "samples": {k: [round(v, 3) for v in values] for k, values in found.items()},
        }
        with HISTORY.open("a") as history:
            history.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
