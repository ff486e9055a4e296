"""Say in plain words what is wrong with a pod, from its status, its events and its last log lines.

Pure but for a look at the first line of a script that does not start; never raises, whatever the
JSON looks like. Decides what is certain enough to end a rollout
for; when to look is `rollout`'s business.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import Json, condition, dig, pod_view, text, uid_of
from devloop.cluster.rollout.line_ends import windows_line_ends
from devloop.errors import Code, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.model import ContainerView, PodView


NEVER = float("inf")  # a grace: evidence for the deadline, not a reason to end before it
# How long a state may last before it counts: seconds.
_UNSCHEDULABLE_GRACE = 15.0  # an autoscaler looks every ten
_TO_COME_GRACE = 30.0  # what somebody else may be about to make: a Secret, a volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a pod. `grace` is for how many seconds it must have been so to end the
    rollout: 0 at once, infinity never. `log` asks for a container's log as evidence; `previous`
    for that of its last run. `may_need_others` says that the program itself ended, perhaps for want
    of what is deployed with it; `missing` is the object that is not there: kind in lower case,
    name."""

    diagnosis: Diagnosis
    grace: float
    pod: str
    container: str = ""
    log: bool = False
    previous: bool = False
    may_need_others: bool = False
    missing: tuple[str, str] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.pod, self.container, self.diagnosis.code


def _finding(
    where: PodView | tuple[PodView, ContainerView],
    code: Code,
    message: str,
    cause: str | None,
    *hints: str,
    grace: float = NEVER,
    detail: tuple[str, ...] = (),
    log: bool = False,
    previous: bool = False,
    may_need_others: bool = False,
    missing: re.Match[str] | None = None,
) -> Finding:
    """One about a pod, or about a pod's container."""
    pod, container = where if isinstance(where, tuple) else (where, None)
    return Finding(
        diagnosis=Diagnosis(
            code=code, message=message, cause=cause, suggestions=hints, detail=detail
        ),
        grace=grace,
        pod=pod.name,
        container=container.name if container else "",
        log=log,
        previous=previous,
        may_need_others=may_need_others,
        missing=(missing[1].lower(), missing[2]) if missing else None,
    )


# --- the pod as a whole --------------------------------------------------------------------------


def examine(pod: Json, events: Iterable[Json] = ()) -> Finding | None:
    """The worst thing that is wrong with a pod, None when nothing is. `events` may be all of the
    namespace's."""
    seen = pod_view(pod)
    mine = _events_of(events, uid_of(pod))
    if dig(pod, "status", "reason") == "Evicted":
        return _finding(
            seen,
            Code.POD_EVICTED,
            f"the node evicted pod {seen.name}",
            _one_line(text(dig(pod, "status", "message"))),
            "free memory or disk on the node, or set resources.requests",
        )
    if mine and not seen.ready and mine[-1].get("reason") == "NodeNotReady":
        # From then on the status is what the kubelet said last.
        return _finding(
            seen,
            Code.POD_NODE_NOT_READY,
            f"node {seen.node} of pod {seen.name} does not answer",
            _one_line(text(mine[-1].get("message"))),
            "`devloop cluster up` starts the nodes of a local cluster that stopped",
            f"if it is gone for good: kubectl delete node {seen.node}",
        )
    for container in seen.containers:
        found = _container(container, seen, mine)
        if found is not None:
            return found
    return _whole_pod(pod, seen, mine)


