"""Which pod a new connection goes to: a pure decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.model import PodView

__all__ = ["choose"]


def choose(pods: Iterable[PodView]) -> PodView | None:
    """The newest pod that is ready and not being deleted; None when a connection has to wait.

    A pod that is being deleted may be gone in the middle of an answer, so waiting for its
    successor is better even while it still counts as ready. Timestamps have seconds only: names
    decide between pods of one second, so that the choice does not flicker."""
    fit = [pod for pod in pods if pod.ready and not pod.deleting]
    return max(fit, key=lambda pod: (pod.created, pod.name), default=None)
