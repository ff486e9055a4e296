"""Wait for the rollouts of one deploy: woken by the watches, never polling. Ready when all are; the
first certain failure is the failure of all.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Protocol

from devloop.model import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.view import View
    from devloop.engine.ports import Reporter
    from devloop.errors import Diagnosis
    from devloop.model import Step, StepOutcome, WorkloadRef


class Followed(Protocol):
    """A `Rollout` or a `Run`."""

    @property
    def workload(self) -> WorkloadRef: ...
    @property
    def views(self) -> tuple[View, ...]:
        """What tells of it."""

    def wait_synced(self, cancel: Cancel) -> None:
        """Errors: cluster/* when what is needed is not known within a while."""

    def due(self, now: float) -> float:
        """When something would be decided without news from the cluster (monotonic)."""

    def look(self, reporter: Reporter, cancel: Cancel) -> tuple[Served, str] | None:
        """Where it is now: the proof and a few words once it is at its end. Raises pod/*,
        safety/changed-outside, cluster/*."""

    def look_for_recovery(self) -> tuple[Served, str] | None:
        """As `look`, of one that failed: does nothing for it and has no deadline."""


def follow_together(
    rollouts: Sequence[Followed], reporter: Reporter, cancel: Cancel
) -> tuple[Served, str]:
    """Returns the proof of at least one and a few words ("1/1 ready"). Raises pod/*,
    safety/changed-outside, cluster/*, `Cancelled`."""
    several = len(rollouts) > 1
    reporters = [_Named(reporter, f"{r.workload}: ") if several else reporter for r in rollouts]

    def look() -> list[tuple[Served, str] | None]:
        return [r.look(own, cancel) for r, own in zip(rollouts, reporters, strict=True)]

    def seconds() -> float:
        now = time.monotonic()
        return max(0.0, min(rollout.due(now) for rollout in rollouts) - now)

    return _joined(rollouts, _until_ready(rollouts, look, seconds, cancel))


def await_recovery(rollouts: Sequence[Followed], cancel: Cancel) -> Served:
    """Wait, for as long as it takes, until rollouts that failed are through after all. Raises
    safety/changed-outside and cluster/not-found when they never will be, `Cancelled`."""

    def look() -> list[tuple[Served, str] | None]:
        return [rollout.look_for_recovery() for rollout in rollouts]

    served, _ = _joined(rollouts, _until_ready(rollouts, look, lambda: None, cancel))
    return served


def _until_ready(
    rollouts: Sequence[Followed],
    look: Callable[[], list[tuple[Served, str] | None]],
    seconds: Callable[[], float | None],
    cancel: Cancel,
) -> list[tuple[Served, str]]:
    """Look at each piece of news, and at the latest after so many `seconds`."""
    wake = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(cancel.closing(wake.set))
        for view in dict.fromkeys(view for rollout in rollouts for view in rollout.views):
            stack.enter_context(view.subscribe(lambda _: wake.set()))
        for rollout in rollouts:
            rollout.wait_synced(cancel)
        while True:
            cancel.check()
            wake.clear()
            found = [each for each in look() if each is not None]
            if len(found) == len(rollouts):
                return found
            wake.wait(seconds())


def _joined(
    rollouts: Sequence[Followed], found: Sequence[tuple[Served, str]]
) -> tuple[Served, str]:
    if len(found) == 1:
        return found[0]
    served = [each for each, _ in found]
    ids = (image_id for each in served for image_id in each.image_ids)
    every = Served(
        image=served[0].image,
        pods=tuple(pod for each in served for pod in each.pods),
        image_ids=tuple(dict.fromkeys(ids)),
    )
    words = (f"{r.workload} {detail}" for r, (_, detail) in zip(rollouts, found, strict=True))
    return every, ", ".join(words)


class _Named:
    """A reporter whose progress says of which workload it is."""

    def __init__(self, reporter: Reporter, prefix: str) -> None:
        self._reporter = reporter
        self._prefix = prefix

    def started(self, step: Step) -> None:
        self._reporter.started(step)

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        self._reporter.progress(step, self._prefix + message, current=current, total=total)

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self._reporter.finished(step, outcome, detail)

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        self._reporter.diagnostic(diagnosis)
