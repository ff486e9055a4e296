"""When pods may get a new image without being made anew, and how such a pod is to be read. Pure.

A container's image is one of the few parts of a pod that may change: the kubelet restarts just
that container in the same sandbox. With the Deployment paused meanwhile, and its ReplicaSet's
template brought to the same image before it goes on, nobody starts a rollout. That is the same
thing as a rollout only under conditions; this module knows them, `replace` does the patches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.pod_view import (
    condition,
    controller_of,
    dig,
    items,
    labels,
    metadata,
    name_of,
    number,
    pod_view,
    text,
    uid_of,
)
from devloop.cluster.deploy.ownership import APPLIED, MANAGER, covers, desired, images_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.model import ImageRef

__all__ = [
    "HOLD",
    "Memory",
    "RestartRecord",
    "alive",
    "as_new",
    "current_set",
    "found_marks",
    "held",
    "in_turn",
    "is_held_back",
    "is_odd",
    "mark_of",
    "matching_set",
    "paused_by_other",
    "pod_images",
    "pods_of",
    "same_manifest",
    "template_patch",
    "why_not",
    "with_hold",
]

# On a Deployment that devloop paused. A label, since the controller copies a Deployment's
# annotations to its ReplicaSets, where this one would stay and come back with a `rollout undo`.
HOLD = "devloop.dev/in-place"

_HASH = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"
# What a container waits for on its way up; everything else is a failure.
_STARTING = {"", "ContainerCreating", "PodInitializing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRecord:
    """What a container was when its image was patched to `image`: the ids of the containers that
    are to go, the restarts counted by then, how many were asked for since, and whether it ran."""

    image: str
    old_ids: frozenset[str]
    restarts: int
    patches: int = 1
    ran: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of a workload's pods. `had`: pod uid -> the images it ran, `lately`: those of
    them that the kubelet may hold back, `unproven`: the uids of the pods that devloop restarted and
    that have not been ready since, `slow`: container -> seconds that its process needed to stop,
    `barred`: why the cluster refused it."""

    had: Mapping[str, frozenset[str]] = field(default_factory=dict)
    lately: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unproven: frozenset[str] = frozenset()
    slow: Mapping[str, int] = field(default_factory=dict)
    barred: str = ""


# --- the decision --------------------------------------------------------------------------------


def held(live: Mapping[str, Any] | None) -> bool:
    """Whether the Deployment is paused by devloop, in the middle of an in-place rollout."""
    return live is not None and HOLD in labels(live) and dig(live, "spec", "paused") is True


