"""A chart as a release of Helm: installed, upgraded, rolled back and removed by the user's own
`helm`, with devloop's images in it (see post_render.py).

What there was before devloop is written down before the first upgrade, so that `down` and `restore`
know what is theirs to undo.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import StateFile
from devloop.errors import Code, DevloopError
from devloop.manifests import tools
from devloop.manifests.helm import HelmRendering

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.base.process import Completed
    from devloop.config.charts import Chart
    from devloop.engine.ports import Pin


# Helm marks a release that is interrupted as failed, so that the next upgrade is let through; that
# takes a moment.
_GRACE = 5.0
_ASK_LIMIT = 30.0
_POLL = 0.05
# Helm refuses a second change of a release, as of two services that share a chart.
_LOCKS: dict[tuple[str, str, str], threading.Lock] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class HelmRelease:
    """The release of `chart` in one context and namespace; see engine.ports.Release."""

    chart: Chart
    context: str
    namespace: str
    state_dir: Path

    @property
    def name(self) -> str:
        return self.chart.release

    def upgrade(self, pins: Iterable[Pin], *, timeout: float, cancel: Cancel) -> None:
        """Install it, or upgrade it. Raises manifests/*, env/tool-missing, cluster/rejected,
        config/not-supported."""
        self._refuse_newer(cancel)
        lock = _LOCKS.setdefault((self.context, self.namespace, self.name), threading.Lock())
        while not lock.acquire(timeout=_POLL):
            cancel.check()
        try:
            self._upgrade(pins, timeout, cancel)
        finally:
            lock.release()

    def _upgrade(self, pins: Iterable[Pin], timeout: float, cancel: Cancel) -> None:
        self._remember(cancel)
        rendering = HelmRendering(self.chart, self.namespace)
        with tempfile.TemporaryDirectory(prefix="devloop-release-") as directory:
            pinned = Path(directory, "pins.json")
            pinned.write_text(json.dumps([asdict(pin) for pin in pins]), encoding="utf-8")
            program = Path(directory, "post-render")
            call = [sys.executable, "-P", "-m", "devloop", "postrender", str(pinned)]
            program.write_text(f"#!/bin/sh\nexec {shlex.join(call)}\n", encoding="utf-8")
            program.chmod(0o700)
            argv = ["upgrade", "--install", self.name, *rendering.arguments()]
            argv += ["--post-renderer", str(program), "--timeout", f"{timeout:g}s"]
            try:
                self._helm(argv, cancel, limit=timeout + tools.FETCH_LIMIT)
            except tools.ToolFailed as failed:
                raise self._refused(failed, rendering) from failed

    def undo(self, *, dry_run: bool = False) -> str:
        """Put back what was there before devloop's first upgrade; a line for the user. "" where
        devloop has not touched it, or installed it itself. Raises cluster/rejected."""
        before = self._record.read()
        revision = before.get("revision") if before else None
        if not isinstance(revision, int) or revision == 0:
            return ""
        words = f"release {self.name}: revision {revision}, as it was before devloop"
        if dry_run:
            return f"{words} (would be)"
        self._run("rollback", self.name, str(revision))
        self._record.path.unlink(missing_ok=True)
        return words

    def installed(self) -> bool:
        """Whether devloop installed it, and it is there."""
        before = self._record.read()
        ours = before is not None and before.get("revision") == 0
        return ours and self._revision(Cancel()) > 0

    def remove(self) -> str:
        """Uninstall what devloop installed; a line for the user."""
        self._run("uninstall", self.name)
        self._record.path.unlink(missing_ok=True)
        return f"release {self.name}"

    # --- what was there ------------------------------------------------------------------------

    @property
    def _record(self) -> StateFile:
        name = f"{self.context}_{self.namespace}_{self.name}".replace("/", "_")
        return StateFile(self.state_dir / "releases" / f"{name}.json")

    def _remember(self, cancel: Cancel) -> None:
        if self._record.read() is None:
            self._record.save({"revision": self._revision(cancel), "release": self.name})

    def _revision(self, cancel: Cancel) -> int:
        """The revision that is deployed; 0 for none."""
        try:
            done = self._helm(["history", self.name, "--output", "json"], cancel)
        except tools.ToolFailed as failed:
            if "not found" in failed.output:
                return 0
            raise self._refused(failed, None) from failed
        found: list[dict[str, Any]] = json.loads(done.out or "[]")
        return max((int(e["revision"]) for e in found if e.get("status") == "deployed"), default=0)

    # --- helm ----------------------------------------------------------------------------------

    def _run(self, *argv: str) -> None:
        try:
            self._helm([*argv, "--namespace", self.namespace], Cancel())
        except tools.ToolFailed as failed:
            raise self._refused(failed, None) from failed

    def _helm(self, argv: list[str], cancel: Cancel, *, limit: float = _ASK_LIMIT) -> Completed:
        where = [] if "--namespace" in argv else ["--namespace", self.namespace]
        whole = ["helm", *argv, *where, "--kube-context", self.context]
        return tools.tool(whole, cancel, limit=limit, grace=_GRACE)

    def _refuse_newer(self, cancel: Cancel) -> None:
        """Helm 4 takes plugins for post-renderers, and no program."""
        done = tools.tool(["helm", "version", "--short"], cancel, limit=_ASK_LIMIT)
        version = done.out.strip().lstrip("v")
        if version[:1].isdigit() and int(version.partition(".")[0]) > 3:
            raise DevloopError.of(
                Code.CONFIG_NOT_SUPPORTED,
                "`deploy.helm.mode: release` needs Helm 3",
                cause=f"this is Helm {version}, which takes no program for a post-renderer",
                suggestions=("use `mode: template`", "or put Helm 3 on the PATH before it"),
            )

    def _refused(self, failed: tools.ToolFailed, rendering: HelmRendering | None) -> DevloopError:
        rendered = ("template:", "parse error", "execution error", "values don't meet")
        if rendering is not None and any(words in failed.output for words in rendered):
            return rendering.error(failed)
        lines = [line for line in failed.output.splitlines() if line.strip()]
        said = next(
            (line for line in lines if line.startswith("Error:")), lines[-1] if lines else ""
        )
        hint = f"helm history {self.name} --namespace {self.namespace}"
        if "another operation" in failed.output:
            hint = f"helm rollback {self.name} --namespace {self.namespace}, then save again"
        elif "cannot be imported" in failed.output:
            hint = "`devloop down` deletes what devloop applied itself; a release has its own"
        return DevloopError.of(
            Code.CLUSTER_REJECTED,
            f"helm refused release {self.name}: {said.removeprefix('Error: ')}",
            suggestions=(hint,),
            detail=tuple(lines[:20]) if len(lines) > 1 else (),
        )
