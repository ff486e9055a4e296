"""How far a rollout is, from what the watches saw. Pure.

Looks at the pods themselves rather than wait for the controllers to sum them up, and believes a pod
only when the kubelet reports the deployed image's digest. Must not wait, fetch or report.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import (
    STARTING,
    Json,
    alive,
    annotation,
    condition,
    controlled_by,
    dig,
    generation_of,
    images_of,
    items,
    labels,
    metadata,
    name_of,
    number,
    pod_images,
    pod_view,
    text,
    uid_of,
)
from devloop.cluster.api.writes import last_writer
from devloop.cluster.rollout.replica_sets import current_set, other_sets, pods_of
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.model import DeployedWorkload, PodView


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """What is known at one moment. `workload` is None while it is not in the view (yet).
    `restarted` names the ReplicaSet whose pods get the image in place, "" for none."""

    workload: Json | None
    restarted: str = ""
    replicasets: tuple[Json, ...] = ()
    pods: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Not there yet. `pods` are those of the new revision, whose troubles count. `stale` names the
    pods that are ready with another image than deployed. `broken` are pods of an old revision that
    keep a StatefulSet from going on."""

    message: str
    ready: int = 0
    wanted: int = 0
    pods: tuple[Json, ...] = ()
    stale: tuple[tuple[str, str], ...] = ()
    broken: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    pods: tuple[str, ...]
    image_ids: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """`grace` is for how many seconds it must have been so to count; `wants_room` says that pods
    that are gone may cure it."""

    error: DevloopError
    grace: float = 0.0
    wants_room: bool = False


Status = Waiting | Ready | Failing
# (pod, image id) pairs that were proven to be the deployed image under another digest.
Accepted = frozenset[tuple[str, str]]


def digest_of(image_id: str) -> str:
    """The digest that a kubelet reports: `repo@sha256:x`, `docker-pullable://repo@sha256:x` -> the
    part after the @. A bare `sha256:x` is an image's configuration, not its manifest: empty."""
    _, at, digest = image_id.rpartition("@")
    return digest if at and digest.startswith("sha256:") else ""


def judge(
    deployed: DeployedWorkload, view: RolloutView, *, accepted: Accepted = frozenset()
) -> Status:
    """Decide."""
    ref = deployed.workload
    workload = view.workload
    if workload is None:
        return Waiting(message=f"waiting to see {ref}")
    changed = _changed_outside(deployed, workload)
    if changed is not None:
        return Failing(error=changed)
    generation = generation_of(workload)
    observed = number(dig(workload, "status", "observedGeneration"))
    if generation < deployed.generation or observed < max(generation, deployed.generation):
        return Waiting(message=f"waiting for the controller of {ref}")
    if ref.kind == "deployment":
        return _deployment(deployed, view, workload, accepted)
    mine = [p for p in view.pods if controlled_by(p, deployed.uid)]
    if ref.kind == "statefulset":
        return _statefulset(deployed, workload, mine, accepted)
    if ref.kind == "replicaset":
        return _replicaset(deployed, workload, mine, accepted)
    return _daemonset(deployed, workload, mine, accepted)