def current_set(
    live: Mapping[str, Any], replicasets: Iterable[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The ReplicaSet of the Deployment's current revision."""
    revision = _annotation(live, _REVISION)
    for one in replicasets:
        owner = controller_of(one)
        if owner and owner[2] == uid_of(live) and _annotation(one, _REVISION) == revision:
            return one
    return None


def alive(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        p
        for p in pods
        if not metadata(p).get("deletionTimestamp")
        and dig(p, "status", "phase") not in {"Succeeded", "Failed"}
    ]


def pods_of(pods: Iterable[Mapping[str, Any]], owner: str) -> list[Mapping[str, Any]]:
    """The living pods that the object with the uid `owner` controls, by name."""
    mine = [p for p in alive(pods) if (controller_of(p) or ("", "", ""))[2] == owner]
    return sorted(mine, key=name_of)


def pod_images(pod: Mapping[str, Any]) -> dict[str, str]:
    """Container -> image as the pod's spec asks for it."""
    found = items(dig(pod, "spec", "containers"))
    return {text(c.get("name")): text(c.get("image")) for c in found}


def same_manifest(
    wanted: Mapping[str, Any], live: Mapping[str, Any], containers: Iterable[str], project: str
) -> bool:
    """Whether `wanted` (a Deployment to apply) is what was applied last but for the image of
    `containers`, and the live pod template still says all of it."""
    had = images_of(live)
    mine = set(containers)
    spec = dig(wanted, "spec", "template", "spec")
    before = {
        **wanted,
        "spec": {
            **(dig(wanted, "spec") or {}),
            "template": {
                **(dig(wanted, "spec", "template") or {}),
                "spec": {
                    **(spec or {}),
                    "containers": [
                        {**c, "image": had.get(text(c.get("name")), "")}
                        if text(c.get("name")) in mine
                        else c
                        for c in items(dig(spec, "containers"))
                    ],
                },
            },
        },
    }
    body = desired(before, live, project)
    mark = metadata(body)["annotations"][APPLIED]
    template = dig(body, "spec", "template")
    return _annotation(live, APPLIED) == mark and covers(dig(live, "spec", "template"), template)


def why_not(
    live: Mapping[str, Any],
    replicasets: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    *,
    containers: tuple[str, ...],
    image: ImageRef,
    memory: Memory,
    restart: bool = True,
) -> str | None:
    """Why the Deployment's pods cannot get `image` in place; None when they can.

    `restart` False asks only for Deployment and ReplicaSet to be brought to the image, with the
    pods left as they run."""
    sets = tuple(replicasets)
    everything = tuple(pods)
    current = current_set(live, sets)
    reason = (
        memory.barred
        or _image_hinders(image)
        or (_template_hinders(live, containers) if restart else _only_main(live, containers))
        or _sets_hinder(live, sets, current, containers, image)
        or _others_hinder(live, sets, current, everything)
    )
    if reason or not restart:
        return reason or None
    assert current is not None  # noqa: S101 - _sets_hinder said so
    mine = pods_of(everything, uid_of(current))
    if not mine:
        return "no pod runs"
    reason = _strategy_hinders(live, mine) or _slow(containers, memory)
    for pod in mine:
        reason = reason or _pod_hinders(pod, current, containers[0], image, memory)
    return reason or None


def _image_hinders(image: ImageRef) -> str:
    return "" if image.digest else "the image has no digest to prove it by"


def _template_hinders(live: Mapping[str, Any], containers: tuple[str, ...]) -> str:
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


def _only_main(live: Mapping[str, Any], containers: tuple[str, ...]) -> str:
    main = {text(c.get("name")) for c in items(dig(live, "spec", "template", "spec", "containers"))}
    return "" if main.issuperset(containers) else "an init container gets the image"


def _sets_hinder(
    live: Mapping[str, Any],
    sets: tuple[Mapping[str, Any], ...],
    current: Mapping[str, Any] | None,
    containers: tuple[str, ...],
    image: ImageRef,
) -> str:
    if current is None:
        return "its ReplicaSet is not known yet"
    if _bare(live, containers) != _bare(current, containers):
        return "a rollout of another change is under way"
    if not held(live) and images_of(live) != images_of(current):
        return "a rollout is under way"
    for other in sets:
        owner = controller_of(other)
        if other is current or owner is None or owner[2] != uid_of(live):
            continue
        # The controller takes the oldest ReplicaSet with an equal template: it would roll there.
        if all(images_of(other).get(c) == image.pinned for c in containers):
            return "it ran this image before"
    return ""


def _others_hinder(
    live: Mapping[str, Any],
    sets: tuple[Mapping[str, Any], ...],
    current: Mapping[str, Any] | None,
    pods: tuple[Mapping[str, Any], ...],
) -> str:
    for other in sets:
        owner = controller_of(other)
        if other is current or owner is None or owner[2] != uid_of(live):
            continue
        if number(dig(other, "spec", "replicas")) or pods_of(pods, uid_of(other)):
            return "a rollout is under way"
    return ""


def _strategy_hinders(live: Mapping[str, Any], pods: list[Mapping[str, Any]]) -> str:
    several = len(pods) > 1 or number(dig(live, "spec", "replicas"), 1) > 1
    if several and dig(live, "spec", "strategy", "type") == "Recreate":
        return "strategy Recreate: old and new pods must not run side by side"
    if number(dig(live, "spec", "minReadySeconds")):
        return "minReadySeconds counts from a pod's start"
    return ""


def _slow(containers: tuple[str, ...], memory: Memory) -> str:
    for name in containers:
        if name in memory.slow:
            return f"{name} needed {memory.slow[name]} s to stop"
    return ""


def _pod_hinders(
    pod: Mapping[str, Any],
    current: Mapping[str, Any],
    container: str,
    image: ImageRef,
    memory: Memory,
) -> str:
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
    coming = mine.state in {"running", "terminated"} or mine.reason in _STARTING
    if uid_of(pod) in memory.unproven and coming and seen.phase == "Running":
        return ""  # it is on its way to the image before this one
    return f"pod {seen.name} is not ready"


def _annotation(thing: Mapping[str, Any], key: str) -> str:
    annotations = metadata(thing).get("annotations")
    return text(annotations.get(key)) if isinstance(annotations, dict) else ""


def _bare(thing: Mapping[str, Any], containers: tuple[str, ...]) -> dict[str, Any]:
    """The pod template without what may differ: the hash label and the containers' images."""
    template = dig(thing, "spec", "template") or {}
    meta = {k: v for k, v in metadata(template).items() if v}
    meta["labels"] = {k: v for k, v in labels(template).items() if k != _HASH}
    spec = dict(dig(template, "spec") or {})
    spec["containers"] = [
        {k: v for k, v in c.items() if k != "image" or text(c.get("name")) not in containers}
        for c in items(spec.get("containers"))
    ]
    return {"metadata": meta, "spec": spec}


# --- the patches ---------------------------------------------------------------------------------


def with_hold(body: Mapping[str, Any]) -> dict[str, Any]:
    """The Deployment (or a patch of one) that is paused and marked as paused by devloop."""
    meta = metadata(body)
    return {
        **body,
        "metadata": {**meta, "labels": {**(meta.get("labels") or {}), HOLD: "paused"}},
        "spec": {**(dig(body, "spec") or {}), "paused": True},
    }


def template_patch(containers: Iterable[str], image: str) -> dict[str, Any]:
    """For a strategic merge patch: the spec of a pod, or of a pod template."""
    return {"containers": [{"name": name, "image": image} for name in containers]}


# --- reading a pod that was patched --------------------------------------------------------------


def mark_of(
    pod: Mapping[str, Any], container: str, image: str, before: RestartRecord | None
) -> RestartRecord:
    """The mark for a patch to `image` that is made now. `before` is that of an earlier patch that
    was not seen ready: its container may be on its way still."""
    view = next((c for c in pod_view(pod).containers if c.name == container), None)
    ids = frozenset({view.container_id} - {""}) if view is not None else frozenset()
    ran = view is not None and view.state == "running"
    if before is None:
        restarts = view.restarts if view is not None else 0
        return RestartRecord(image=image, old_ids=ids, restarts=restarts, ran=ran)
    return RestartRecord(
        image=image,
        old_ids=before.old_ids | ids,
        restarts=before.restarts,
        patches=before.patches + 1,
        ran=ran,
    )


def found_marks(
    pod: Mapping[str, Any], containers: Iterable[str], image: ImageRef
) -> dict[str, RestartRecord]:
    """The marks of a pod that a rollout finds: what became of its containers before is no news of
    the image, and one that runs another image is to be restarted once more."""
    found = {}
    for status in items(dig(pod, "status", "containerStatuses")):
        name = text(status.get("name"))
        now = text(status.get("containerID"))
        runs = bool(image.digest) and text(status.get("imageID")).endswith(f"@{image.digest}")
        broken = text(dig(status, "state", "waiting", "reason")) == "CrashLoopBackOff"
        if name not in containers or not now or (runs and broken):
            continue
        old = {text(dig(status, "lastState", "terminated", "containerID"))}
        if not runs and dig(status, "state", "running") is None:
            old.add(now)
        found[name] = RestartRecord(
            image=image.pinned,
            old_ids=frozenset(old - {""}),
            restarts=number(status.get("restartCount")),
            patches=0 if runs else 1,
        )
    return found


def as_new(pod: Mapping[str, Any], marks: Mapping[str, RestartRecord]) -> Mapping[str, Any]:
    """The pod as if it had been made for the new image: a container that is still the old one is
    starting, and restarts that were asked for are none."""
    statuses = items(dig(pod, "status", "containerStatuses"))
    if not any(text(s.get("name")) in marks for s in statuses):
        return pod
    waiting = False
    told = []
    for status in statuses:
        mark = marks.get(text(status.get("name")))
        if mark is None:
            told.append(status)
            continue
        old = _is_old(status, mark)
        waiting = waiting or old
        told.append(_status_as_new(status, mark, old=old))
    status = {**pod["status"], "containerStatuses": told}
    return {**pod, "status": _not_ready(status) if waiting else status}


def _is_old(status: Mapping[str, Any], mark: RestartRecord) -> bool:
    # A patch back to what runs, before the kubelet looked: that container is not restarted.
    _, _, digest = mark.image.rpartition("@")
    if text(status.get("imageID")).endswith(f"@{digest}") and status.get("ready") is True:
        return False
    return text(status.get("containerID")) in mark.old_ids or not status.get("containerID")


def _status_as_new(status: Mapping[str, Any], mark: RestartRecord, *, old: bool) -> dict[str, Any]:
    counted = number(status.get("restartCount")) - mark.restarts - mark.patches
    changed: dict[str, Any] = {**status, "restartCount": max(0, counted)}
    last = text(dig(status, "lastState", "terminated", "containerID"))
    if last in mark.old_ids or old:
        changed["lastState"] = {}
    if old:
        changed["ready"] = False
        changed["started"] = False
        # A pull that fails is told of the container that is not there yet, under the old id; a
        # crash is always that of the container with the id.
        if text(dig(status, "state", "waiting", "reason")) in {"", "CrashLoopBackOff"}:
            changed["state"] = {"waiting": {"reason": "ContainerCreating"}}
    return changed


def is_held_back(pod: Mapping[str, Any], marks: Mapping[str, RestartRecord]) -> bool:
    """Whether the kubelet does not start a new container yet, as if the one that ran until then had
    crashed: the pod ran the same image a short while ago."""
    return any(
        text(dig(status, "state", "waiting", "reason")) == "CrashLoopBackOff"
        and (mark := marks.get(text(status.get("name")))) is not None
        and mark.ran
        and _is_old(status, mark)
        for status in items(dig(pod, "status", "containerStatuses"))
    )


def is_odd(pod: Mapping[str, Any], containers: Iterable[str], image: str) -> bool:
    """Whether the pod asks for another image of the same repository than the one deployed. One of
    another repository is an admission webhook's doing."""
    now = pod_images(pod)
    repository = image.partition("@")[0]
    return any(
        now.get(c, image) != image and now[c].partition("@")[0] == repository for c in containers
    )


def matching_set(
    live: Mapping[str, Any], replicasets: Iterable[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The ReplicaSet that the controller takes for the Deployment's template: the oldest equal."""
    equal = [
        r
        for r in replicasets
        if (controller_of(r) or ("", "", ""))[2] == uid_of(live)
        and images_of(r) == images_of(live)
        and _bare(r, ()) == _bare(live, ())
    ]
    return min(equal, key=lambda r: text(metadata(r).get("creationTimestamp")), default=None)


def paused_by_other(live: Mapping[str, Any]) -> bool:
    """Whether somebody else than devloop says that the Deployment is paused."""
    return any(
        entry.get("manager") != MANAGER and dig(entry, "fieldsV1", "f:spec", "f:paused") is not None
        for entry in items(metadata(live).get("managedFields"))
    )


def in_turn(pod: Mapping[str, Any], containers: Iterable[str]) -> Mapping[str, Any]:
    """A pod that is still to get the image, while others have it: it counts as not ready."""
    mine = set(containers)
    status = dict(dig(pod, "status") or {})
    status["containerStatuses"] = [
        {**s, "ready": False, "state": {"waiting": {"reason": "waits for its turn"}}}
        if text(s.get("name")) in mine
        else s
        for s in items(status.get("containerStatuses"))
    ]
    return {**pod, "status": _not_ready(status)}


def _not_ready(status: dict[str, Any]) -> dict[str, Any]:
    rest = [c for c in items(status.get("conditions")) if c.get("type") != "Ready"]
    ready = {**condition({"status": status}, "Ready"), "type": "Ready", "status": "False"}
    return {**status, "conditions": [*rest, ready]}
