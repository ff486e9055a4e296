"""How far what is not rolled out is: a Job, a bare Pod, a CronJob, a custom resource. Pure.

Must not wait, fetch or report; what is wrong with the pods meanwhile is `diagnose`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import (
    Json,
    condition,
    controlled_by,
    dig,
    generation_of,
    items,
    metadata,
    name_of,
    number,
    pod_view,
    text,
)
from devloop.cluster.rollout.rollout_status import serves
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.model import ContainerView, DeployedWorkload, PodView


# Pods that a Job tries again with are its own matter; these are not over at the next try.
HOPELESS = frozenset(
    {Code.POD_IMAGE_PULL, Code.POD_CONFIG_ERROR, Code.POD_UNSCHEDULABLE, Code.POD_WRONG_ARCH}
)
# How long a custom resource without a status is looked at: its controller may not have seen it.
NO_STATUS = 3.0
_GOOD = ("Ready", "Available", "Healthy", "Succeeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDone:
    """It is where it is to be. `pods` prove it, where it has some. `grace` is for how many seconds
    it must have been so."""

    detail: str
    pods: tuple[Json, ...] = ()
    grace: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """It failed for good; `pod` and `container` are those whose log tells why, "" for none."""

    message: str
    cause: str
    pod: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGoing:
    """Not there yet. `pods` are those whose troubles count."""

    message: str
    pods: tuple[Json, ...] = ()


RunStatus = RunDone | RunEnded | RunGoing


def judge_run(deployed: DeployedWorkload, thing: Json, pods: Iterable[Json]) -> RunStatus:
    """Decide. `thing` is the workload, `pods` are all of its namespace."""
    ref = deployed.workload
    if ref.kind == "job" and not ref.api:
        return _job(deployed, thing, [p for p in pods if controlled_by(p, deployed.uid)])
    if ref.kind == "pod" and not ref.api:
        return _pod(deployed, thing)
    if ref.kind == "cronjob" and not ref.api:
        suspended = dig(thing, "spec", "suspend") is True
        when = "suspended" if suspended else f"schedule {text(dig(thing, 'spec', 'schedule'))}"
        return RunDone(detail=f"updated ({when})")
    return _custom(deployed, thing)


def running_container(pods: Iterable[Json]) -> tuple[str, str]:
    """(pod, container) that is at work last, for its log; empty where none is."""
    found = [
        (seen.name, container.name)
        for seen in map(pod_view, sorted(pods, key=_created))
        for container in seen.containers
        if container.state == "running"
    ]
    return found[-1] if found else ("", "")


def _job(deployed: DeployedWorkload, job: Json, pods: list[Json]) -> RunStatus:
    wanted = number(dig(job, "spec", "completions"), 1)
    done = number(dig(job, "status", "succeeded"))
    if condition(job, "Complete").get("status") == "True":
        return RunDone(detail=f"{done}/{wanted} completed" if wanted != 1 else "completed")
    failed = condition(job, "Failed")
    if failed.get("status") == "True":
        pod, container = _last_failed(pods)
        why = text(failed.get("message")) or text(failed.get("reason")) or "it failed"
        return RunEnded(
            message=f"{deployed.workload} failed{_exit(container)}",
            cause=" ".join(why.split()),
            pod=pod,
            container=container.name if container is not None else "",
        )
    if dig(job, "spec", "suspend") is True:
        return RunDone(detail="suspended: nothing runs")
    at_work = [p for p in pods if dig(p, "status", "phase") not in {"Succeeded", "Failed"}]
    message = f"{done}/{wanted} completed"
    tries = number(dig(job, "status", "failed"))
    message += f", {tries} failed" if tries else ""
    return RunGoing(message=message, pods=tuple(at_work))


def _pod(deployed: DeployedWorkload, pod: Json) -> RunStatus:
    seen = pod_view(pod)
    if seen.phase == "Succeeded":
        return RunDone(detail="completed")
    if seen.phase == "Failed" and text(dig(pod, "status", "reason")) != "Evicted":
        _, container = _last_failed([pod])
        return RunEnded(
            message=f"{deployed.workload} failed{_exit(container)}",
            cause=text(dig(pod, "status", "message")) or "its restartPolicy starts it no more",
            pod=seen.name,
            container=container.name if container is not None else "",
        )
    if serves(seen, deployed, frozenset()):
        return RunDone(detail="1/1 ready", pods=(pod,))
    return RunGoing(message="0/1 ready", pods=(pod,))


def _custom(deployed: DeployedWorkload, thing: Json) -> RunStatus:
    """By the conditions that most controllers write (Knative, Argo Rollouts, Flagger ...)."""
    generation = generation_of(thing)
    observed = dig(thing, "status", "observedGeneration")
    # Argo Rollouts writes it as a text.
    behind = str(observed).isdigit() and int(str(observed)) < generation
    found = items(dig(thing, "status", "conditions"))
    if not found and not behind:
        return RunDone(detail="applied, nothing says whether it is ready", grace=NO_STATUS)
    good = next((c for kind in _GOOD for c in found if c.get("type") == kind), None)
    if behind or good is None or good.get("status") != "True":
        why = "its controller has not seen it" if behind or good is None else _words(good)
        if good is None and not behind:
            return RunDone(detail="applied, no condition says whether it is ready", grace=NO_STATUS)
        return RunGoing(message=f"waiting for {deployed.workload}: {why}")
    return RunDone(detail=f"{good['type']}")


def _words(found: Json) -> str:
    said = text(found.get("message")) or text(found.get("reason")) or "no reason given"
    return f"{found.get('type')} is {found.get('status')} ({' '.join(said.split())})"


def _last_failed(pods: Iterable[Json]) -> tuple[str, ContainerView | None]:
    """The pod that failed last and its container that did."""
    for pod in sorted(pods, key=_created, reverse=True):
        seen: PodView = pod_view(pod)
        for container in seen.containers:
            if container.exit_code or container.last_exit_code:
                return name_of(pod), container
    return "", None


def _exit(container: ContainerView | None) -> str:
    if container is None:
        return ""
    return (
        f": container {container.name} exits with {container.exit_code or container.last_exit_code}"
    )


def _created(pod: Json) -> str:
    return text(metadata(pod).get("creationTimestamp"))
