"""When pods may get a new image without being recreated. Pure.

A container's image is one of the few parts of a pod that may change: the kubelet restarts just
that container in the same sandbox. With the Deployment paused meanwhile, and its ReplicaSet's
template brought to the same image before it goes on, nobody starts a rollout. That is the same
thing as a rollout only under conditions; this module knows them, `in_place` does the patches.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import (
    STARTING,
    Json,
    dig,
    images_of,
    items,
    number,
    pod_images,
    pod_view,
    text,
    uid_of,
)
from devloop.cluster.replace.pause import paused_by_devloop
from devloop.cluster.rollout.replica_sets import current_set, differs_from, other_sets, pods_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devloop.model import ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of a workload's pods. `had`: pod uid -> the images it ran, `lately`: those of
    them that may be in back-off, `unproven`: the uids of the pods that devloop restarted and
    that have not been ready since, `slow`: container -> seconds that its process needed to stop,
    `refusal`: why the cluster refused it."""

    had: Mapping[str, frozenset[str]] = field(default_factory=dict)
    lately: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unproven: frozenset[str] = frozenset()
    slow: Mapping[str, int] = field(default_factory=dict)
    refusal: str = ""


def in_place_blocker(
    live: Json,
    sets: Sequence[Json],
    pods: Sequence[Json],
    *,
    containers: tuple[str, ...],
    image: ImageRef,
    memory: Memory,
    restart: bool = True,
    insists: bool = False,
) -> str | None:
    """Why the Deployment's pods cannot get `image` in place; None when they can.

    `insists`: the user asks for it by name, and takes what a container finds in its pod. `restart`
    False asks only for Deployment and ReplicaSet to be brought to the image, with the
    pods left as they run."""
    current = current_set(live, sets)
    others = other_sets(live, sets, current)
    busy = any(number(dig(o, "spec", "replicas")) or pods_of(pods, uid_of(o)) for o in others)
    reason = (
        memory.refusal
        or ("" if image.digest else "the image has no digest to prove it by")
        or (_template_blocker(live, containers) if restart else _init_blocker(live, containers))
        or ("" if insists or not restart else _leftovers_blocker(live, containers))
        or _sets_blocker(live, current, others, containers, image)
        or ("a rollout is under way" if busy else "")
    )
    if reason or not restart:
        return reason or None
    assert current is not None  # noqa: S101 - _sets_blocker said so
    mine = pods_of(pods, uid_of(current))
    if not mine:
        return "no pod runs"
    reasons = (_pod_blocker(pod, current, containers[0], image, memory) for pod in mine)
    reason = _strategy_blocker(live, mine) or _slow_blocker(containers, memory)
    return reason or next(filter(None, reasons), None)


def _template_blocker(live: Json, containers: tuple[str, ...]) -> str:
    spec = dig(live, "spec", "template", "spec")
    for init in items(dig(spec, "initContainers")):
        if text(init.get("name")) in containers:
            return f"init container {init['name']} gets the image"
        # One with restartPolicy Always is a sidecar: it goes on running beside the others.
        if init.get("restartPolicy") != "Always":
            return "init containers must run again"
    if len(containers) != 1:
        return f"{len(containers)} containers get the image"
    own: dict[str, Any] = next(
        (c for c in items(dig(spec, "containers")) if text(c.get("name")) in containers), {}
    )
    if dig(own, "lifecycle", "preStop") is not None:
        return "it has a preStop hook"
    if own.get("imagePullPolicy") == "Never":
        return "imagePullPolicy is Never"
    return ""


def _leftovers_blocker(live: Json, containers: tuple[str, ...]) -> str:
    """A new container gets its own file system, but an emptyDir is the pod's: what the last run
    left there, as a pid file or a copy of its assets, a new pod would not have."""
    spec = dig(live, "spec", "template", "spec")
    empty = {text(v.get("name")) for v in items(dig(spec, "volumes")) if "emptyDir" in v}
    for container in items(dig(spec, "containers")):
        for mount in items(container.get("volumeMounts")):
            ours = text(container.get("name")) in containers and mount.get("name") in empty
            if ours and mount.get("readOnly") is not True:
                return (
                    f"emptyDir {mount['name']} would keep what the last run left there "
                    "(deploy.replace: in-place does it all the same)"
                )
    return ""


def _init_blocker(live: Json, containers: tuple[str, ...]) -> str:
    main = {text(c.get("name")) for c in items(dig(live, "spec", "template", "spec", "containers"))}
    return "" if main.issuperset(containers) else "an init container gets the image"


def _sets_blocker(
    live: Json,
    current: Json | None,
    others: list[Json],
    containers: tuple[str, ...],
    image: ImageRef,
) -> str:
    if current is None:
        return "its ReplicaSet is not known yet"
    if differs_from(live, current, containers):
        return "a rollout of another change is under way"
    if not paused_by_devloop(live) and images_of(live) != images_of(current):
        return "a rollout is under way"
    # The controller takes the oldest ReplicaSet with an equal template: it would roll there.
    wanted = dict.fromkeys(containers, image.pinned).items()
    return "it ran this image before" if any(wanted <= images_of(o).items() for o in others) else ""


def _strategy_blocker(live: Json, pods: list[Json]) -> str:
    several = len(pods) > 1 or number(dig(live, "spec", "replicas"), 1) > 1
    if several and dig(live, "spec", "strategy", "type") == "Recreate":
        return "strategy Recreate: old and new pods must not run side by side"
    if number(dig(live, "spec", "minReadySeconds")):
        return "minReadySeconds counts from a pod's start"
    return ""


def _slow_blocker(containers: tuple[str, ...], memory: Memory) -> str:
    slow = next((name for name in containers if name in memory.slow), None)
    return f"{slow} needed {memory.slow[slow]} s to stop" if slow is not None else ""


def _pod_blocker(pod: Json, current: Json, container: str, image: ImageRef, memory: Memory) -> str:
    now = pod_images(pod).get(container, "")
    if now == image.pinned:
        return ""  # it was patched before something broke off
    # An image of another repository was put there by an admission webhook, which sees to that only
    # when a pod is created.
    ours = {images_of(current).get(container, ""), *memory.had.get(uid_of(pod), ())}
    if now not in ours and now.partition("@")[0] != image.pinned.partition("@")[0]:
        return "something changes the images of its pods"
    # The kubelet's restart back-off goes by the container's hash, so by its image.
    if image.pinned in memory.lately.get(uid_of(pod), ()):
        return "its pod ran this image before"
    seen = pod_view(pod)
    mine = next((c for c in seen.containers if c.name == container and not c.init), None)
    if mine is None:
        return f"pod {seen.name} has no container {container}"
    if seen.ready:
        return ""
    coming = mine.state in {"running", "terminated"} or mine.reason in STARTING
    if uid_of(pod) in memory.unproven and coming and seen.phase == "Running":
        return ""  # it is on its way to the image before this one
    return f"pod {seen.name} is not ready"


def template_patch(images: Mapping[str, str]) -> dict[str, Any]:
    """For a strategic merge patch: the spec of a pod, or of a pod template. `images` maps
    containers to what they get."""
    return {"containers": [{"name": name, "image": image} for name, image in images.items()]}
