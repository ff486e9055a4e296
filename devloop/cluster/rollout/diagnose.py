"""Say in plain words what is wrong with a pod, from its status, its events and its last log lines.

Pure; never raises, whatever the JSON looks like. Decides what is certain enough to end a rollout
for; when to look is `rollout`'s business.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, condition, dig, name_of, pod_view, text, uid_of
from devloop.cluster.rollout.diagnose_container import examine_container, probe_failing
from devloop.cluster.rollout.finding import NEVER, Finding, events_of, last_event, one_line
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devloop.model import PodView


# How long a state may last before it counts: seconds.
_UNSCHEDULABLE_GRACE = 5.0
_MOUNT_GRACE = 8.0


def examine(pod: Json, events: Iterable[Json] = ()) -> Finding | None:
    """The worst thing that is wrong with a pod, None when nothing is. `events` may be all of the
    namespace's."""
    seen = pod_view(pod)
    mine = events_of(events, uid_of(pod))
    if dig(pod, "status", "reason") == "Evicted":
        return _evicted(pod, seen)
    for container in seen.containers:
        found = examine_container(container, seen, mine)
        if found is not None:
            return found
    return _whole_pod(pod, seen, mine)


def _whole_pod(pod: Json, seen: PodView, events: Sequence[Json]) -> Finding | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unschedulable(seen, text(scheduled.get("message")))
    if seen.phase == "Failed":
        reason = text(dig(pod, "status", "reason")) or "it failed"
        return Finding(
            diagnosis=Diagnosis(
                code=Code.POD_UNSCHEDULABLE if reason.startswith("OutOf") else Code.POD_EVICTED,
                message=f"pod {seen.name} failed: {reason}",
                cause=text(dig(pod, "status", "message")) or None,
            ),
            grace=NEVER,
            pod=seen.name,
        )
    mount = last_event(events, "FailedMount", "FailedAttachVolume")
    if mount is not None and not any(c.container_id for c in seen.containers):
        message = text(mount.get("message"))
        missing = re.search(r'(configmap|secret) "([^"]+)" not found', message)
        what = f"{missing[1]} {missing[2]!r} does not exist" if missing else "a volume is missing"
        return Finding(
            diagnosis=Diagnosis(
                code=Code.POD_CONFIG_ERROR,
                message=f"pod {seen.name} cannot start: {what}",
                cause=one_line(message),
                suggestions=("create it, or correct the volume's name in the manifest",),
            ),
            grace=_MOUNT_GRACE if missing else NEVER,
            pod=seen.name,
        )
    probe = last_event(events, "Unhealthy")
    if probe is not None and not seen.ready:
        return probe_failing(seen, "", probe, grace=NEVER)
    sandbox = last_event(events, "FailedCreatePodSandBox")
    if sandbox is not None and not seen.ready:
        return Finding(
            diagnosis=Diagnosis(
                code=Code.POD_CONFIG_ERROR,
                message=f"the node cannot set up pod {seen.name}",
                cause=one_line(text(sandbox.get("message"))),
                suggestions=("look at the node: its network plugin or its disk is in trouble",),
            ),
            grace=NEVER,
            pod=seen.name,
        )
    return None


def _unschedulable(pod: PodView, message: str) -> Finding:
    hint = "free some room, or ask for less in resources.requests"
    if "didn't match" in message and "affinity" in message:
        hint = "correct nodeSelector or affinity: no node has these labels"
    elif "untolerated taint" in message:
        hint = "add a toleration, or use a node without the taint"
    elif (
        "unbound immediate PersistentVolumeClaims" in message or "persistentvolumeclaim" in message
    ):
        hint = "look at the PersistentVolumeClaim: it is not bound or does not exist"
    elif "free ports" in message:
        hint = "the hostPort is taken: a rolling update needs it twice; use strategy Recreate"
    return Finding(
        diagnosis=Diagnosis(
            code=Code.POD_UNSCHEDULABLE,
            message=f"no node takes pod {pod.name}",
            cause=one_line(message),
            suggestions=(hint,),
        ),
        grace=_UNSCHEDULABLE_GRACE,
        pod=pod.name,
    )


def _evicted(pod: Json, seen: PodView) -> Finding:
    return Finding(
        diagnosis=Diagnosis(
            code=Code.POD_EVICTED,
            message=f"the node evicted pod {name_of(pod)}",
            cause=one_line(text(dig(pod, "status", "message"))),
            suggestions=("free memory or disk on the node, or set resources.requests",),
        ),
        grace=NEVER,
        pod=seen.name,
    )


_TELLING = re.compile(
    r"(\w*(Error|Exception)\b.*:|\bpanic:|\bfatal\b|\bFATAL\b|\berror:|No such file|cannot )"
)


def with_log(finding: Finding, lines: Sequence[str]) -> Diagnosis:
    """The diagnosis with the container's last log lines as evidence, and the most telling of them
    in its cause."""
    kept = [line.rstrip() for line in lines if line.strip()]
    diagnosis = finding.diagnosis
    if any("exec format error" in line for line in kept[-3:]):
        changed = Diagnosis(
            code=Code.POD_WRONG_ARCH,
            message=f"container {finding.container} of pod {finding.pod} is made for another "
            "processor",
            cause=kept[-1],
            suggestions=("set `build.platform` to the nodes' platform",),
        )
        return replace(changed, detail=tuple(kept[-20:]))
    if not kept:
        return diagnosis
    cause = diagnosis.cause
    if diagnosis.code in {Code.POD_CRASH_LOOP, Code.POD_INIT_FAILING}:
        telling = next((line for line in reversed(kept) if _TELLING.search(line)), kept[-1])
        cause = f"{telling.strip()[:300]} ({cause})"
    return replace(diagnosis, cause=cause, detail=(*diagnosis.detail, *kept[-20:]))
