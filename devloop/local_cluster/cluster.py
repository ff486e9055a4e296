"""The cluster's own life: created by kind, started again, waited for, given up with advice.

Talks to the API server through the kubectl inside the control-plane node, so that the host needs
none and a broken kubeconfig does not matter.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass, replace
from typing import Any

from devloop.base.cancel import Cancel
from devloop.errors import Code, DevloopError
from devloop.local_cluster.machine import MARK, Machine, NodeContainer, Probe, probe
from devloop.local_cluster.run import CompletedProgram, docker, kind, last_words
from devloop.local_cluster.steps import ClusterProgress, Report, step
from devloop.local_cluster.wiring import (
    KIND_CONFIG,
    certs_dir,
    kubeconfig_has,
    kubeconfig_paths,
)

__all__ = [
    "Api",
    "ask_api",
    "await_nodes",
    "beyond_repair",
    "control_plane",
    "create",
    "delete",
    "in_kubeconfig",
    "kubectl",
    "made_by_devloop",
    "probe_all",
    "start",
    "valid_name",
]

_CREATE = 900.0  # seconds; the node image may have to be pulled
_API_SOON = 15.0  # time to come back before it is worth asking why not
_API_RUNNING = 60.0
_API_STARTED = 150.0


@dataclass(frozen=True, slots=True)
class Api:
    """What the API server said: node name -> ready, and the hosting ConfigMap if there is one."""

    ready: dict[str, bool]
    hosting: dict[str, Any] | None = None


def probe_all(machine: Machine, folder: str, cancel: Cancel) -> tuple[Probe, ...]:
    return tuple(probe(node, folder, cancel) for node in machine.nodes)


def create(name: str, node_image: str | None, report: Report, cancel: Cancel) -> None:
    """Make the cluster and mark its nodes as made by devloop; all of it or nothing."""
    image = ("--image", node_image) if node_image else ()
    with step(report, "cluster", slow="creating with kind, about a minute") as note:
        try:
            kind(
                *("create", "cluster", "--name", name, "--config", "-", *image),
                cancel=cancel,
                timeout=_CREATE,
                given=KIND_CONFIG,
                on_line=lambda line: _relay(line, report),
            )
            for node in kind("get", "nodes", "--name", name, cancel=cancel, timeout=30).out.split():
                docker("exec", node, "touch", MARK, cancel=cancel)
        except BaseException:
            # kind cleans up after its own errors only. Whoever cancelled waits for this second.
            with contextlib.suppress(DevloopError):
                kind("delete", "cluster", "--name", name, cancel=Cancel(), timeout=30)
            raise
        note("created")


def _relay(line: str, report: Report) -> None:
    # kind announces each of its steps with a bullet and an emoji, and repeats it with a tick.
    if line.strip().startswith("•"):
        words = line.encode("ascii", "ignore").decode().strip(" .")
        report(ClusterProgress(step="cluster", state="said", detail=words))


def start(
    name: str, machine: Machine, report: Report, cancel: Cancel, *, quiet: bool = False
) -> Api:
    """Start what is stopped and wait for the API server; says nothing when `quiet`.

    Errors: cluster/provision with the way out when the cluster does not come back."""
    if quiet:
        return _await_api(name, control_plane(name, machine), _API_STARTED, cancel)
    plane = control_plane(name, machine)
    asleep = [node for node in machine.nodes if not node.running]
    with step(report, "cluster", slow="starting" if asleep else "") as note:
        for node in asleep:
            verb = "unpause" if node.state == "paused" else "start"
            done = docker(verb, node.name, cancel=cancel, timeout=60, check=False)
            if not done.ok:
                raise beyond_repair(name, f"node {node.name} does not start", last_words(done))
        if asleep:
            seen = probe(replace(plane, state="running"), certs_dir(0), cancel)
            if not seen.finished:
                raise beyond_repair(name, "its making was cut short", ())
        api = _ask_for(plane, _API_SOON, cancel)[0]
        if api is None and not _knows_its_address(plane, cancel):
            raise beyond_repair(name, f"node {plane.name} came back with another address", ())
        if api is None:
            api = _await_api(name, plane, _API_STARTED if asleep else _API_RUNNING, cancel)
        note("started" if asleep else "runs")
    return api


def control_plane(name: str, machine: Machine) -> NodeContainer:
    if machine.control_plane is None:
        raise beyond_repair(name, "it has no control-plane node", ())
    return machine.control_plane


def kubectl(
    node: NodeContainer, *args: str, cancel: Cancel, given: str | None = None
) -> CompletedProgram:
    return docker(
        *("exec", *(("--interactive",) if given is not None else ()), node.name),
        *("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--request-timeout=5s", *args),
        cancel=cancel,
        given=given,
        timeout=20,
        check=False,
    )


def ask_api(plane: NodeContainer, cancel: Cancel) -> tuple[Api | None, tuple[str, ...]]:
    """One request for all that is to be known, or the last words of why there was no answer."""
    said = kubectl(plane, "get", "nodes,configmaps", "-n=kube-public", "-o=json", cancel=cancel)
    if not said.ok:
        return None, last_words(said)
    ready: dict[str, bool] = {}
    hosting = None
    for item in json.loads(said.out)["items"]:
        name = item["metadata"]["name"]
        if item["kind"] == "Node":
            conditions = item.get("status", {}).get("conditions", [])
            ready[name] = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        elif name == "local-registry-hosting":
            hosting = item
    return Api(ready, hosting), ()


def _ask_for(
    plane: NodeContainer, seconds: float, cancel: Cancel
) -> tuple[Api | None, tuple[str, ...]]:
    """Ask again and again; once more than `seconds` have passed, what came of it last."""
    deadline = time.monotonic() + seconds
    while True:
        api, why = ask_api(plane, cancel)
        if api is not None or time.monotonic() > deadline:
            return api, why
        cancel.wait(0.5)
        cancel.check()


def _await_api(name: str, plane: NodeContainer, seconds: float, cancel: Cancel) -> Api:
    api, why = _ask_for(plane, seconds, cancel)
    if api is None:
        raise beyond_repair(name, "the API server does not answer", why)
    return api


def _knows_its_address(plane: NodeContainer, cancel: Cancel) -> bool:
    """Whether etcd is told to listen where the node is now.

    Docker gives a restarted container any free address. kind's node images rewrite their files
    for that when there is one control-plane node (their entrypoint); others do not come back."""
    addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}"
    has = docker("container", "inspect", "--format", addresses, plane.name, cancel=cancel)
    told = docker(
        *("exec", plane.name, "cat", "/etc/kubernetes/manifests/etcd.yaml"),
        cancel=cancel,
        check=False,
    )
    return not told.ok or any(address in told.out for address in has.out.split())


def await_nodes(name: str, machine: Machine, api: Api, report: Report, cancel: Cancel) -> None:
    """Wait until pods can run: the nodes are ready, and the service account that every pod of the
    default namespace gets exists, which comes a moment after the API server's first answer."""
    names = [node.name for node in machine.nodes]
    plane = control_plane(name, machine)
    with step(report, "nodes") as note:
        deadline = time.monotonic() + _API_STARTED
        while not all(api.ready.get(n) for n in names):
            if time.monotonic() > deadline:
                waiting = ", ".join(n for n in names if not api.ready.get(n))
                raise beyond_repair(name, f"not ready: {waiting}", ())
            cancel.wait(0.3)
            cancel.check()
            api = _await_api(name, plane, _API_RUNNING, cancel)
        asked = ("get", "serviceaccount", "default", "-n=default", "-o=name")
        while not (said := kubectl(plane, *asked, cancel=cancel)).ok:
            if time.monotonic() > deadline:
                raise beyond_repair(name, "no pod can be made in it", last_words(said))
            cancel.wait(0.3)
            cancel.check()
        note(f"{len(names)}/{len(names)} ready")


