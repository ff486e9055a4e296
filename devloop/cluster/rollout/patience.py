"""How long a trouble is waited out, and what for: what waiting may cure fails no rollout before the
deadline. Pure but for `Patience`, which reads the clock; must not fetch or report.

All comparisons are between times that the cluster gave: the clocks of this computer and of the
nodes may differ.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, alive, condition, dig, items, metadata, name_of, text
from devloop.cluster.api.view import workload_of
from devloop.cluster.rollout.diagnose import NEVER
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.cluster.rollout.diagnose import Finding
    from devloop.model import WorkloadRef


# A container without a readiness probe is called ready as soon as it runs; what it serves comes up
# so many seconds later at the latest.
_UNPROBED = 20.0
_LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)
# Taints that nodes have for as long as they are being made or are in trouble.
_PASSING_TAINT = re.compile(
    r"taint\w* \{(?:node\.kubernetes\.io/(?:not-ready|unreachable|network-unavailable|"
    r"(?:memory|disk|pid)-pressure)|node\.cloudprovider\.kubernetes\.io/uninitialized)"
)
# What the autoscalers report of a pod that they make a node for: the cluster autoscaler, Karpenter.
SCALING = frozenset({"TriggeredScaleUp", "Nominated"})


class Patience:
    """How long each trouble has lasted, without a break: what one look does not ask about is
    forgotten at the next."""

    def __init__(self) -> None:
        # key -> since when, for how many seconds: of this look, and of the one before
        self._now: dict[tuple[str, ...], tuple[float, float]] = {}
        self._before = self._now

    def begin(self) -> None:
        """Another look."""
        self._before, self._now = self._now, {}

    def lasted(self, key: tuple[str, ...], grace: float) -> bool:
        """Whether `key` has been so for `grace` seconds (never, for infinity)."""
        began, _ = self._now.get(key) or self._before.get(key) or (time.monotonic(), 0.0)
        self._now[key] = (began, grace)
        return time.monotonic() - began >= grace

    def next(self, now: float) -> float:
        """When the next one's patience ends that has not ended yet; infinity for none."""
        ends = (began + grace for began, grace in self._now.values())
        return min((end for end in ends if end > now), default=NEVER)


def cured_by_waiting(
    finding: Finding, pod: Json, pods: Iterable[Json], others: Iterable[WorkloadRef]
) -> str:
    """What a trouble of `pod` may be over with, in words that follow "waits for"; "" for nothing.
    `pods` are all of the namespace, `others` the workloads that are deployed together with the
    pod's."""
    if finding.may_need_others:
        return _other(finding, pod, pods, others)
    if finding.diagnosis.code is Code.POD_UNSCHEDULABLE:
        return leaving(pods) or _node(finding)
    return ""


def leaving(pods: Iterable[Json]) -> str:
    """A pod that is being deleted and holds what it has until it has ended."""
    going = (name_of(p) for p in pods if metadata(p).get("deletionTimestamp"))
    return next((f"pod {name} to stop" for name in sorted(going)), "")


def _node(finding: Finding) -> str:
    passing = _PASSING_TAINT.search(finding.diagnosis.cause or "")
    return "a node to get ready" if passing else ""


def _other(finding: Finding, pod: Json, pods: Iterable[Json], others: Iterable[WorkloadRef]) -> str:
    """The first of `others` that was not ready when the container last started, and may be when it
    starts next."""
    started = _last_start(pod, finding.container)
    mine = alive(pods)
    groups = {
        ref: [p for p in mine if workload_of(p) == (ref.kind, ref.name)] for ref in set(others)
    }
    for ref in sorted(groups, key=str):
        theirs = groups[ref]
        rest = [group for other, group in groups.items() if other != ref]
        if not _ready_at(theirs, started) and (not _all_down(theirs) or _owed_a_run(theirs, rest)):
            return str(ref)
    return ""


def _ready_at(pods: Iterable[Json], moment: dt.datetime | None) -> bool:
    """Whether one of the pods was sure to serve at that moment; None for now."""
    since = [found for found in map(_ready_since, pods) if found is not None]
    return bool(since) and (moment is None or min(since) <= moment)


def _all_down(pods: Iterable[Json]) -> bool:
    """Whether there are pods and each of them waits for another try of a program that exited."""
    runs = [_last_run(pod) for pod in pods]
    return bool(runs) and None not in runs


def _owed_a_run(pods: Iterable[Json], others: Iterable[list[Json]]) -> bool:
    """Whether one of the pods may do better at its next try: something else, which has not exited
    itself, was not ready at its last. So two with the same fault do not wait for each other."""
    starts = [start for start in map(_last_run, pods) if start is not None]
    coming = [group for group in others if not _all_down(group)]
    return any(not _ready_at(group, start) for group in coming for start in starts)


def _last_run(pod: Json) -> dt.datetime | None:
    """When the run began of a container that exited and does not run again yet; None for none."""
    for status in _statuses(pod):
        ended = dig(status, "state", "terminated")
        if dig(status, "state", "waiting", "reason") == "CrashLoopBackOff":
            ended = dig(status, "lastState", "terminated")
        if isinstance(ended, dict) and ended.get("exitCode") != 0:
            return _time(ended.get("startedAt"))
    return None


def _ready_since(pod: Json) -> dt.datetime | None:
    """Since when the pod is sure to serve; None when it is not ready."""
    ready = condition(pod, "Ready")
    if ready.get("status") != "True":
        return None
    since = _time(ready.get("lastTransitionTime"))
    if all(c.get("readinessProbe") for c in items(dig(pod, "spec", "containers"))):
        return since
    starts = (_time(dig(s, "state", "running", "startedAt")) for s in _statuses(pod))
    return max(since, max(starts, default=_LONG_AGO) + dt.timedelta(seconds=_UNPROBED))


def _last_start(pod: Json, container: str) -> dt.datetime | None:
    """When the run began that ended last; None where the kubelet does not say."""
    status = next((s for s in _statuses(pod) if s.get("name") == container), {})
    runs = (dig(status, state, "terminated") for state in ("state", "lastState"))
    starts = [_time(run.get("startedAt")) for run in runs if isinstance(run, dict)]
    return max(starts, default=None)


def _statuses(pod: Json) -> list[dict[str, object]]:
    keys = ("initContainerStatuses", "containerStatuses")
    return [status for key in keys for status in items(dig(pod, "status", key))]


def _time(value: object) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text(value))
    except ValueError:
        return _LONG_AGO
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
