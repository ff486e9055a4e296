"""How a pod is to be read whose containers were restarted with another image. Pure.

Such a pod keeps its restarts, its last state and, for a moment, the old container's status: none of
that is news of the image it was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import (
    Json,
    condition,
    dig,
    items,
    number,
    pod_images,
    pod_view,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.model import ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRecord:
    """What a container was when its image was patched to `image`: the ids of the containers that
    are to go, the restarts counted by then, how many were asked for since, and whether it ran."""

    image: str
    old_ids: frozenset[str]
    restarts: int
    patches: int = 1
    was_running: bool = False


def restart_record(
    pod: Json, container: str, image: str, before: RestartRecord | None
) -> RestartRecord:
    """The record for a patch to `image` that is made now. `before` is that of an earlier patch that
    was not seen ready: its container may be on its way still."""
    view = next((c for c in pod_view(pod).containers if c.name == container), None)
    ids = frozenset({view.container_id} - {""}) if view is not None else frozenset()
    was_running = view is not None and view.state == "running"
    return RestartRecord(
        image=image,
        old_ids=before.old_ids | ids if before else ids,
        restarts=before.restarts if before else view.restarts if view else 0,
        patches=before.patches + 1 if before else 1,
        was_running=was_running,
    )


def found_records(
    pod: Json, containers: Iterable[str], image: ImageRef
) -> dict[str, RestartRecord]:
    """The records of a pod that a rollout finds: what became of its containers before is no news of
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


def normalised(pod: Json, records: Mapping[str, RestartRecord]) -> Json:
    """The pod as if it had been made for the new image: a container that is still the old one is
    starting, and restarts that were asked for are none."""
    statuses = items(dig(pod, "status", "containerStatuses"))
    if not any(text(s.get("name")) in records for s in statuses):
        return pod
    waiting = False
    changed = []
    for status in statuses:
        record = records.get(text(status.get("name")))
        old = record is not None and _is_old(status, record)
        waiting = waiting or old
        changed.append(_normalised_status(status, record, old=old) if record else status)
    result = {**pod["status"], "containerStatuses": changed}
    return {**pod, "status": _not_ready(result) if waiting else result}


def _is_old(status: Json, record: RestartRecord) -> bool:
    # A patch back to what runs, before the kubelet looked: that container is not restarted.
    _, _, digest = record.image.rpartition("@")
    if text(status.get("imageID")).endswith(f"@{digest}") and status.get("ready") is True:
        return False
    return text(status.get("containerID")) in record.old_ids or not status.get("containerID")


def _normalised_status(status: Json, record: RestartRecord, *, old: bool) -> dict[str, Any]:
    counted = number(status.get("restartCount")) - record.restarts - record.patches
    changed: dict[str, Any] = {**status, "restartCount": max(0, counted)}
    last = text(dig(status, "lastState", "terminated", "containerID"))
    if last in record.old_ids or old:
        changed["lastState"] = {}
    if old:
        changed["ready"] = False
        changed["started"] = False
        # A pull that fails is reported for the container that is not there yet, under the old
        # id; a crash is always that of the container with the id.
        if text(dig(status, "state", "waiting", "reason")) in {"", "CrashLoopBackOff"}:
            changed["state"] = {"waiting": {"reason": "ContainerCreating"}}
    return changed


def in_back_off(pod: Json, records: Mapping[str, RestartRecord]) -> bool:
    """Whether the kubelet does not start a new container yet, as if the one that ran until then had
    crashed: the pod ran the same image a short while ago."""
    return any(
        text(dig(status, "state", "waiting", "reason")) == "CrashLoopBackOff"
        and (record := records.get(text(status.get("name")))) is not None
        and record.was_running
        and _is_old(status, record)
        for status in items(dig(pod, "status", "containerStatuses"))
    )


def mismatched(pod: Json, containers: Iterable[str], image: str) -> bool:
    """Whether the pod asks for another image of the same repository than the one deployed. One of
    another repository is an admission webhook's doing."""
    now = pod_images(pod)
    repository = image.partition("@")[0]
    return any(
        now.get(c, image) != image and now[c].partition("@")[0] == repository for c in containers
    )


def pending(pod: Json, containers: Iterable[str]) -> Json:
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
