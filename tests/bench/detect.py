"""From the atomic save of a file to the engine's decision, with real files and the real watcher.

    python -m tests.bench.detect [--saves 200] [--tree small] [--json]

Each figure is the time from `os.replace` to the `iteration.started` event ("decided") and to the
first line of the build worker ("build"), for a small tree, a big one, one in which git's files are
rewritten all the time, and one whose service writes 10,000 log lines a second. The builder and the
deployer do nothing. `idle` is the share of one core that it costs while nothing is saved.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.engine.bus import EventBus
from devloop.engine.loop import Engine
from devloop.engine.tasks import ServicePorts
from devloop.errors import ExitStatus
from devloop.events import IterationFinished, IterationStarted
from devloop.logs import LogFollower
from devloop.manifests.files import FilesRendering
from devloop.model import (
    ContainerView,
    Deployed,
    DeployedWorkload,
    ImageRef,
    Outcome,
    PodView,
    Served,
    WorkloadRef,
)
from devloop.ui import make_sink
from devloop.watch.hints import WatchHints
from devloop.watch.source import ServiceSource
from tests.bench.logs import chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Reporter
    from devloop.events import Event
    from devloop.model import Scan, Standing


class Loop:
    """An engine over real files whose builds and deploys are over at once."""

    def __init__(self, root: Path) -> None:
        service = Service(
            name="web",
            image="shop/web",
            build=Build(context=root, dockerfile=root / "Dockerfile"),
            deploy=Deploy(workload_name="web"),
        )
        source = ServiceSource(service, root, FilesRendering([str(root / "k8s/*.yaml")]))
        self.decided: list[float] = []
        self.built: list[float] = []
        self.scans: list[float] = []
        self.outcomes: list[Outcome] = []
        self._watching = threading.Event()
        self.engine = Engine(
            {"web": ServicePorts(source=source, builder=self, deployer=self)},
            mode="dev",
            root=root,
            publish=self._take,
            hints=self._Watched(WatchHints([source]), self._watching),
        )
        self._thread = threading.Thread(target=self.engine.run)

    class _Watched:
        def __init__(self, inner: WatchHints, watching: threading.Event) -> None:
            self._inner = inner
            self._watching = watching

        def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
            for hint in self._inner.hints(cancel):
                yield hint
                self._watching.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            self._watching.wait()
            while not self.outcomes:
                time.sleep(0.01)
            time.sleep(0.1)
            yield
        finally:
            self.engine.stop(ExitStatus.DONE)
            self._thread.join()

    def _take(self, event: Event) -> None:
        if isinstance(event, IterationStarted):
            self.decided.append(time.perf_counter())
        elif isinstance(event, IterationFinished):
            self.outcomes.append(event.outcome)

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        self.built.append(time.perf_counter())
        self.scans.append(scan.ms)
        digest = f"sha256:{scan.fingerprint.build}"
        return ImageRef(repository="r/web", tag="t", digest=digest)

    def wrote(self, before: Scan, after: Scan) -> bool:
        return False

    def may_differ(self, before: Scan, after: Scan) -> bool:
        return True

    def deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        ref = WorkloadRef("deployment", "web", "default")
        web = DeployedWorkload(
            workload=ref, uid="u", generation=1, image=image, containers=("web",)
        )
        return Deployed(image=image, workloads=(web,))

    def go_back(
        self,
        image: ImageRef,
        untouched: Collection[str] | None,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Deployed:
        return self.deploy(image, reporter, cancel)

    def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        return Served(image=deployed.image, pods=("web-1",))

    def await_recovery(self, deployed: Deployed, cancel: Cancel) -> Served:
        raise NotImplementedError

    def await_cause(self, cancel: Cancel) -> str | None:
        raise NotImplementedError

    def rollback(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> None:
        raise AssertionError("nothing fails here")

    def adopt(self, image: ImageRef, cancel: Cancel) -> str | None:
        raise AssertionError("nothing is synced here")

    def standing(self, images: Mapping[str, ImageRef], cancel: Cancel) -> Standing | str:
        raise AssertionError("nothing is synced here")

    def recreate(self, deployed: Deployed, pods: Sequence[str], cancel: Cancel) -> None:
        raise AssertionError("nothing is synced here")


def make_tree(root: Path, files: int) -> Path:
    """A project of `files` source files; the one to edit."""
    (root / "k8s").mkdir(parents=True)
    (root / "k8s/web.yaml").write_text("kind: Deployment\n")
    (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (root / ".dockerignore").write_text("node_modules\n*.log\n")
    (root / ".git").mkdir()
    for index in range(files):
        directory = root / f"src/p{index // 100}"
        if index % 100 == 0:
            directory.mkdir(parents=True)
        (directory / f"m{index}.py").write_text(f"value = {index}\n" * 20)
    return root / "src/p0/m0.py"


def save(path: Path, text: str) -> float:
    """Save as most editors do; when the new file was in place."""
    temporary = path.with_name(f".{path.name}.tmp~")
    temporary.write_text(text)
    began = time.perf_counter()
    os.replace(temporary, path)  # noqa: PTH105 - nothing between the two moments
    return began


@contextlib.contextmanager
def flood() -> Iterator[None]:
    """10,000 log lines a second on their way from a follower to an output."""
    lines = list(chunks(100_000))
    container = ContainerView(name="web", image="x", state="running", container_id="c1")
    pod = PodView(name="web-1", namespace="x", uid="u", phase="Running", containers=(container,))

    def read(
        pod: PodView, container: str, *, since_time: str | None, previous: bool, cancel: Cancel
    ) -> Iterator[bytes]:
        pace = 10 / len(lines)
        for chunk in itertools.cycle(lines):
            yield chunk
            if cancel.wait(pace):
                return

    bus = EventBus()
    with Path(os.devnull).open("w") as nowhere:
        sink = make_sink("json", nowhere, env={})
        bus.subscribe("output", sink, batch=sink.batch)
        follower = LogFollower(read, bus.publish, patterns={"web": ("*",)}, rate=10**9)
        follower.pods_changed("web", (pod,))
        try:
            yield
        finally:
            follower.close()
            bus.close()


def measure(files: int, saves: int, *, noise: bool = False, logs: bool = False) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        root = Path(directory, "project")
        path = make_tree(root, files)
        loop = Loop(root)
        stop = threading.Event()

        def rewrite() -> None:
            count = 0
            while not stop.wait(0.3):
                count += 1
                (root / ".git/FETCH_HEAD").write_text(str(count))

        noisy = threading.Thread(target=rewrite)
        with loop.running(), flood() if logs else contextlib.nullcontext():
            if noise:
                noisy.start()
            before = time.process_time()
            began = time.monotonic()
            time.sleep(3)
            idle = (time.process_time() - before) / (time.monotonic() - began)
            decided, built, scans = _save_often(loop, path, saves)
            stop.set()
        if noise:
            noisy.join()
        extra = len(loop.outcomes) - 1 - saves
    return {
        "files": files,
        "saves": saves,
        **_spread("decided_ms", decided),
        **_spread("build_ms", built),
        **_spread("scan_ms", scans),
        "extra_iterations": extra,
        "idle_percent": round(idle * 100, 2),
    }


def _save_often(loop: Loop, path: Path, saves: int) -> tuple[list[float], list[float], list[float]]:
    decided, built = [], []
    for index in range(saves):
        count = len(loop.built)
        outcomes = len(loop.outcomes)
        began = save(path, f"edit {index}")
        while len(loop.outcomes) == outcomes:
            time.sleep(0.002)
        decided.append((loop.decided[-1] - began) * 1000)
        built.append((loop.built[count] - began) * 1000)
        # Not in step with anything that wakes at even times.
        time.sleep(0.05 + 0.013 * (index % 7))
    return decided, built, loop.scans[-saves:]


def _spread(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"{name}_p50": round(statistics.median(ordered), 2),
        f"{name}_p95": round(ordered[int(len(ordered) * 0.95)], 2),
        f"{name}_max": round(ordered[-1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=200)
    parser.add_argument("--tree", action="append", choices=["small", "big", "noisy", "logs"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    trees: dict[str, Callable[[], dict[str, float]]] = {
        "small": lambda: measure(20, options.saves),
        "big": lambda: measure(5000, options.saves),
        "noisy": lambda: measure(20, options.saves, noise=True),
        "logs": lambda: measure(20, options.saves, logs=True),
    }
    for name in options.tree or trees:
        found = trees[name]()
        if options.json:
            print(json.dumps({"tree": name, **found}), flush=True)
        else:
            words = "  ".join(f"{key} {value:g}" for key, value in found.items())
            print(f"{name:6} {words}", flush=True)


if __name__ == "__main__":
    main()
