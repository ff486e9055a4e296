"""A local kind cluster with a registry beside it, wired so that what is pushed can be pulled.

`up` looks at what is there and adds what is missing; `down` removes what `up` made and nothing
else. A cluster counts as made by `up` when its nodes have the file that `up` leaves in them; any
other cluster is wired on request but kept by `down` unless the caller insists. Needs a Docker
daemon, docker and kind on PATH and no kubectl: the nodes have one. Must not print: progress goes to
`report`.
"""

from __future__ import annotations

import json
import posixpath
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from devloop.errors import Code, DevloopError
from devloop.local_cluster import registry as registries
from devloop.local_cluster.cluster import (
    Api,
    ReadContext,
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
from devloop.local_cluster.docker_host import DockerHost, last_lines
from devloop.local_cluster.kind import kind
from devloop.local_cluster.machine import Machine, NodeContainer, look, registry_name
from devloop.local_cluster.state import NodeStatus, Status, status
from devloop.local_cluster.steps import ClusterProgress, Report, step
from devloop.local_cluster.wiring import (
    CERTS_DIR,
    certs_dir,
    config_map,
    hosted_at,
    hosts_toml,
    is_ours,
    local_port,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ClusterProgress",
    "DockerHost",
    "NodeStatus",
    "ReadContext",
    "RemovedCluster",
    "Report",
    "Status",
    "Up",
    "Wanted",
    "down",
    "status",
    "up",
]

# The announcement lies beside the manifests that kubeadm wrote, for `kubectl apply` to read.
_HOSTING = "/etc/kubernetes/local-registry-hosting.json"


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
    """The state after `up`. `registry` is host:port as pushers name it."""

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
    docker: DockerHost,
    wanted: Wanted,
    *,
    report: Report,
    read_context: ReadContext,
    recreate: bool = False,
    yes: bool = False,
    port_owner: Callable[[int], str | None] = lambda _: None,
) -> Up:
    """Create or repair the cluster and its registry; does nothing that is done already.

    `recreate` deletes the cluster first and creates it from the same node image (images in the
    registry stay), with `yes` also one that devloop did not make. `port_owner` names the process
    that has a local port.
    Errors: env/tool-missing, env/docker-unreachable, env/port-busy, registry/unreachable,
    cluster/provision, safety/changed-outside, `Cancelled`."""
    began = time.monotonic()
    name = wanted.name
    machine = look(docker, name)
    node_image = wanted.node_image
    if recreate and machine.nodes:
        node_image = node_image or machine.nodes[0].image or None
        _delete_for_recreate(docker, name, machine, yes=yes, report=report)
        machine = look(docker, name)
    request = registries.RegistryRequest(
        cluster=name, image=wanted.registry_image, port=wanted.registry_port, port_owner=port_owner
    )
    created = not machine.nodes
    if created:
        registries.ensure(docker, request, machine, report=report)
        create(docker, name, node_image, report)
        machine = look(docker, name)
    api = start(docker, name, machine, report, quiet=created)
    foreign = _foreign_registry(api, registry_name(name), machine)
    if foreign:
        host, ca = foreign, probe_all(docker, machine)[0].ca
        report(
            ClusterProgress(step="registry", state="done", detail=f"{foreign}, not devloop's: kept")
        )
    else:
        if not created:
            request = replace(request, port=request.port or _announced(api))
            registries.ensure(docker, request, machine, report=report)
            machine = look(docker, name)
        host, ca = _wire(docker, name, machine, api, report)
    await_nodes(docker, name, machine, api, report)
    if not in_kubeconfig(name, machine, ca, read_context):
        with step(report, "kubeconfig") as note:
            kind(docker, "export", "kubeconfig", "--name", name, limit=30)
            note(f"context kind-{name} written")
    return Up(
        context=f"kind-{name}", registry=host, created=created, seconds=time.monotonic() - began
    )


