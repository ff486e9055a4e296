"""The seam between what is written (`deploy`) and how pods come to run it.

A way to replace an image is one module beside this one with one `Replacement`, and a place in the
order of `policy`. It writes the workload by the `Write` that it is given and must not know whether
that applies a manifest or patches an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import Json, images_of
from devloop.cluster.rollout.rollout import RolloutHooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.base.cancel import Cancel
    from devloop.model import DeployedWorkload, ImageRef, ReplacedBy, WorkloadRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The workload after a write. `changed` is False when it was so before."""

    object: Json
    changed: bool = True
    created: bool = False


class Write(Protocol):
    """How the workload is written; each call is at most one change. Errors: cluster/*."""

    def other_changes(self) -> str:
        """What is to be written besides the image, in a few words; "" for nothing."""

    def plain(self) -> Written:
        """As wanted; the controllers do the rest."""

    def fast(self) -> Written:
        """As wanted, with the update strategy of `replace: fast` where it has one to change."""

    def restore_strategy(self) -> Callable[[], None] | None:
        """Called before `fast`: how to put back the strategy that `fast` takes away, written down
        where that is needed; None when it takes none."""

    def paused(self) -> Json:
        """As wanted, paused and marked (see `pause`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One image for one workload. `live` is the workload as it is, None when it does not exist.
    `insists`: the user asks for replacement in place by name."""

    ref: WorkloadRef
    live: Json | None
    containers: tuple[str, ...]
    image: ImageRef
    write: Write
    insists: bool = False

    @property
    def image_differs(self) -> bool:
        now = images_of(self.live) if self.live is not None else {}
        return any(now.get(c) not in {None, self.image.pinned} for c in self.containers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What a replacement did. `blocker` is why it was not done in a better way, "" for no reason;
    `alone`: the only pod is restarted, so that nothing else serves meanwhile."""

    how: ReplacedBy
    written: Written
    alone: bool = False
    blocker: str = ""


class Replacement(RolloutHooks, ABC):
    """One way to replace the image of a workload's pods."""

    @abstractmethod
    def blocker(self, change: Change, cancel: Cancel) -> str | None:
        """Why it cannot be done in this way, in a few words; None when it can, "" when there is
        nothing to replace, which is no reason worth a word."""

    @abstractmethod
    def replace(self, change: Change, cancel: Cancel) -> Replaced:
        """Start, and return at once. Called when `blocker` has just returned None."""

    def ready(self, deployed: DeployedWorkload) -> None:
        """What was replaced is served."""

    def superseded(self, deployed: DeployedWorkload) -> None:
        """The rollout is not followed any more, for a newer one or for good."""

    def failed(self, deployed: DeployedWorkload) -> None:
        """The rollout failed. Errors: cluster/*."""

    def rolled_back(self, live: Json, images: Mapping[str, str]) -> None:
        """The workload `live` has got its `images` (container -> image) of before back."""

    def close(self, cancel: Cancel) -> None:
        """Leave nothing half done. Errors: cluster/*."""