def _changed_outside(deployed: DeployedWorkload, workload: Json) -> DevloopError | None:
    ref = deployed.workload
    if uid_of(workload) != deployed.uid:
        return DevloopError.of(
            Code.SAFETY_CHANGED_OUTSIDE,
            f"{ref} was deleted and recreated by somebody else",
            suggestions=("deploy again",),
        )
    if generation_of(workload) <= deployed.generation:
        return None
    now = images_of(workload)
    if _has_image(now, deployed):
        return None
    other = [now.get(c) for c in deployed.containers if now.get(c) != deployed.image.pinned]
    return DevloopError.of(
        Code.SAFETY_CHANGED_OUTSIDE,
        f"{last_writer(workload)} changed the image of {ref} meanwhile",
        cause=f"it is {other[0]} now, not {deployed.image.pinned}",
        suggestions=("save a file to deploy again, or stop what writes there",),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revisions:
    """A workload's pods: those of the `new` revision, and those of older ones that still live. Of
    the new ones, `good` are ready with the deployed image, `stale` with another."""

    new: list[Json]
    old: list[Json]
    good: list[PodView]
    stale: tuple[tuple[str, str], ...]

    def waiting(self, wanted: int, *, old: int, broken: Iterable[Json] = ()) -> Waiting:
        """`old` pods are to go yet."""
        return Waiting(
            message=_progress(self.new, len(self.good), wanted, old=old),
            ready=len(self.good),
            wanted=wanted,
            pods=tuple(self.new),
            stale=self.stale,
            broken=tuple(broken),
        )


def _revisions(
    new: list[Json], every: Iterable[Json], deployed: DeployedWorkload, accepted: Accepted
) -> _Revisions:
    good: list[PodView] = []
    stale: list[tuple[str, str]] = []
    for seen in map(pod_view, alive(new)):
        wrong = _wrong_image(seen, deployed, accepted) if seen.ready else ""
        if wrong is None:
            good.append(seen)
        elif wrong:
            stale.append((seen.name, wrong))
    old = [p for p in alive(every) if p not in new]
    return _Revisions(new=new, old=old, good=good, stale=tuple(stale))


def serves(pod: PodView, deployed: DeployedWorkload, accepted: Accepted) -> bool:
    """Whether the pod is ready and proven to run the deployed image."""
    return pod.ready and not pod.deleting and _wrong_image(pod, deployed, accepted) is None


def _wrong_image(pod: PodView, deployed: DeployedWorkload, accepted: Accepted) -> str | None:
    """None when all containers run the deployed image; else the image id that is wrong, "" while
    the kubelet reports none."""
    for container in pod.containers:
        if container.name not in deployed.containers:
            continue
        if not deployed.image.digest:
            if container.image != deployed.image.pinned:
                return container.image
        elif not container.image_id:
            return ""
        elif (
            digest_of(container.image_id) != deployed.image.digest
            and (pod.name, container.image_id) not in accepted
        ):
            return container.image_id
    return None


def _ready(deployed: DeployedWorkload, good: Iterable[PodView], detail: str) -> Ready:
    good = sorted(good, key=lambda p: p.name)
    ids = [c.image_id for p in good for c in p.containers if c.name in deployed.containers]
    return Ready(
        pods=tuple(p.name for p in good),
        image_ids=tuple(dict.fromkeys(i for i in ids if i)),
        detail=detail,
    )


def _scaled_to_zero(deployed: DeployedWorkload) -> Ready:
    daemon = deployed.workload.kind == "daemonset"
    note = "no node wants it" if daemon else "scaled to 0: nothing runs"
    return Ready(pods=(), image_ids=(), detail=f"0/0 ready ({note})")


def _deployment(
    deployed: DeployedWorkload, view: RolloutView, workload: Json, accepted: Accepted
) -> Status:
    wanted = number(dig(workload, "spec", "replicas"), 1)
    if wanted == 0:
        return _scaled_to_zero(deployed)
    current = current_set(workload, view.replicasets)
    if current is None or not (
        _has_image(images_of(current), deployed) or name_of(current) == view.restarted
    ):
        waiting = Waiting(message="waiting for the new ReplicaSet", wanted=wanted)
        return _refused(workload) or waiting
    new = [p for p in view.pods if controlled_by(p, uid_of(current))]
    others = other_sets(workload, view.replicasets, current)
    old = [p for r in others for p in pods_of(view.pods, uid_of(r))]
    found = _revisions(new, old, deployed, accepted)
    available = len(found.good)
    if number(dig(workload, "spec", "minReadySeconds")):
        available = min(available, number(dig(current, "status", "availableReplicas")))
    if available >= wanted and not found.old and not view.restarted:
        return _ready(deployed, found.good, f"{len(found.good)}/{wanted} ready")
    refused = _refused(workload) if len(alive(new)) < wanted else None
    return refused or found.waiting(wanted, old=len(found.old))


def _has_image(images: Mapping[str, str], deployed: DeployedWorkload) -> bool:
    return all(images.get(c) == deployed.image.pinned for c in deployed.containers)


def _refused(workload: Json) -> Failing | None:
    """No pods are made at all: a quota, pod security, a missing service account, a webhook."""
    failure = condition(workload, "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    message = " ".join(text(failure.get("message")).split())
    # A quota may have room again when the old pods are gone; a service account or the server of a
    # webhook may come a little later than what needs it.
    quota = "exceeded quota" in message
    passing = quota or re.search("failed calling webhook|serviceaccount .* not found", message)
    return Failing(
        error=DevloopError.of(
            Code.CLUSTER_REJECTED,
            "the cluster refuses to make the new pods",
            cause=message or None,
            suggestions=("correct what the cause names, then deploy again",),
        ),
        grace=15.0 if passing else 2.0,
        wants_room=quota,
    )


def _statefulset(
    deployed: DeployedWorkload, workload: Json, mine: list[Json], accepted: Accepted
) -> Status:
    replicas = number(dig(workload, "spec", "replicas"), 1)
    partition = number(dig(workload, "spec", "updateStrategy", "rollingUpdate", "partition"))
    first = number(dig(workload, "spec", "ordinals", "start"))
    revision = text(dig(workload, "status", "updateRevision"))
    new = [p for p in mine if text(labels(p).get("controller-revision-hash")) == revision]
    found = _revisions(new, mine, deployed, accepted)
    if replicas == 0:
        return _scaled_to_zero(deployed)
    if dig(workload, "spec", "updateStrategy", "type") == "OnDelete":
        kept, why, wanted = found.old, "its updateStrategy is OnDelete", replicas
    else:
        kept = [p for p in found.old if _ordinal(p) < first + partition]
        why, wanted = f"its updateStrategy has partition {partition}", max(0, replicas - partition)
    waiting_for = [p for p in found.old if p not in kept]
    good = len(found.good)
    if good >= wanted and not waiting_for and not (kept and wanted == 0):
        note = f", {len(kept)} kept by partition {partition}" if kept else ""
        return _ready(deployed, found.good, f"{good}/{wanted} ready{note}")
    if kept and not waiting_for and good + len(kept) >= replicas:
        return _keeps_old(deployed, kept, why)
    broken = (p for p in waiting_for if not pod_view(p).ready)
    return found.waiting(wanted, old=len(waiting_for), broken=broken)


def _ordinal(pod: Json) -> int:
    tail = text(metadata(pod).get("name")).rpartition("-")[2]
    return int(tail) if tail.isdigit() else 0


def _keeps_old(deployed: DeployedWorkload, kept: list[Json], why: str) -> Failing:
    ref = deployed.workload
    names = " ".join(text(metadata(p).get("name")) for p in kept)
    return Failing(
        error=DevloopError.of(
            Code.POD_STALE_IMAGE,
            f"{ref} keeps its old pods: {why}",
            cause=f"old: {names}",
            suggestions=(f"kubectl -n {ref.namespace} delete pod {names}", "or use RollingUpdate"),
        ),
        grace=1.0,
    )


def _replicaset(
    deployed: DeployedWorkload, workload: Json, mine: list[Json], accepted: Accepted
) -> Status:
    """One that no Deployment controls: its pods do not know of revisions."""
    wanted = number(dig(workload, "spec", "replicas"), 1)
    if wanted == 0:
        return _scaled_to_zero(deployed)
    new = [p for p in mine if _has_image(pod_images(p), deployed)]
    found = _revisions(new, mine, deployed, accepted)
    if len(found.good) >= wanted and not found.old:
        return _ready(deployed, found.good, f"{len(found.good)}/{wanted} ready")
    return found.waiting(wanted, old=len(found.old))


def _daemonset(
    deployed: DeployedWorkload, workload: Json, mine: list[Json], accepted: Accepted
) -> Status:
    wanted = number(dig(workload, "status", "desiredNumberScheduled"))
    updated = number(dig(workload, "status", "updatedNumberScheduled"))
    generation = annotation(workload, "deprecated.daemonset.template.generation")
    new = [
        p
        for p in mine
        if (not generation or text(labels(p).get("pod-template-generation")) == generation)
        and _has_image(pod_images(p), deployed)
    ]
    found = _revisions(new, mine, deployed, accepted)
    if wanted == 0 and not alive(mine):
        return _scaled_to_zero(deployed)
    if len(found.good) >= wanted and updated >= wanted and not found.old:
        return _ready(deployed, found.good, f"{len(found.good)}/{wanted} ready")
    if dig(workload, "spec", "updateStrategy", "type") == "OnDelete" and found.old:
        return _keeps_old(deployed, found.old, "its updateStrategy is OnDelete")
    return found.waiting(wanted, old=len(found.old))


def _progress(new: Iterable[Json], ready: int, wanted: int, *, old: int) -> str:
    """`0/1 ready, pod web-abc: starting`."""
    head = f"{ready}/{wanted} ready"
    for pod in sorted(alive(new), key=lambda p: text(metadata(p).get("creationTimestamp"))):
        seen = pod_view(pod)
        if not seen.ready:
            return f"{head}, pod {seen.name}: {_doing(pod, seen)}"
    if ready < wanted:
        return f"{head}, waiting for pods"
    return f"{head}, {old} old pod{'s' if old != 1 else ''} to stop" if old else head


def _doing(pod: Json, seen: PodView) -> str:
    if condition(pod, "PodScheduled").get("status") == "False":
        return "no node takes it"
    for container in seen.containers:
        if container.init and container.state == "running":
            return f"init container {container.name} runs"
        if container.state == "waiting" and container.reason not in STARTING:
            return f"{container.name}: {container.reason}"
        if container.state == "terminated" and not container.init:
            return f"{container.name} exited with {container.exit_code}"
    if not seen.node:
        return "not scheduled yet"
    main = [c for c in seen.containers if not c.init]
    if main and all(c.state == "running" for c in main):
        return "running, not ready yet"
    return "pulling image, starting" if items(dig(pod, "status", "conditions")) else "starting"