def _whole_pod(pod: Json, seen: PodView, events: Sequence[Json]) -> Finding | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unschedulable(seen, text(scheduled.get("message")))
    if seen.phase == "Failed":
        reason = text(dig(pod, "status", "reason")) or "it failed"
        return _finding(
            seen,
            Code.POD_UNSCHEDULABLE if reason.startswith("OutOf") else Code.POD_EVICTED,
            f"pod {seen.name} failed: {reason}",
            text(dig(pod, "status", "message")) or None,
        )
    mount = _last_event(events, "FailedMount", "FailedAttachVolume")
    if mount is not None and not any(c.container_id for c in seen.containers):
        message = text(mount.get("message"))
        missing = _MISSING.search(message)
        what = f"{missing[1]} {missing[2]!r} does not exist" if missing else "a volume is missing"
        return _finding(
            seen,
            Code.POD_CONFIG_ERROR,
            f"pod {seen.name} cannot start: {what}",
            _one_line(message),
            "create it, or correct the volume's name in the manifest",
            grace=_TO_COME_GRACE if missing else NEVER,
            missing=missing,
        )
    probe = _last_event(events, "Unhealthy")
    if probe is not None and not seen.ready:
        return _probe_failing(seen, None, probe, grace=NEVER)
    sandbox = _last_event(events, "FailedCreatePodSandBox")
    if sandbox is not None and not seen.ready:
        return _finding(
            seen,
            Code.POD_CONFIG_ERROR,
            f"the node cannot set up pod {seen.name}",
            _one_line(text(sandbox.get("message"))),
            "look at the node: its network plugin or its disk is in trouble",
        )
    return None


def _unschedulable(pod: PodView, message: str) -> Finding:
    hint, grace = "free some room, or ask for less in resources.requests", _UNSCHEDULABLE_GRACE
    if "didn't match" in message and "affinity" in message:
        hint = "correct nodeSelector or affinity: no node has these labels"
    elif "untolerated taint" in message:
        hint = "add a toleration, or use a node without the taint"
    elif re.search("unbound immediate PersistentVolumeClaims|persistentvolumeclaim", message):
        hint = "look at the PersistentVolumeClaim: it is not bound or does not exist"
        grace = _TO_COME_GRACE
    elif "free ports" in message:
        hint = "the hostPort is taken: a rolling update needs it twice; use strategy Recreate"
    code, what = Code.POD_UNSCHEDULABLE, f"no node takes pod {pod.name}"
    return _finding(pod, code, what, _one_line(message), hint, grace=grace)


def _probe_failing(
    pod: PodView, container: ContainerView | None, event: Json, *, grace: float
) -> Finding:
    message = text(event.get("message"))
    kind = message.split(" ", 1)[0].lower()
    kind = kind if kind in {"readiness", "liveness", "startup"} else "a"
    if container is None:
        container = next((c for c in pod.containers if not c.init and not c.ready), None)
    return _finding(
        (pod, container) if container else pod,
        Code.POD_PROBE_FAILING,
        f"{kind} probe of pod {pod.name} keeps failing",
        _one_line(message),
        "check the probe's path and port, and that the app listens on 0.0.0.0",
        grace=grace,
        log=True,
        may_need_others=True,
    )


# --- one of its containers -----------------------------------------------------------------------

_MISSING = re.compile(r'(configmap|secret) "([^"]+)" not found')
_MISSING_KEY = re.compile(r"couldn't find key \S+ in (ConfigMap|Secret) [^/\s]+/(\S+)")
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


def _container(container: ContainerView, pod: PodView, events: Sequence[Json]) -> Finding | None:
    if container.reason in _PULL:
        return _image_pull(container, pod, events)
    if "exec format error" in container.message:
        return _wrong_arch(container, pod, container.message)
    if container.reason in _CREATE:
        return _create(container, pod)
    ended = container.state == "terminated"
    if "OOMKilled" in {container.reason, container.last_reason} and not container.ready:
        return _oom(container, pod)
    if container.last_reason in _CREATE and not container.ready:
        return _create(container, pod)
    # One that runs may do better this time.
    looping = container.reason == "CrashLoopBackOff" or (ended and container.restarts >= 1)
    if container.init:
        return _init(container, pod, looping=looping)
    if container.ready and container.state == "running":
        return None
    if ended or looping or container.restarts >= 1:
        return _crash(container, pod, events, certain=looping)
    return None


