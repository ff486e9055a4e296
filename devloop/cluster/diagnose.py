"""Say in plain words what is wrong with a pod, from its status, its events and its last log lines.

Pure; never raises, whatever the JSON looks like. Decides what is certain enough to end a rollout
for; when to look is `rollout`'s business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from devloop.cluster.podview import condition, dig, name_of, pod_view, text, uid_of
from devloop.errors import Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from devloop.model import ContainerView, PodView

__all__ = ["Finding", "events_of", "examine", "exit_meaning", "with_log"]

# How long a state may last before it counts: seconds.
_UNSCHEDULABLE_GRACE = 5.0
_MOUNT_GRACE = 8.0
NEVER = float("inf")  # evidence for the deadline, not a reason to end before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a pod. `grace` is for how many seconds it must have been so to end the
    rollout: 0 at once, infinity never. `log` asks for a container's log as evidence; `previous`
    for that of its last run."""

    diagnosis: Diagnosis
    grace: float
    pod: str
    container: str = ""
    log: bool = False
    previous: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.pod, self.container, self.diagnosis.code


_EXITS = {
    0: "the main process ended by itself; a service must keep running",
    1: "the program ended with an error",
    2: "the program was called with wrong arguments, or ended with an error",
    126: "the command was found but may not be executed",
    127: "the command was not found",
    128: "the container could not be started",
    130: "interrupted (SIGINT)",
    134: "the program aborted (SIGABRT)",
    135: "bus error (SIGBUS)",
    136: "arithmetic error (SIGFPE)",
    137: "killed (SIGKILL): out of memory, or it did not stop in time",
    139: "segmentation fault (SIGSEGV)",
    143: "told to stop (SIGTERM)",
    255: "the program ended with an error outside 0-254",
}


def exit_meaning(code: int | None) -> str:
    """What an exit code says; codes above 128 are 128 + the signal's number."""
    if code is None:
        return "it ended in an unknown way"
    if code in _EXITS:
        return _EXITS[code]
    if 128 < code < 160:
        return f"killed by signal {code - 128}"
    return "the program ended with an error"


def events_of(events: Iterable[Mapping[str, Any]], uid: str) -> list[Mapping[str, Any]]:
    """The events about one object, oldest first."""
    found = [e for e in events if uid and dig(e, "involvedObject", "uid") == uid]
    return sorted(found, key=_event_time)


def _event_time(event: Mapping[str, Any]) -> str:
    return (
        text(event.get("lastTimestamp"))
        or text(event.get("eventTime"))
        or text(dig(event, "metadata", "creationTimestamp"))
    )


def _event_count(event: Mapping[str, Any]) -> int:
    for count in (event.get("count"), dig(event, "series", "count")):
        if isinstance(count, int):
            return count
    return 1


def examine(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> Finding | None:
    """The worst thing that is wrong with a pod, None when nothing is. `events` may be all of the
    namespace's."""
    seen = pod_view(pod)
    mine = events_of(events, uid_of(pod))
    if dig(pod, "status", "reason") == "Evicted":
        return _evicted(pod, seen)
    for container in seen.containers:
        found = _container(container, seen, mine)
        if found is not None:
            return found
    return _whole_pod(pod, seen, mine)


def _whole_pod(
    pod: Mapping[str, Any], seen: PodView, events: Sequence[Mapping[str, Any]]
) -> Finding | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unschedulable(seen, text(scheduled.get("message")))
    if seen.phase == "Failed":
        reason = text(dig(pod, "status", "reason")) or "it failed"
        return Finding(
            diagnosis=Diagnosis(
                code="pod/unschedulable" if reason.startswith("OutOf") else "pod/evicted",
                message=f"pod {seen.name} failed: {reason}",
                cause=text(dig(pod, "status", "message")) or None,
            ),
            grace=NEVER,
            pod=seen.name,
        )
    mount = _last(events, "FailedMount", "FailedAttachVolume")
    if mount is not None and not any(c.container_id for c in seen.containers):
        message = text(mount.get("message"))
        missing = re.search(r'(configmap|secret) "([^"]+)" not found', message)
        what = f"{missing[1]} {missing[2]!r} does not exist" if missing else "a volume is missing"
        return Finding(
            diagnosis=Diagnosis(
                code="pod/config-error",
                message=f"pod {seen.name} cannot start: {what}",
                cause=_line(message),
                suggestions=("create it, or correct the volume's name in the manifest",),
            ),
            grace=_MOUNT_GRACE if missing else NEVER,
            pod=seen.name,
        )
    probe = _last(events, "Unhealthy")
    if probe is not None and not seen.ready:
        return _probe(seen, "", probe, grace=NEVER)
    sandbox = _last(events, "FailedCreatePodSandBox")
    if sandbox is not None and not seen.ready:
        return Finding(
            diagnosis=Diagnosis(
                code="pod/config-error",
                message=f"the node cannot set up pod {seen.name}",
                cause=_line(text(sandbox.get("message"))),
                suggestions=("look at the node: its network plugin or its disk is in trouble",),
            ),
            grace=NEVER,
            pod=seen.name,
        )
    return None


def _last(events: Sequence[Mapping[str, Any]], *reasons: str) -> Mapping[str, Any] | None:
    return next((e for e in reversed(events) if e.get("reason") in reasons), None)


def _line(message: str) -> str | None:
    return " ".join(message.split())[:500] or None


_PULL = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
_CREATE = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
    "PostStartHookError",
    "PreCreateHookError",
    "PreStartHookError",
}


