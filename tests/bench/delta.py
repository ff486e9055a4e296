"""One-file edits under a trailing COPY, from the scan to the digest, against a real registry.

    python -m tests.bench.delta [--registry localhost:5005] [--base python-base:dev]
                                [--files 5000] [--edits 30] [--json]

Builds the image once in full, then times deltas: `scan` (with the hint), `make` (planning, reading,
the layer, the documents), `send` (the uploads and the manifest) and `total` without the scan; the
same with an added file and with a removed one, which makes the COPY's layer again. `look` is what
reading the full image's layers took in the background. Milliseconds, p50 and p95.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.builders.delta.builder import DeltaBuilder
from devloop.builders.select import make_builder
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.model import PushTarget, Step
from devloop.registry.client import RegistryClient
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.errors import Diagnosis
    from devloop.model import StepOutcome

DOCKERFILE = "FROM {base}\nRUN true\nWORKDIR /srv/app\nCOPY . .\nCMD python3 -u main.py\n"
# So big that 5,000 of them are 20 MB.
SIZE = 4096


class Clock:
    """A reporter that notes when the steps ended."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.ended: dict[Step, float] = {}
        self.words = ""

    def started(self, step: Step) -> None: ...

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None: ...

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self.ended[step] = (time.perf_counter() - self.began) * 1000
        self.words = self.words or detail

    def diagnostic(self, diagnosis: Diagnosis) -> None: ...


def run(registry: str, base: str, files: int, edits: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as name, RegistryClient(registry) as client:
        root = Path(name)
        context = root / "app"
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE.format(base=base))
        (context / "main.py").write_text("print(0)\n")
        for number in range(edits):
            (context / f"old{number}.py").write_text("old\n")
        for number in range(files):
            directory = context / f"directory{number // 100}"
            directory.mkdir(exist_ok=True)
            (directory / f"file{number}").write_bytes(os.urandom(SIZE))
        service = Service(
            name="web",
            image=f"devloop-test/bench-{uuid.uuid4().hex[:8]}",
            build=Build(context=context, dockerfile=context / "Dockerfile"),
            deploy=Deploy(workload_name="web"),
        )
        project = Project(
            name="bench", root=root, file=root / "devloop.yaml", services={"web": service}
        )
        source = ServiceSource(service, root)
        builder = make_builder(
            service, project, PushTarget(push=registry), source.written_since, registry=client
        )
        assert isinstance(builder, DeltaBuilder)
        try:
            return _measure(builder, source, context, edits)
        finally:
            builder.close()


def _measure(
    builder: DeltaBuilder, source: ServiceSource, context: Path, edits: int
) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {}

    def build(kind: str, path: Path, expected: str) -> None:
        scan = source.scan(frozenset({path}), Cancel())
        clock = Clock()
        builder.build(scan, clock, Cancel())
        total = (time.perf_counter() - clock.began) * 1000
        assert clock.words.startswith(expected), clock.words
        make, send = clock.ended[Step.BUILD], clock.ended[Step.PUSH]
        for name, value in {
            "scan": scan.ms, "make": make, "send": send - make, "total": total
        }.items():  # fmt: skip
            found.setdefault(f"{kind} {name}", []).append(value)
        time.sleep(0.2)

    build("full", context, "")
    found["look"] = [_ms(builder.settle)]
    for number in range(edits):
        (context / "main.py").write_text(f"print({number + 1})\n")
        build("edit", context / "main.py", "delta: 1 file")
    for number in range(max(1, edits // 3)):
        (context / f"new{number}.py").write_text("new\n")
        build("add", context / f"new{number}.py", "delta: ")
    for number in range(max(1, edits // 3)):
        (context / f"old{number}.py").unlink()
        build("remove", context / f"old{number}.py", "1 layer made again")
    return {name: _quantiles(values) for name, values in found.items()}


def _ms(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--registry", default="localhost:5005")
    parser.add_argument("--base", default="python-base:dev")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--edits", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run(options.registry, options.base, options.files, options.edits)
    if options.json:
        print(json.dumps({"files": options.files, "ms": found}))
        return
    for name, values in found.items():
        print(f"{name:14} p50 {values['p50']:8.1f}   p95 {values['p95']:8.1f}")


if __name__ == "__main__":
    main()
