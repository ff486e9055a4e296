"""What is wrong with one container of a pod. Pure; part of `diagnose`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, text
from devloop.cluster.rollout.finding import NEVER, Finding, event_count, exit_meaning, one_line
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.model import ContainerView, PodView


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


def examine_container(
    container: ContainerView, pod: PodView, events: Sequence[Json]
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


def _image_pull(container: ContainerView, pod: PodView, events: Sequence[Json]) -> Finding:
    failures = [
        e for e in events if e.get("reason") == "Failed" and "ull image" in text(e.get("message"))
    ]
    story = text(failures[-1].get("message")) if failures else container.message
    if "no match for platform" in story or "does not match the specified platform" in story:
        return _wrong_arch(container, pod, story, grace=0.0)
    hint, certain = _pull_hint(story, container)
    tries = sum(map(event_count, failures))
    return Finding(
        diagnosis=Diagnosis(
            code=Code.POD_IMAGE_PULL,
            message=f"the node cannot pull {container.image} for pod {pod.name}",
            cause=one_line(_short_pull(story)) or container.reason,
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
            code=Code.POD_WRONG_ARCH,
            message=f"container {container.name} of pod {pod.name} is made for another processor",
            cause=one_line(story),
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
            code=Code.POD_CONFIG_ERROR,
            message=f"container {container.name} of pod {pod.name} cannot be started",
            cause=one_line(message) or container.reason or container.last_reason,
            suggestions=(hint,),
        ),
        grace=0.0,
        pod=pod.name,
        container=container.name,
    )


def _oom(container: ContainerView, pod: PodView) -> Finding:
    return Finding(
        diagnosis=Diagnosis(
            code=Code.POD_OOM_KILLED,
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
            code=Code.POD_INIT_FAILING,
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
    container: ContainerView, pod: PodView, events: Sequence[Json], *, certain: bool
) -> Finding:
    code = _ended(container)
    liveness = [e for e in events if text(e.get("message")).startswith("Liveness probe failed")]
    if liveness and code in {137, 143, None}:
        return probe_failing(pod, container.name, liveness[-1], grace=0.0 if certain else NEVER)
    return Finding(
        diagnosis=Diagnosis(
            code=Code.POD_CRASH_LOOP,
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


def probe_failing(pod: PodView, container: str, event: Json, *, grace: float) -> Finding:
    message = text(event.get("message"))
    kind = message.split(" ", 1)[0].lower()
    kind = kind if kind in {"readiness", "liveness", "startup"} else "a"
    running = next((c.name for c in pod.containers if not c.init and not c.ready), "")
    return Finding(
        diagnosis=Diagnosis(
            code=Code.POD_PROBE_FAILING,
            message=f"{kind} probe of pod {pod.name} keeps failing",
            cause=one_line(message),
            suggestions=("check the probe's path and port, and that the app listens on 0.0.0.0",),
        ),
        grace=grace,
        pod=pod.name,
        container=container or running,
        log=True,
    )