def down(docker: DockerHost, name: str, *, report: Report, yes: bool = False) -> RemovedCluster:
    """Remove what `up` made: cluster, registry container, its volume, the wiring.

    A cluster that devloop did not make is only unwired and kept, unless `yes`.
    Errors: env/tool-missing, env/docker-unreachable, cluster/provision."""
    valid_name(name)
    machine = look(docker, name)
    removed: list[str] = []
    kept = ""
    if machine.nodes and (yes or made_by_devloop(docker, machine)):
        delete(docker, name, "cluster", report)
        removed.append(f"cluster {name}")
    elif machine.nodes:
        kept = name
        if _unwire(docker, machine):
            removed.append("the nodes' wiring")
    removed += registries.remove(docker, name, machine, report=report)
    return RemovedCluster(removed=tuple(removed), kept_cluster=kept)


def _delete_for_recreate(
    docker: DockerHost, name: str, machine: Machine, *, yes: bool, report: Report
) -> None:
    if not yes and not made_by_devloop(docker, machine):
        raise DevloopError.of(
            Code.SAFETY_CHANGED_OUTSIDE,
            f"the cluster {name} was not made by devloop",
            cause="--recreate would delete it and everything in it",
            suggestions=("add --yes if that is what you want", "use another --name"),
        )
    delete(docker, name, "old cluster", report)


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


def _wire(
    docker: DockerHost, name: str, machine: Machine, api: Api, report: Report
) -> tuple[str, str]:
    """Lead pulls to the registry and announce it; returns the registry's host and the API's CA."""
    registry = machine.registry
    if registry is None or registry.port is None:
        raise beyond_repair(name, "its registry went away meanwhile", ())
    did: list[str] = []
    with step(report, "wiring") as note:
        if machine.network not in registry.networks:
            docker.call("connect_container_to_network", registry.name, machine.network)
            did.append("network")
        directory, hosts = certs_dir(registry.port), hosts_toml(registry.name)
        probes = probe_all(docker, machine, directory)
        for node, seen in zip(machine.nodes, probes, strict=True):
            if not seen.reads_certs_dir:
                raise _old_image(name, node)
            if seen.hosts_toml != hosts:
                docker.write(node.name, f"{directory}/hosts.toml", hosts)
                did.append(node.name)
        announcement = config_map(registry.name, registry.port)
        if api.hosting is None or api.hosting.get("data") != announcement["data"]:
            _announce(docker, control_plane(name, machine), announcement)
            did.append("ConfigMap")
        note(", ".join(did) or "in place")
    return f"localhost:{registry.port}", probes[0].ca


def _announce(docker: DockerHost, plane: NodeContainer, announcement: dict[str, Any]) -> None:
    docker.write(plane.name, _HOSTING, json.dumps(announcement))
    applied = kubectl(docker, plane, "apply", f"--filename={_HOSTING}")
    if not applied.ok:
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            "the ConfigMap local-registry-hosting cannot be written",
            detail=last_lines(applied.err),
        )


def _unwire(docker: DockerHost, machine: Machine) -> bool:
    registry = machine.registry
    plane = machine.control_plane
    did = False
    if registry is not None and registry.ours:
        for node in machine.nodes:
            # A registry that moved to another port keeps the old one working, so there may be
            # several.
            files = docker.read(node.name, CERTS_DIR) if node.running else {}
            ours = [p for p, text in files.items() if text == hosts_toml(registry.name)]
            if ours:
                docker.execute(node.name, ("rm", "-r", *map(posixpath.dirname, ours)))
                did = True
    if plane is not None and plane.running:
        api = ask_api(docker, plane)[0]
        if api is not None and api.hosting is not None and is_ours(api.hosting):
            kubectl(
                docker, plane, "delete", "configmap", "local-registry-hosting", "-n=kube-public"
            )
            did = True
    return did


def _old_image(name: str, node: NodeContainer) -> DevloopError:
    return DevloopError.of(
        Code.CLUSTER_PROVISION,
        f"containerd in {node.name} does not read {CERTS_DIR}",
        cause="the cluster was made from a node image older than kind 0.27, without the patch",
        suggestions=(f"recreate it: devloop cluster up --name {name} --recreate",),
    )