def beyond_repair(name: str, why: str, detail: tuple[str, ...]) -> DevloopError:
    return DevloopError.of(
        Code.CLUSTER_PROVISION,
        f"the cluster {name} is there but does not work: {why}",
        suggestions=(
            f"make it anew: devloop cluster up --name {name} --recreate",
            "the registry keeps its images; what runs in the cluster is lost",
        ),
        detail=detail,
    )


def made_by_devloop(machine: Machine, cancel: Cancel) -> bool:
    probes = probe_all(machine, certs_dir(0), cancel)
    if any(seen.marked for seen in probes):
        return True
    begun = machine.registry is not None and machine.registry.made_cluster
    return begun and not all(seen.finished for seen in probes)


def delete(name: str, what: str, report: Report, cancel: Cancel) -> None:
    """Delete the cluster and its kubeconfig entries."""
    with step(report, what) as note:
        kind("delete", "cluster", "--name", name, cancel=cancel, timeout=120)
        note("deleted")


def in_kubeconfig(name: str, machine: Machine, ca: str) -> bool:
    """Whether the user's kubeconfig leads to this very cluster."""
    plane = machine.control_plane
    port = plane.api_port if plane is not None else None
    return bool(ca) and kubeconfig_has(kubeconfig_paths(), f"kind-{name}", port, ca)


def valid_name(name: str) -> None:
    """Errors: usage/arguments. kind's own rule, and the longest container name made from it
    (`NAME-control-plane`) has to be a host name of 63 characters."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?", name):
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            f"not a valid cluster name: {name!r}",
            suggestions=("use small letters, digits and dashes, at most 42",),
        )