def _image_pull(container: ContainerView, pod: PodView, events: Sequence[Json]) -> Finding:
    failures = [
        e for e in events if e.get("reason") == "Failed" and "ull image" in text(e.get("message"))
    ]
    story = text(failures[-1].get("message")) if failures else container.message
    if "no match for platform" in story or "does not match the specified platform" in story:
        return _wrong_arch(container, pod, story)
    hints, certain = _pull_hint(story, container)
    tries = sum(map(_event_count, failures))
    # The last link of containerd's chain of causes is the one that says something.
    short = re.sub(r"^.*?(?:rpc error: code = \w+ desc = )", "", story, flags=re.DOTALL)
    short = re.sub(r"^failed to (?:pull and unpack|resolve) (?:image|reference) \S+: ", "", short)
    return _finding(
        (pod, container),
        Code.POD_IMAGE_PULL,
        f"the node cannot pull {container.image} for pod {pod.name}",
        _one_line(short) or container.reason,
        *hints,
        grace=0.0 if certain or tries >= 2 else NEVER,
        detail=(story,) if story else (),
    )


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
    if any(w in lower for w in ("not found", "manifest unknown")):
        gone = (
            "see that the registry has it: devloop build --push builds and pushes what is on disk"
        )
        return (gone, f"or {inside}"), True
    if "no such host" in lower:
        return (inside,), True
    if "no space left" in lower:
        return ("the node's disk is full: remove images there",), True
    return (inside,), False


def _wrong_arch(container: ContainerView, pod: PodView, story: str) -> Finding:
    return _finding(
        (pod, container),
        Code.POD_WRONG_ARCH,
        f"container {container.name} of pod {pod.name} is made for another processor",
        _one_line(story),
        "set `build.platform` to the nodes' platform (devloop does if you leave it out)",
        "or use a base image that has the nodes' platform",
        grace=0.0,
        log=True,
    )


def _create(container: ContainerView, pod: PodView) -> Finding:
    message = container.message
    hint = "correct the container's configuration in the manifest"
    missing = _MISSING.search(message)
    to_come = missing or _MISSING_KEY.search(message)
    if missing:
        hint = f"create the {missing[1]} {missing[2]!r}, or correct its name in the manifest"
    elif "not found in $PATH" in message or "no such file or directory" in message:
        hint = "correct the command: the image has no such file (see ENTRYPOINT and CMD)"
    elif "permission denied" in message:
        hint = "make the command executable in the image (chmod +x)"
    elif "runAsNonRoot" in message:
        hint = "give the image a numeric USER, or change the pod's securityContext"
    return _finding(
        (pod, container),
        Code.POD_CONFIG_ERROR,
        f"container {container.name} of pod {pod.name} cannot be started",
        _one_line(message) or container.reason or container.last_reason,
        hint,
        grace=_TO_COME_GRACE if to_come else 0.0,
        missing=missing,
        may_need_others=container.reason == "PostStartHookError",
    )


def _oom(container: ContainerView, pod: PodView) -> Finding:
    return _finding(
        (pod, container),
        Code.POD_OOM_KILLED,
        f"container {container.name} of pod {pod.name} ran out of memory",
        "the kernel killed it at its memory limit (OOMKilled, exit code 137)",
        "raise resources.limits.memory in the manifest, or use less memory",
        grace=0.0,
        log=True,
        previous=container.state != "terminated",
    )


def _ended(container: ContainerView) -> int | None:
    return container.exit_code if container.state == "terminated" else container.last_exit_code


def _init(container: ContainerView, pod: PodView, *, looping: bool) -> Finding | None:
    code = _ended(container)
    if container.state == "running" or code in {0, None}:
        return None
    return _finding(
        (pod, container),
        Code.POD_INIT_FAILING,
        f"init container {container.name} of pod {pod.name} fails (exit code {code})",
        exit_meaning(code),
        "the pod starts only after it succeeds",
        grace=0.0 if looping else NEVER,
        log=True,
        previous=container.state != "terminated",
        may_need_others=True,
    )


def _crash(
    container: ContainerView, pod: PodView, events: Sequence[Json], *, certain: bool
) -> Finding:
    code = _ended(container)
    grace = 0.0 if certain else NEVER
    liveness = [e for e in events if text(e.get("message")).startswith("Liveness probe failed")]
    if liveness and code in {137, 143, None}:
        return _probe_failing(pod, container, liveness[-1], grace=grace)
    restarts = f"{container.restarts} restart{'' if container.restarts == 1 else 's'}"
    how, often = ("keeps exiting", f", {restarts}") if container.restarts else ("ended", "")
    return _finding(
        (pod, container),
        Code.POD_CRASH_LOOP,
        f"container {container.name} of pod {pod.name} {how} "
        f"(exit code {'unknown' if code is None else code}{often})",
        exit_meaning(code),
        grace=grace,
        log=True,
        previous=container.state != "terminated",
        may_need_others=True,
    )


