"""What a replacement does, and knows, while its rollout is followed."""

# ruff: noqa: ARG002 - the base of what does something
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.rollout.rollout_status import Accepted
    from devloop.model import Deployed


class RolloutHooks:
    """Those of a rolling update, for which the controllers do everything: nothing. `Rollout` calls
    them in its own thread, `advance` first at each look."""

    def advance(self, deployed: Deployed, accepted: Accepted, cancel: Cancel) -> str:
        """Do what is next. Returns the name of the ReplicaSet whose pods get the image where they
        are, "" for none. `accepted` is that of `rollout_status.judge`. Errors: cluster/*."""
        return ""

    def seen(self, pod: Json, deployed: Deployed) -> Json:
        """The pod as it is to be judged; the very same object where nothing is known of it."""
        return pod

    def newest(self, workload: Json) -> Json:
        """The workload, newer where a write's answer is ahead of the watch."""
        return workload

    def is_news(self, event: Json) -> bool:
        """Whether the event is one of this rollout: a pod that stays keeps those of before."""
        return True

    def in_back_off(self) -> list[Json]:
        """The pods that the kubelet does not restart with the image yet."""
        return []

    def recreate(self, pod: Json) -> None:
        """Have one of those replaced by a new pod."""
