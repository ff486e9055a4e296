"""What a replacement does, and knows, while its rollout is followed."""

# ruff: noqa: ARG002 - the base of what does something
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.base.cancel import Cancel
    from devloop.model import Deployed


class RolloutHooks:
    """Those of a rolling update, for which the controllers do everything: nothing. `Rollout` calls
    them in its own thread, `advance` first at each look."""

    def advance(
        self, deployed: Deployed, accepted: frozenset[tuple[str, str]], cancel: Cancel
    ) -> str:
        """Do what is next. Returns the name of the ReplicaSet whose pods get the image where they
        are, "" for none. `accepted` is that of `rollout_status.judge`. Errors: cluster/*."""
        return ""

    def seen(self, pod: Mapping[str, Any], deployed: Deployed) -> Mapping[str, Any]:
        """The pod as it is to be judged; the very same object where nothing is known of it."""
        return pod

    def newest(self, workload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The workload, newer where a write's answer is ahead of the watch."""
        return workload

    def is_news(self, event: Mapping[str, Any]) -> bool:
        """Whether the event is one of this rollout: a pod that stays keeps those of before."""
        return True

    def in_back_off(self) -> list[Mapping[str, Any]]:
        """The pods that the kubelet does not restart with the image yet."""
        return []

    def recreate(self, pod: Mapping[str, Any]) -> None:
        """Have one of those replaced by a new pod."""
