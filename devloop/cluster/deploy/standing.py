"""Whether a Deployment stands still: all that it asks for is there and ready, and nothing is on its
way. Then what runs is known as soon as its containers say what they have. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import (
    Json,
    dig,
    generation_of,
    images_of,
    number,
    pod_images,
    pod_view,
    uid_of,
)
from devloop.cluster.rollout.replica_sets import current_set, other_sets, pods_of
from devloop.cluster.rollout.rollout_status import digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def standing_pods(
    live: Json, sets: Sequence[Json], pods: Sequence[Json], containers: tuple[str, ...]
) -> tuple[str, ...] | str:
    """The Deployment's pods, or what is on its way, in words for the user. Those of `containers`
    may run another image than the Deployment asks for, but the one that their pod asks for."""
    if dig(live, "spec", "paused") is True:
        return "it is paused"
    generation = generation_of(live)
    current = current_set(live, sets)
    others = other_sets(live, sets, current)
    busy = any(number(dig(o, "spec", "replicas")) or pods_of(pods, uid_of(o)) for o in others)
    if (
        busy
        or current is None
        or number(dig(live, "status", "observedGeneration")) < generation
        or images_of(current) != images_of(live)
    ):
        return "a rollout is under way"
    mine = pods_of(pods, uid_of(current))
    if not mine:
        return "no pod runs"
    for pod in mine:
        seen = pod_view(pod)
        if not seen.ready:
            return f"pod {seen.name} is not ready"
        asked = pod_images(pod)
        for container in seen.containers:
            wanted = digest_of(asked.get(container.name, ""))
            if container.name in containers and wanted != digest_of(container.image_id):
                return f"pod {seen.name} is about to start with another image"
    if len(mine) != number(dig(live, "spec", "replicas"), 1):
        return "a rollout is under way"
    return tuple(pod_view(pod).name for pod in mine)
