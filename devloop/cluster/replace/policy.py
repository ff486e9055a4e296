"""Which way a service's image is replaced in: the first of those allowed that nothing speaks
against. Says why it is not a better one, once.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.cluster.replace.rolling import FastUpdate, NewPods, RollingUpdate
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.replace.in_place import InPlace
    from devloop.cluster.replace.strategy import Change, Replaced, Replacement
    from devloop.cluster.replace.workload_lock import WorkloadLock
    from devloop.model import ReplacedBy, WorkloadRef


_LOG = logging.getLogger(__name__)


def order_for(
    wanted: ReplacedBy,
    ref: WorkloadRef,
    *,
    connection: Connection,
    view: ClusterView,
    lock: WorkloadLock,
    in_place: Callable[[WorkloadRef], InPlace],
) -> ReplacementPolicy:
    """The policy of one service for one workload, whose lock is `lock`; `in_place` gives what
    services share."""
    rolling = RollingUpdate(connection)
    if ref.kind == "replicaset":
        return ReplacementPolicy(NewPods(connection, view))
    if wanted == "rolling":
        return ReplacementPolicy(rolling)
    if not ref.serves or ref.kind == "pod" or ref.api:
        return ReplacementPolicy(rolling)  # made again, or left to whoever controls it
    if ref.kind != "deployment":
        return ReplacementPolicy(rolling, unfit=f"a {ref.kind}")
    if wanted == "fast":
        return ReplacementPolicy(FastUpdate(connection, view, lock), rolling)
    return ReplacementPolicy(in_place(ref), rolling)


class ReplacementPolicy:
    """`order`: best first; the last is always possible. `unfit` is why better ones are not in it.

    For one thread at a time."""

    def __init__(self, *order: Replacement, unfit: str = "") -> None:
        self._order = order
        self._unfit = unfit
        self._reported = ""

    @property
    def hooks(self) -> Replacement:
        """What goes along with a rollout: pods may still bear the marks of the best way when this
        rollout is made in another."""
        return self._order[0]

    def replace(
        self, change: Change, cancel: Cancel, *, new_pods: bool = False
    ) -> tuple[Replaced, str]:
        """Replace the image. Returns what was done, and a few words for the user on how:
        ", in place", ", rolling: REASON"; the reason is left out where it is the one that was
        given for the image before. With `new_pods` it is the last way. Errors: cluster/*."""
        if new_pods:
            return self._order[-1].replace(change, cancel), ", new pods"
        blocker = self._unfit if change.image_differs else ""
        for way in self._order:
            found = way.blocker(change, cancel)
            if found is None:
                cancel.check()
                done = way.replace(change, cancel)
                done = replace(done, blocker=done.blocker or blocker)
                return done, self._words(done)
            blocker = blocker or found
        raise AssertionError("the last way has no blocker")

    def close(self, cancel: Cancel) -> None:
        """Leave nothing half done; what cannot be reached is left to the next start."""
        for way in self._order:
            try:
                way.close(cancel)
            except DevloopError as error:
                _LOG.warning("left for the next start: %s", error)

    def _words(self, done: Replaced) -> str:
        if done.how == "in-place":
            self._reported = ""
            return ", in place"
        if not done.blocker:
            return ""
        known, self._reported = self._reported == done.blocker, done.blocker
        return ", rolling" if known else f", rolling: {done.blocker}"