def _container(
    container: ContainerView, pod: PodView, events: Sequence[Mapping[str, Any]]
) -> Finding | None:
    if container.reason in _PULL:
        return _image_pull(container, pod, events)
    if "exec format error" in container.message:
        return _wrong_arch(container, pod, container.message, grace=0.0)
    if container.reason in _CREATE:
        return _create(container, pod)
    ended = container.state == "terminated"
    if "OOMKilled" in {container.reason, container.last_reason} and not container.ready:
        return _oom(container, pod)
    if container.last_reason in _CREATE and not container.ready:
        return _create(container, pod)
    again = container.restarts >= 1 and (ended or container.reason == "CrashLoopBackOff")
    looping = container.reason == "CrashLoopBackOff" or container.restarts >= 2 or again
    if container.init:
        return _init(container, pod, looping=looping)
    if container.ready and container.state == "running":
        return None
    if ended or looping or container.restarts >= 1:
        return _crash(container, pod, events, certain=looping)
    return None


def _image_pull(
    container: ContainerView, pod: PodView, events: Sequence[Mapping[str, Any]]
) -> Finding:
    failures = [
        e for e in events if e.get("reason") == "Failed" and "ull image" in text(e.get("message"))
    ]
    story = text(failures[-1].get("message")) if failures else container.message
    if "no match for platform" in story or "does not match the specified platform" in story:
        return _wrong_arch(container, pod, story, grace=0.0)
    hint, certain = _pull_hint(story, container)
    tries = sum(map(_event_count, failures))
    return Finding(
        diagnosis=Diagnosis(
            code="pod/image-pull",
            message=f"the node cannot pull {container.image} for pod {pod.name}",
            cause=_line(_short_pull(story)) or container.reason,
            suggestions=hint,
            detail=(story,) if story else (),
        ),
        grace=0.0 if certain or tries >= 2 else NEVER,
        pod=pod.name,
        container=container.name,
    )


def _short_pull(story: str) -> str:
    """The last link of containerd's chain of causes, which is the one that says something."""
    story = re.sub(r"^.*?(?:rpc error: code = \w+ desc = )", "", story, flags=re.DOTALL)
    return re.sub(r"^failed to (?:pull and unpack|resolve) (?:image|reference) \S+: ", "", story)


def _pull_hint(story: str, container: ContainerView) -> tuple[tuple[str, ...], bool]:
    """Suggestions, and whether another try would be in vain."""
    registry = container.image.partition("/")[0]
    inside = (
        f"inside the cluster {registry} may be another machine: wire the registry into the nodes "
        "(devloop cluster up), or set `registry:` to a name that both know"
    )
    lower = story.lower()
    if container.reason == "InvalidImageName":
        return ("correct the image name",), True
    if container.reason == "ErrImageNeverPull":
        return ("imagePullPolicy is Never and the node does not have the image: load it",), True
    if "http response to https client" in lower:
        return ("the registry speaks plain HTTP: allow that in the nodes' containerd", inside), True
    if any(w in lower for w in ("unauthorized", "denied", "authentication required", "403")):
        return ("the nodes need credentials: add an imagePullSecret",), True
    if "not found" in lower or "manifest unknown" in lower:
        return (inside,), True
    if "no such host" in lower:
        return (inside,), True
    if "no space left" in lower:
        return ("the node's disk is full: remove images there",), True
    return (inside,), False


def _wrong_arch(container: ContainerView, pod: PodView, story: str, *, grace: float) -> Finding:
    return Finding(
        diagnosis=Diagnosis(
            code="pod/wrong-arch",
            message=f"container {container.name} of pod {pod.name} is made for another processor",
            cause=_line(story),
            suggestions=(
                "set `build.platform` to the nodes' platform (devloop does if you leave it out)",
                "or use a base image that has the nodes' platform",
            ),
        ),
        grace=grace,
        pod=pod.name,
        container=container.name,
        log=True,
    )


