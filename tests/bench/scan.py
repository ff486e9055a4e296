"""A scan of a big tree: cold (nothing known), warm (all of it again) and after one change.

    python -m tests.bench.scan [--files 20000] [--repeats 9] [--json]

`cold` is a first `ServiceSource.scan` with the files in the page cache, `one` everything between a
hint and the fingerprint (changes, digests, manifests), `digest` the hashing of the same files
alone, in one thread: a baseline of a kind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.manifests.files import FilesRendering
from devloop.watch.source import ServiceSource
from tests.bench.detect import make_tree

if TYPE_CHECKING:
    from collections.abc import Callable


def measure(files: int, repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="devloop-bench-") as directory:
        root = Path(directory, "project")
        path = make_tree(root, files)
        # Older than the time within which a file is not trusted to have settled.
        old = time.time() - 60
        for top, directories, names in os.walk(root):
            for name in (*directories, *names):
                os.utime(f"{top}/{name}", (old, old))
        time.sleep(2.5)
        service = Service(
            name="web",
            image="shop/web",
            build=Build(context=root, dockerfile=root / "Dockerfile"),
            deploy=Deploy(workload_name="web"),
        )
        cancel = Cancel()
        source = ServiceSource(service, root, FilesRendering([str(root / "k8s/*.yaml")]))

        def cold() -> None:
            nonlocal source
            source = ServiceSource(service, root, FilesRendering([str(root / "k8s/*.yaml")]))
            source.scan(None, cancel)

        def one() -> None:
            scan = source.scan(frozenset({path}), cancel)
            assert len(scan.changed) == 1

        def digest() -> None:
            for top, _, names in os.walk(root):
                for name in names:
                    with open(f"{top}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
                        hashlib.sha256(file.read()).digest()

        found: dict[str, list[float]] = {}

        def take(name: str, work: Callable[[], object]) -> None:
            began = time.perf_counter()
            work()
            found.setdefault(name, []).append((time.perf_counter() - began) * 1000)

        for index in range(repeats):
            take("digest", digest)
            take("cold", cold)
            take("warm", lambda: source.scan(None, cancel))
            path.write_text(f"edit {index}")
            take("one", one)
    return {"files": files, "repeats": repeats} | {
        f"{name}_ms_{word}": round(value, 2)
        for name, values in found.items()
        for word, value in (("min", min(values)), ("p50", statistics.median(values)))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.files, options.repeats)
    print(json.dumps(found) if options.json else "  ".join(f"{k} {v:g}" for k, v in found.items()))


if __name__ == "__main__":
    main()
