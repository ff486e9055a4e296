"""A local kind cluster with a registry beside it, wired so that what is pushed can be pulled.

`up` looks at what is there and adds what is missing; `down` removes what `up` made and nothing
else. A cluster counts as made by `up` when its nodes carry the mark that `up` leaves in them; any
other cluster is wired on request but kept by `down` unless the caller insists. Needs docker and
kind on PATH and no kubectl: the nodes have one. Must not print: progress goes to `report`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from devloop.errors import Code, DevloopError
from devloop.local_cluster import registry as registries
from devloop.local_cluster.cluster import (
    Api,
    ask_api,
    await_nodes,
    beyond_repair,
    control_plane,
    create,
    delete,
    in_kubeconfig,
    kubectl,
    made_by_devloop,
    probe_all,
    start,
    valid_name,
)
from devloop.local_cluster.machine import Machine, NodeContainer, look
from devloop.local_cluster.run import docker, kind, last_words
from devloop.local_cluster.state import NodeStatus, Status, status
from devloop.local_cluster.steps import ClusterProgress, Report, step
from devloop.local_cluster.wiring import (
    certs_dir,
    config_map,
    hosted_at,
    hosts_toml,
    is_ours,
    local_port,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel

__all__ = [
    "ClusterProgress",
    "NodeStatus",
    "RemovedCluster",
    "Report",
    "Status",
    "Up",
    "Wanted",
    "down",
    "status",
    "up",
]

_WIRE = r"""
mkdir -p "$1" && cat >"$1/.hosts.toml" && mv "$1/.hosts.toml" "$1/hosts.toml"
"""
# A registry that moved to another port keeps the old name working, so there may be several.
_UNWIRE = r"""
for file in /etc/containerd/certs.d/localhost:*/hosts.toml; do
  if grep -qs "//$1:5000" "$file"; then rm -r "${file%/*}"; fi
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `up` is asked for. None means: as it is, or the default for something new."""

    name: str = "devloop"
    node_image: str | None = None
    registry_image: str = registries.IMAGE
    registry_port: int | None = None

    def __post_init__(self) -> None:
        valid_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """What stands after `up`. `registry` is host:port as pushers name it."""

    context: str
    registry: str
    created: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedCluster:
    """What `down` removed, in words, and the cluster it left because devloop had not made it."""

    removed: tuple[str, ...]
    kept_cluster: str = ""


def up(
    wanted: Wanted,
    *,
    report: Report,
    cancel: Cancel,
    recreate: bool = False,
    yes: bool = False,
    port_owner: Callable[[int], str | None] = lambda _: None,
) -> Up:
    """Make or repair the cluster and its registry; does nothing that is done already.

    `recreate` deletes the cluster first and makes it from the same node image (images in the
    registry stay), with `yes` also one that devloop did not make. `port_owner` names the process
    that holds a local port.
    Errors: env/tool-missing, env/docker-unreachable, env/port-busy, registry/unreachable,
    cluster/provision, safety/changed-outside, `Cancelled`."""
    began = time.monotonic()
    name = wanted.name
    machine = look(name, registries.container_name(name), cancel)
    node_image = wanted.node_image
    if recreate and machine.nodes:
        node_image = node_image or machine.nodes[0].image or None
        _delete_for_recreate(name, machine, yes=yes, report=report, cancel=cancel)
        machine = look(name, registries.container_name(name), cancel)
    ask = registries.Ask(
        cluster=name,
        image=wanted.registry_image,
        port=wanted.registry_port,
        port_owner=port_owner,
    )
    created = not machine.nodes
    if created:
        registries.ensure(ask, machine, report=report, cancel=cancel)
        create(name, node_image, report, cancel)
        machine = look(name, registries.container_name(name), cancel)
    api = start(name, machine, report, cancel, quiet=created)
    foreign = _foreign_registry(api, registries.container_name(name), machine)
    if foreign:
        host, ca = foreign, probe_all(machine, "", cancel)[0].ca
        report(
            ClusterProgress(step="registry", state="done", detail=f"{foreign}, not devloop's: kept")
        )
    else:
        if not created:
            ask = replace(ask, port=ask.port or _announced(api))
            registries.ensure(ask, machine, report=report, cancel=cancel)
            machine = look(name, registries.container_name(name), cancel)
        host, ca = _wire(name, machine, api, report=report, cancel=cancel)
    await_nodes(name, machine, api, report, cancel)
    _kubeconfig(name, machine, ca, report, cancel)
    return Up(
        context=f"kind-{name}",
        registry=host,
        created=created,
        seconds=time.monotonic() - began,
    )


def down(name: str, *, report: Report, cancel: Cancel, yes: bool = False) -> RemovedCluster:
    """Remove what `up` made: cluster, registry container, its volume, the wiring.

    A cluster that devloop did not make is only unwired and kept, unless `yes`.
    Errors: env/tool-missing, env/docker-unreachable, cluster/provision."""
    valid_name(name)
    machine = look(name, registries.container_name(name), cancel)
    removed: list[str] = []
    kept = ""
    if machine.nodes and (yes or made_by_devloop(machine, cancel)):
        delete(name, "cluster", report, cancel)
        removed.append(f"cluster {name}")
    elif machine.nodes:
        kept = name
        if _unwire(machine, cancel):
            removed.append("the nodes' wiring")
    removed += registries.remove(name, machine, report=report, cancel=cancel)
    return RemovedCluster(removed=tuple(removed), kept_cluster=kept)


def _delete_for_recreate(
    name: str, machine: Machine, *, yes: bool, report: Report, cancel: Cancel
) -> None:
    if not yes and not made_by_devloop(machine, cancel):
        raise DevloopError.of(
            Code.SAFETY_CHANGED_OUTSIDE,
            f"the cluster {name} was not made by devloop",
            cause="--recreate would delete it and everything in it",
            suggestions=("add --yes if that is what you want", "use another --name"),
        )
    delete(name, "old cluster", report, cancel)


# --- the wiring --------------------------------------------------------------------------------


def _announced(api: Api) -> int | None:
    """The port that the cluster still knows of a registry of ours that may be gone."""
    if api.hosting is None or not is_ours(api.hosting):
        return None
    return local_port(hosted_at(api.hosting)) or None


def _foreign_registry(api: Api, container: str, machine: Machine) -> str:
    """The host of a registry that somebody else wired and that answers; empty when none is."""
    if api.hosting is None or is_ours(api.hosting):
        return ""
    host = hosted_at(api.hosting)
    own = machine.registry
    if own is not None and own.name == container and host == f"localhost:{own.port}":
        return ""
    return host if registries.answers(local_port(host)) else ""


def _wire(name: str, machine: Machine, api: Api, report: Report, cancel: Cancel) -> tuple[str, str]:
    """Lead pulls to the registry and tell of it; returns the registry's host and the API's CA."""
    registry = machine.registry
    if registry is None or registry.port is None:
        raise beyond_repair(name, "its registry went away meanwhile", ())
    did: list[str] = []
    with step(report, "wiring") as note:
        if machine.network not in registry.networks:
            docker("network", "connect", machine.network, registry.name, cancel=cancel)
            did.append("network")
        folder = certs_dir(registry.port)
        probes = probe_all(machine, folder, cancel)
        for node, seen in zip(machine.nodes, probes, strict=True):
            if not seen.reads_certs_dir:
                raise _old_image(name, node)
            if seen.hosts_toml != hosts_toml(registry.name):
                _write_hosts(node, folder, registry.name, cancel)
                did.append(node.name)
        told = config_map(registry.name, registry.port)
        if api.hosting is None or api.hosting.get("data") != told["data"]:
            _announce(control_plane(name, machine), told, cancel)
            did.append("ConfigMap")
        note(", ".join(did) or "in place")
    return f"localhost:{registry.port}", probes[0].ca


def _write_hosts(node: NodeContainer, folder: str, registry: str, cancel: Cancel) -> None:
    docker(
        *("exec", "--interactive", node.name, "sh", "-c", _WIRE, "wire", folder),
        cancel=cancel,
        given=hosts_toml(registry),
    )


def _announce(plane: NodeContainer, told: dict[str, Any], cancel: Cancel) -> None:
    said = kubectl(plane, "apply", "-f", "-", cancel=cancel, given=json.dumps(told))
    if not said.ok:
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            "the ConfigMap local-registry-hosting cannot be written",
            detail=last_words(said),
        )


def _unwire(machine: Machine, cancel: Cancel) -> bool:
    registry = machine.registry
    plane = machine.control_plane
    did = False
    if registry is not None and registry.ours:
        for node in machine.nodes:
            if node.running:
                unwire = ("sh", "-c", _UNWIRE, "unwire", registry.name)
                docker("exec", node.name, *unwire, cancel=cancel)
                did = True
    if plane is not None and plane.running:
        api = ask_api(plane, cancel)[0]
        if api is not None and api.hosting is not None and is_ours(api.hosting):
            gone = ("delete", "configmap", "local-registry-hosting", "-n=kube-public")
            kubectl(plane, *gone, cancel=cancel)
            did = True
    return did


def _old_image(name: str, node: NodeContainer) -> DevloopError:
    return DevloopError.of(
        Code.CLUSTER_PROVISION,
        f"containerd in {node.name} does not read /etc/containerd/certs.d",
        cause="the cluster was made from a node image older than kind 0.27, without the patch",
        suggestions=(f"make it anew: devloop cluster up --name {name} --recreate",),
    )


def _kubeconfig(name: str, machine: Machine, ca: str, report: Report, cancel: Cancel) -> None:
    if in_kubeconfig(name, machine, ca):
        return
    with step(report, "kubeconfig") as note:
        kind("export", "kubeconfig", "--name", name, cancel=cancel, timeout=30)
        note(f"context kind-{name} written")