# --- what its log and its events say -------------------------------------------------------------

_TELLING = re.compile(
    r"(\w*(Error|Exception)\b.*:|\bpanic:|\bfatal\b|\bFATAL\b|\berror:|No such file|cannot )"
)


_ENDED_BY_ITSELF = {Code.POD_CRASH_LOOP, Code.POD_INIT_FAILING, Code.POD_PROCESS_ENDED}


def with_log(
    finding: Finding, lines: Sequence[str], project_paths: ProjectPaths | None = None
) -> Diagnosis:
    """The diagnosis with the container's last log lines as evidence, and the most telling of them
    in its cause; where they name a line of the project's source, that is its place.
    `project_paths` knows the container's files."""
    kept = [line.rstrip() for line in lines if line.strip()]
    diagnosis = finding.diagnosis
    if any("exec format error" in line for line in kept[-3:]):
        return Diagnosis(
            code=Code.POD_WRONG_ARCH,
            message=f"container {finding.container} of pod {finding.pod} is made for another "
            "processor",
            cause=kept[-1],
            suggestions=("set `build.platform` to the nodes' platform",),
            detail=tuple(kept[-20:]),
        )
    if not kept:
        return diagnosis
    cause = diagnosis.cause
    line_ends = None
    if diagnosis.code in _ENDED_BY_ITSELF:
        line_ends = windows_line_ends(kept, project_paths)
        telling = next((line for line in reversed(kept) if _TELLING.search(line)), kept[-1])
        cause = f"{telling.strip()[:300]} ({cause})"
        if project_paths is not None:
            # Imported late: its many patterns take a while, and most sessions see no crash.
            from devloop.cluster.rollout.stack_traces import crash_location  # noqa: PLC0415

            diagnosis = replace(diagnosis, location=crash_location(kept, project_paths))
    if line_ends is not None:
        cause = line_ends.cause
        place = Location(line_ends.path, 1, 1) if line_ends.path else diagnosis.location
        hints = (*line_ends.suggestions, *diagnosis.suggestions)
        diagnosis = replace(diagnosis, location=place, suggestions=hints)
    said = kept[-20:]
    if diagnosis.code in _ENDED_BY_ITSELF:
        said = said[_last_trace(said) :]
    return replace(diagnosis, cause=cause, detail=(*diagnosis.detail, *said))


_TRACE = re.compile(r"Traceback \(most recent call last\):|panic: |fatal error: ")
_GOES_ON = re.compile(r"(During handling|The above exception)\b")


def _last_trace(lines: Sequence[str]) -> int:
    """Where what the last crash said begins, with the exceptions that led to it; 0 for all."""
    heads = [number for number, line in enumerate(lines) if _TRACE.match(line)]
    while len(heads) > 1 and _GOES_ON.match(lines[heads[-1] - 1]):
        heads.pop()
    return heads[-1] if heads else 0


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
    killed = 128 < code < 160
    other = f"killed by signal {code - 128}" if killed else "the program ended with an error"
    return _EXITS.get(code, other)


def _events_of(events: Iterable[Json], uid: str) -> list[Json]:
    """The events about one object, oldest first."""
    found = [e for e in events if uid and dig(e, "involvedObject", "uid") == uid]
    return sorted(found, key=_event_time)


def _event_time(event: Json) -> str:
    made = dig(event, "metadata", "creationTimestamp")
    return text(event.get("lastTimestamp")) or text(event.get("eventTime")) or text(made)


def _event_count(event: Json) -> int:
    counts = (event.get("count"), dig(event, "series", "count"), 1)
    return next(count for count in counts if isinstance(count, int))


def _last_event(events: Sequence[Json], *reasons: str) -> Json | None:
    return next((e for e in reversed(events) if e.get("reason") in reasons), None)


def _one_line(message: str) -> str | None:
    return " ".join(message.split())[:500] or None
