"""Projects of Skaffold's shapes from an unchanged skaffold.yaml: served, edited, served again.

    eval "$(script/env)"; python -m tests.bench.skaffold_shapes [--show] [SHAPE ...]

For each shape of tests/support/skaffold_shapes a namespace and one `devloop dev --trust`: `first`
is from its start until every Service answers, `edit` from each save until the Service answers it,
in seconds. `said` are the warnings of the session: what of the skaffold.yaml is not used and
matters. What a shape needs and is not here (an npm registry, helm) is said, and the shape left out.
`--show` prints each session's events that are no log line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.conftest import Cluster
from tests.e2e.session import Devloop
from tests.support.machine import bases, images, languages, shell
from tests.support.skaffold_shapes import SHAPES, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 180
MADE = {
    "busybox-base:dev": bases.busybox_base,
    "java-base:dev": languages.java,
    "node-base:dev": languages.node,
    "ruby-base:dev": languages.ruby,
}


@dataclass(kw_only=True)
class Run:
    """What one shape gave: seconds, and what was said or went wrong."""

    first: float = 0
    edits: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    wrong: str = ""


class Runner:
    """Runs shapes one after the other, through one `kubectl proxy`."""

    def __init__(self, proxy: str, *, show: bool) -> None:
        self._proxy = proxy
        self._show = show

    def run(self, shape: Shape, root: Path) -> Run:
        """One session on a project of the shape in the empty directory `root`."""
        found = Run()
        if missing := self._missing(shape):
            found.wrong = f"left out: no {missing}"
            return found
        shape.write(root)
        if shape.prepare:
            done = subprocess.run(
                shape.prepare, cwd=root, check=False, capture_output=True, timeout=300
            )
            if done.returncode:
                found.wrong = f"left out: `{shape.prepare[0]}` failed"
                return found
        cluster = Cluster(f"shape-{shape.name}", self._proxy)
        kubectl("create", "namespace", cluster.namespace)
        session = Devloop(
            *("dev", "--trust", "--namespace", cluster.namespace),
            cwd=root,
            env={"DEVLOOP_REGISTRY": os.environ["DEVLOOP_TEST_REGISTRY"], **shape.env},
        )
        try:
            self._measure(shape, root, session, cluster, found)
        finally:
            session.interrupt()
            found.said = [
                f"{each['message']}"
                for each in session.of("diagnostic")
                if each["severity"] in ("warning", "error")
            ]
            if self._show or found.wrong:
                print(*shown(session), sep="\n", file=sys.stderr)
            session.close()
            kubectl("delete", "namespace", cluster.namespace, "--wait=false")
        return found

    def _missing(self, shape: Shape) -> str:
        for each in shape.needs:
            if each in MADE:
                try:
                    images.ensure(MADE[each]())
                except shell.MachineError:
                    return each
            elif shutil.which(each) is None:
                return each
        return ""

    def _measure(
        self, shape: Shape, root: Path, session: Devloop, cluster: Cluster, found: Run
    ) -> None:
        began = time.monotonic()
        for service, answer in shape.first.items():
            if not served(session, cluster, service, "/", answer):
                found.wrong = f"{service} does not serve {answer!r}"
                return
        found.first = time.monotonic() - began
        for edit in shape.edits:
            time.sleep(1)
            path = root / edit.file
            text = path.read_text()
            assert edit.old in text
            temporary = path.with_name(f".{path.name}~")
            temporary.write_text(text.replace(edit.old, edit.new))
            temporary.chmod(path.stat().st_mode)
            began = time.monotonic()
            temporary.replace(path)
            if not served(session, cluster, edit.service, edit.path, edit.served):
                found.wrong = f"{edit.service} does not serve {edit.served!r} after {edit.file}"
                return
            found.edits.append(time.monotonic() - began)


def served(session: Devloop, cluster: Cluster, service: str, path: str, wanted: str) -> bool:
    """Wait until the Service's answer has `wanted` in it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while wanted not in (cluster.answer(path, service) or ""):
        if time.monotonic() > deadline or session.process.poll() is not None:
            return False
        time.sleep(0.02)
    return True


def shown(session: Devloop) -> Iterator[str]:
    """The events without log lines, and what went to standard error."""
    for event in session.events:
        if event["type"] not in ("log", "pod.changed", "step.progress"):
            yield json.dumps(event)
    yield from session.stderr


def kubectl(*words: str) -> None:
    """Run kubectl."""
    subprocess.run(["kubectl", *words], check=True, timeout=60, stdout=subprocess.DEVNULL)


def main() -> int:
    """Print the table; 1 where a shape did not come through."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", choices=[*SHAPES, []])
    parser.add_argument("--show", action="store_true")
    flags = parser.parse_args()
    bad = False
    words = ["kubectl", "proxy", "--port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        runner = Runner(f"http://{proxy.stdout.readline().split()[-1]}", show=flags.show)
        try:
            print(f"{'shape':22} {'first':>6} {'edit':>13}  said", flush=True)
            for name in flags.shapes or SHAPES:
                with tempfile.TemporaryDirectory() as directory:
                    run = runner.run(SHAPES[name], Path(directory))
                edits = " ".join(f"{each:.2f}" for each in run.edits)
                said = "; ".join(filter(None, [run.wrong, *dict.fromkeys(run.said)])) or "-"
                print(f"{name:22} {run.first:6.1f} {edits:>13}  {said}", flush=True)
                bad = bad or bool(run.wrong)
        finally:
            proxy.terminate()
    return bad


if __name__ == "__main__":
    sys.exit(main())
