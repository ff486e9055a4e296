"""The product as it is wired: a source that scans one context, a builder that makes its image.

Notes of each build how the image was made, from what the builder reports and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.builders.select import make_builder
from devloop.builders.split.builder import SPLIT_GAIN
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.errors import DevloopError
from devloop.model import PushTarget, Step, StepOutcome
from devloop.sync.contents import RememberedContents
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devloop.builders.delta.copy_targets import ShownCopies
    from devloop.errors import Diagnosis
    from devloop.registry.client import RegistryClient

__all__ = ["FULL", "IN_PROCESS", "SPLIT", "Built", "Candidate"]


FULL, WHOLE, DELTA, LAYERS = "full build", "whole in-process", "delta", "layers made again"
SPLIT = "split build"
NOTHING, REMEMBERED = "nothing to do", "remembered"
IN_PROCESS = (WHOLE, DELTA, LAYERS, NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One build's end: a digest, or the error's code. `how` is what the builder said of its way."""

    digest: str = ""
    error: str = ""
    how: str = ""
    reason: str = ""


@dataclass(slots=True)
class _Notes:
    lines: list[str] = field(default_factory=list)

    def started(self, step: Step) -> None:
        self.lines.append(f"{step} started")

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        self.lines.append(f"{step}: {message}")

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self.lines.append(f"{step} {outcome}: {detail}")

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        self.lines.append(f"{diagnosis.code}: {diagnosis.message}")


class Candidate:
    """One service for as long as a session lasts."""

    def __init__(
        self,
        root: Path,
        *,
        client: RegistryClient,
        image: str,
        dockerfile: Path,
        context: Path,
        args: Mapping[str, str],
        stage: str | None,
        split: bool = False,
    ) -> None:
        """With `split`, builds are split wherever they can be, and not only where that saves
        time; otherwise the first image carries on one that is remembered in `root`."""
        service = Service(
            name="app",
            image=image,
            build=Build(context=context, dockerfile=dockerfile, args=dict(args), target=stage),
            deploy=Deploy(workload_name="app"),
        )
        project = Project(
            name="app", root=root, file=root / "devloop.yaml", services={"app": service}
        )
        self._source = ServiceSource(service, root)
        self._recipe = ""
        self._target = PushTarget(push=client.host)
        self.repository = self._target.repository(image)
        self._contents = RememberedContents(root, "app")
        self.builder = make_builder(
            service,
            project,
            self._target,
            self._source.written_since,
            registry=client,
            open_registry=lambda _: client,
            last_built=None if split else self._contents.last_built,
            split_gain=-math.inf if split else SPLIT_GAIN,
        )

    def shown_copies(self) -> ShownCopies | None:
        """What the image that was built last has shown of its COPYs."""
        return self.builder.shown_copies(self._recipe)

    def close(self) -> None:
        _close(self.builder)

    def build(self) -> Built:
        """Scan and build; a fault of the product that is no `DevloopError` comes through."""
        notes = _Notes()
        try:
            scan = self._source.scan(None, Cancel())
            self._recipe = scan.recipe
            image = self.builder.build(scan, notes, Cancel())
        except DevloopError as error:
            how, reason = _way(notes.lines)
            return Built(error=error.diagnosis.code, how=how, reason=reason)
        self._contents.built(scan, image)
        how, reason = _way(notes.lines)
        return Built(digest=image.digest, how=how, reason=reason)


def _close(builder: object) -> None:
    """End what a builder does in the background, if it does anything."""
    close = getattr(builder, "close", None)
    if close is not None:
        close()


def _way(lines: list[str]) -> tuple[str, str]:
    """How the image was made and why so, from the builder's own words."""
    text = "\n".join(lines)
    reasons = dict.fromkeys(
        line.partition("full build: ")[2] or line.partition(f"{StepOutcome.SKIPPED}: ")[2]
        for line in lines
    )
    reason = "; ".join(filter(None, reasons))
    for words, way in _WORDS:
        if words in text:
            return way, reason
    return FULL, reason


# The first that fits counts: a whole image made in-process may have begun as a full build.
_WORDS = (
    ("copied without the builder", SPLIT),
    ("without a builder", WHOLE),
    ("full build: ", FULL),
    ("delta: ", DELTA),
    ("made again", LAYERS),
    ("no COPY takes", NOTHING),
    ("same content as", REMEMBERED),
)