def _create(container: ContainerView, pod: PodView) -> Finding:
    message = container.message
    hint = "correct the container's configuration in the manifest"
    missing = re.search(r'(configmap|secret) "([^"]+)" not found', message)
    if missing:
        hint = f"create the {missing[1]} {missing[2]!r}, or correct its name in the manifest"
    elif "not found in $PATH" in message or "no such file or directory" in message:
        hint = "correct the command: the image has no such file (see ENTRYPOINT and CMD)"
    elif "permission denied" in message:
        hint = "make the command executable in the image (chmod +x)"
    elif "runAsNonRoot" in message:
        hint = "give the image a numeric USER, or change the pod's securityContext"
    return Finding(
        diagnosis=Diagnosis(
            code="pod/config-error",
            message=f"container {container.name} of pod {pod.name} cannot be started",
            cause=_line(message) or container.reason or container.last_reason,
            suggestions=(hint,),
        ),
        grace=0.0,
        pod=pod.name,
        container=container.name,
    )


def _oom(container: ContainerView, pod: PodView) -> Finding:
    return Finding(
        diagnosis=Diagnosis(
            code="pod/oom-killed",
            message=f"container {container.name} of pod {pod.name} ran out of memory",
            cause="the kernel killed it at its memory limit (OOMKilled, exit code 137)",
            suggestions=("raise resources.limits.memory in the manifest, or use less memory",),
        ),
        grace=0.0,
        pod=pod.name,
        container=container.name,
        log=True,
        previous=container.state != "terminated",
    )


def _ended(container: ContainerView) -> int | None:
    return container.exit_code if container.state == "terminated" else container.last_exit_code


def _times(count: int) -> str:
    return f"{count} restart{'' if count == 1 else 's'}"


def _init(container: ContainerView, pod: PodView, *, looping: bool) -> Finding | None:
    code = _ended(container)
    if container.state == "running" or code in {0, None}:
        return None
    return Finding(
        diagnosis=Diagnosis(
            code="pod/init-failing",
            message=f"init container {container.name} of pod {pod.name} fails (exit code {code})",
            cause=exit_meaning(code),
            suggestions=("the pod starts only after it succeeds",),
        ),
        grace=0.0 if looping else NEVER,
        pod=pod.name,
        container=container.name,
        log=True,
        previous=container.state != "terminated",
    )


def _crash(
    container: ContainerView,
    pod: PodView,
    events: Sequence[Mapping[str, Any]],
    *,
    certain: bool,
) -> Finding:
    code = _ended(container)
    liveness = [e for e in events if text(e.get("message")).startswith("Liveness probe failed")]
    if liveness and code in {137, 143, None}:
        return _probe(pod, container.name, liveness[-1], grace=0.0 if certain else NEVER)
    return Finding(
        diagnosis=Diagnosis(
            code="pod/crash-loop",
            message=(
                f"container {container.name} of pod {pod.name} keeps exiting "
                f"(exit code {'unknown' if code is None else code}, {_times(container.restarts)})"
            ),
            cause=exit_meaning(code),
        ),
        grace=0.0 if certain else NEVER,
        pod=pod.name,
        container=container.name,
        log=True,
        previous=container.state != "terminated",
    )


def _probe(pod: PodView, container: str, event: Mapping[str, Any], *, grace: float) -> Finding:
    message = text(event.get("message"))
    kind = message.split(" ", 1)[0].lower()
    kind = kind if kind in {"readiness", "liveness", "startup"} else "a"
    running = next((c.name for c in pod.containers if not c.init and not c.ready), "")
    return Finding(
        diagnosis=Diagnosis(
            code="pod/probe-failing",
            message=f"{kind} probe of pod {pod.name} keeps failing",
            cause=_line(message),
            suggestions=("check the probe's path and port, and that the app listens on 0.0.0.0",),
        ),
        grace=grace,
        pod=pod.name,
        container=container or running,
        log=True,
    )


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
            code="pod/unschedulable",
            message=f"no node takes pod {pod.name}",
            cause=_line(message),
            suggestions=(hint,),
        ),
        grace=_UNSCHEDULABLE_GRACE,
        pod=pod.name,
    )


def _evicted(pod: Mapping[str, Any], seen: PodView) -> Finding:
    return Finding(
        diagnosis=Diagnosis(
            code="pod/evicted",
            message=f"the node evicted pod {name_of(pod)}",
            cause=_line(text(dig(pod, "status", "message"))),
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
            code="pod/wrong-arch",
            message=f"container {finding.container} of pod {finding.pod} is made for another "
            "processor",
            cause=kept[-1],
            suggestions=("set `build.platform` to the nodes' platform",),
        )
        return replace(changed, detail=tuple(kept[-20:]))
    if not kept:
        return diagnosis
    cause = diagnosis.cause
    if diagnosis.code in {"pod/crash-loop", "pod/init-failing"}:
        telling = next((line for line in reversed(kept) if _TELLING.search(line)), kept[-1])
        cause = f"{telling.strip()[:300]} ({cause})"
    return replace(diagnosis, cause=cause, detail=(*diagnosis.detail, *kept[-20:]))
