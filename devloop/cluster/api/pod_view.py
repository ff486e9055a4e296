"""Read a pod's JSON into a `PodView`, and who owns it. Pure; never raises on odd JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from devloop.model import ContainerView, PodView

if TYPE_CHECKING:
    from collections.abc import Iterable


# What a container waits for on its way up; everything else is a failure.
STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})

# An object of the API, or a part of one: plain JSON, never to be changed by its readers.
Json = Mapping[str, Any]

State = Literal["waiting", "running", "terminated", "unknown"]


def dig(value: object, *path: str) -> Any:
    """`dig(pod, "status", "phase")`: None as soon as something is not a mapping."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def number(value: object, default: int = 0) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def generation_of(thing: Json) -> int:
    """How often its spec was changed, as the API server counts; 0 where it does not."""
    return number(metadata(thing).get("generation"))


def items(value: object) -> list[dict[str, Any]]:
    """The mappings in a list, and nothing else."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def metadata(thing: Json) -> dict[str, Any]:
    value = thing.get("metadata")
    return value if isinstance(value, dict) else {}


def name_of(thing: Json) -> str:
    return text(metadata(thing).get("name"))


def uid_of(thing: Json) -> str:
    return text(metadata(thing).get("uid"))


def labels(thing: Json) -> dict[str, Any]:
    value = metadata(thing).get("labels")
    return value if isinstance(value, dict) else {}


def annotation(thing: Json, key: str) -> str:
    return text(dig(metadata(thing), "annotations", key))


def controller_of(thing: Json) -> tuple[str, str, str] | None:
    """(kind, name, uid) of the owner that controls it."""
    for owner in items(metadata(thing).get("ownerReferences")):
        if owner.get("controller") is True:
            return text(owner.get("kind")), text(owner.get("name")), text(owner.get("uid"))
    return None


def controlled_by(thing: Json, uid: str) -> bool:
    owner = controller_of(thing)
    return owner is not None and owner[2] == uid


def alive(pods: Iterable[Json]) -> list[Json]:
    """The pods that are neither being deleted nor at their end."""
    return [
        p
        for p in pods
        if not metadata(p).get("deletionTimestamp")
        and dig(p, "status", "phase") not in {"Succeeded", "Failed"}
    ]


def template_path(workload: Json) -> tuple[str, ...]:
    """Where the spec of a workload's pods is: a Deployment's, a CronJob's, a Pod's own."""
    spec = dig(workload, "spec")
    if dig(spec, "jobTemplate") is not None:
        return "spec", "jobTemplate", "spec", "template", "spec"
    return ("spec",) if dig(spec, "containers") else ("spec", "template", "spec")


def images_of(workload: Json) -> dict[str, str]:
    """Container -> image of a workload's pods, init containers included."""
    return _images(dig(workload, *template_path(workload)))


def pod_images(pod: Json) -> dict[str, str]:
    """Container -> image as the pod's spec asks for it, init containers included."""
    return _images(dig(pod, "spec"))


def _images(spec: object) -> dict[str, str]:
    return {
        text(c.get("name")): text(c.get("image"))
        for key in ("initContainers", "containers")
        for c in items(dig(spec, key))
    }


def container_status(pod: Json, container: str) -> Json:
    """What the kubelet reports of a main container; empty when it reports nothing."""
    statuses = items(dig(pod, "status", "containerStatuses"))
    return next((s for s in statuses if text(s.get("name")) == container), {})


def condition(thing: Json, kind: str) -> dict[str, Any]:
    """The status condition of type `kind`; empty when there is none."""
    entries = items(dig(thing, "status", "conditions"))
    return next((entry for entry in entries if entry.get("type") == kind), {})


def pod_view(pod: Json) -> PodView:
    marks = labels(pod)
    return PodView(
        name=name_of(pod),
        uid=uid_of(pod),
        namespace=text(metadata(pod).get("namespace")),
        created=text(metadata(pod).get("creationTimestamp")),
        phase=text(dig(pod, "status", "phase")),
        ready=condition(pod, "Ready").get("status") == "True",
        deleting=bool(metadata(pod).get("deletionTimestamp")),
        node=text(dig(pod, "spec", "nodeName")),
        revision=text(marks.get("pod-template-hash"))
        or text(marks.get("controller-revision-hash")),
        containers=_containers(pod),
    )


def _containers(pod: Json) -> tuple[ContainerView, ...]:
    """Init containers first, each in the order of the spec, reported by the kubelet or not."""
    found: list[ContainerView] = []
    for key, init in (("initContainer", True), ("container", False)):
        specs = {text(s.get("name")): s for s in items(dig(pod, "spec", f"{key}s"))}
        reported = {text(s.get("name")): s for s in items(dig(pod, "status", f"{key}Statuses"))}
        found += [
            _container(name, specs.get(name, {}), reported.get(name, {}), init=init)
            for name in specs | reported
        ]
    return tuple(found)


def _container(name: str, spec: Json, status: Json, *, init: bool) -> ContainerView:
    state, inside = _state(status.get("state"))
    _, last = _state(status.get("lastState"))
    return ContainerView(
        name=name,
        image=text(spec.get("image")) or text(status.get("image")),
        image_id=text(status.get("imageID")),
        container_id=text(status.get("containerID")),
        state=state,
        ready=status.get("ready") is True,
        started=status.get("started") is True,
        restarts=number(status.get("restartCount")),
        reason=text(inside.get("reason")),
        message=text(inside.get("message")),
        exit_code=_exit(inside),
        last_exit_code=_exit(last),
        last_reason=text(last.get("reason")),
        init=init,
        mounts=tuple(text(m.get("mountPath")) for m in items(spec.get("volumeMounts"))),
        named_ports=tuple(
            (text(port["name"]), number(port.get("containerPort")))
            for port in items(spec.get("ports"))
            if port.get("name")
        ),
        ports=_ports(spec),
    )


def _ports(spec: Json) -> frozenset[int]:
    """The TCP ports of a container's spec: what it declares, and what its probes connect to."""
    declared = [p for p in items(spec.get("ports")) if p.get("protocol", "TCP") == "TCP"]
    named = {p.get("name"): p.get("containerPort") for p in declared}
    probed = [
        dig(spec, probe, how, "port")
        for probe in ("readinessProbe", "livenessProbe", "startupProbe")
        for how in ("httpGet", "tcpSocket", "grpc")
        if dig(spec, probe, how, "host") is None
    ]
    found = [*named.values(), *(named.get(port, port) for port in probed)]
    found += [int(port) for port in found if isinstance(port, str) and port.isdecimal()]
    return frozenset(port for port in found if isinstance(port, int))


def _state(value: object) -> tuple[State, dict[str, Any]]:
    known: tuple[State, ...] = ("running", "terminated", "waiting")
    for name in known:
        inside = dig(value, name)
        if isinstance(inside, dict):
            return name, inside
    return "unknown", {}


def _exit(inside: Json) -> int | None:
    code = inside.get("exitCode")
    return code if isinstance(code, int) and not isinstance(code, bool) else None
