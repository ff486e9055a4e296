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
from dataclasses import replace

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError
from devloop.local_cluster import cluster as clusters
from devloop.local_cluster import registry as registries
from devloop.local_cluster import wiring
from devloop.local_cluster.cluster import KnownContext
from devloop.local_cluster.docker_host import DockerHost, provision_error
from devloop.local_cluster.machine import Machine, look
from devloop.local_cluster.registry import Wanted
from devloop.local_cluster.state import Status, status
from devloop.local_cluster.steps import ClusterProgress, Report, step

__all__ = [
    "ClusterProgress",
    "DockerHost",
    "KnownContext",
    "Status",
    "Wanted",
    "down",
    "status",
    "up",
]

# The announcement lies beside the manifests that kubeadm wrote, for `kubectl apply` to read.
_HOSTING = "/etc/kubernetes/local-registry-hosting.json"


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
    read_context: clusters.ReadContext,
    recreate: bool = False,
    yes: bool = False,
) -> Up:
    """Create or repair the cluster and its registry; does nothing that is done already.

    `recreate` deletes the cluster first and creates it from the same node image (images in the
    registry stay), with `yes` also one that devloop did not make.
    Errors: env/tool-missing, env/docker-unreachable, env/port-busy, registry/unreachable,
    cluster/provision, safety/changed-outside, `Cancelled`."""
    began = time.monotonic()
    name = wanted.name
    machine = look(docker, name)
    node_image = wanted.node_image
    if recreate and machine.nodes:
        node_image = node_image or machine.nodes[0].image or None
        _delete_for_recreate(docker, machine, yes=yes, report=report)
        machine = look(docker, name)
    created = not machine.nodes
    if created:
        registries.ensure(docker, wanted, machine, report=report)
        clusters.create(docker, name, node_image, report)
        machine = look(docker, name)
        api = clusters.await_api(docker, machine)
    else:
        api = clusters.start(docker, machine, report)
    foreign = _foreign_registry(api, machine)
    if foreign:
        host, ca = foreign, clusters.probe_all(docker, machine)[0].ca
        kept = f"{foreign}, not devloop's: kept"
        report(ClusterProgress(step="registry", state="done", detail=kept))
    else:
        if not created:
            wanted = replace(wanted, registry_port=wanted.registry_port or _announced(api))
            registries.ensure(docker, wanted, machine, report=report)
            machine = look(docker, name)
        host, ca = _wire(docker, machine, api, report)
    clusters.await_nodes(docker, machine, api, report)
    context = f"kind-{name}"
    known = read_context(context)
    if known.current != context or not clusters.in_kubeconfig(machine, ca, known):
        with step(report, "kubeconfig") as note:
            clusters.kind(docker, "export", "kubeconfig", "--name", name, limit=30)
            before = f", {known.current} was" if known.current not in ("", context) else ""
            note(f"context {context} is current{before}")
    seconds = time.monotonic() - began
    return Up(context=context, registry=host, created=created, seconds=seconds)


def down(docker: DockerHost, name: str, *, report: Report, yes: bool = False) -> RemovedCluster:
    """Remove what `up` made: cluster, registry container, its volume, the wiring.

    A cluster that devloop did not make is only unwired and kept, unless `yes`.
    Errors: env/tool-missing, env/docker-unreachable, cluster/provision."""
    clusters.valid_name(name)
    machine = look(docker, name)
    removed: list[str] = []
    kept = ""
    if machine.nodes and (yes or clusters.made_by_devloop(docker, machine)):
        clusters.delete(docker, name, "cluster", report)
        removed.append(f"cluster {name}")
    elif machine.nodes:
        kept = name
        if _unwire(docker, machine):
            removed.append("the nodes' wiring")
    removed += registries.remove(docker, machine, report=report)
    return RemovedCluster(removed=tuple(removed), kept_cluster=kept)


def _delete_for_recreate(
    docker: DockerHost, machine: Machine, *, yes: bool, report: Report
) -> None:
    if not yes and not clusters.made_by_devloop(docker, machine):
        raise DevloopError.of(
            Code.SAFETY_CHANGED_OUTSIDE,
            f"the cluster {machine.name} was not made by devloop",
            cause="--recreate would delete it and everything in it",
            suggestions=("add --yes if that is what you want", "use another --name"),
        )
    clusters.delete(docker, machine.name, "old cluster", report)


# --- the wiring --------------------------------------------------------------------------------


def _announced(api: clusters.Api) -> int | None:
    """The port that the cluster still knows of a registry of ours that may be gone."""
    if api.hosting is None or not wiring.is_ours(api.hosting):
        return None
    return wiring.local_port(wiring.hosted_at(api.hosting)) or None


def _foreign_registry(api: clusters.Api, machine: Machine) -> str:
    """The host of a registry that somebody else wired and that answers; empty when none is."""
    if api.hosting is None or wiring.is_ours(api.hosting):
        return ""
    host = wiring.hosted_at(api.hosting)
    own = machine.registry
    if own is not None and host == f"localhost:{own.port}":
        return ""
    return host if registries.answers(wiring.local_port(host)) else ""


def _wire(
    docker: DockerHost, machine: Machine, api: clusters.Api, report: Report
) -> tuple[str, str]:
    """Lead pulls to the registry and announce it; returns the registry's host and the API's CA."""
    registry = machine.registry
    if registry is None or registry.port is None:
        raise clusters.beyond_repair(machine, "its registry went away meanwhile")
    did: list[str] = []
    with step(report, "wiring") as note:
        if machine.network not in registry.networks:
            docker.call("connect_container_to_network", registry.name, machine.network)
            did.append("network")
        directory, hosts = wiring.certs_dir(registry.port), wiring.hosts_toml(registry.name)
        probes = clusters.probe_all(docker, machine, directory)
        for node, seen in zip(machine.nodes, probes, strict=True):
            if not seen.reads_certs_dir:
                raise _old_image(machine.name, node.name)
            if seen.hosts_toml != hosts:
                docker.write(node.name, f"{directory}/hosts.toml", hosts)
                did.append(node.name)
        announcement = wiring.config_map(registry.name, registry.port)
        if api.hosting is None or api.hosting.get("data") != announcement["data"]:
            docker.write(clusters.control_plane(machine).name, _HOSTING, json.dumps(announcement))
            applied = clusters.kubectl(docker, machine, "apply", f"--filename={_HOSTING}")
            if applied.status != 0:
                what = "the ConfigMap local-registry-hosting cannot be written"
                raise provision_error(what, applied.err)
            did.append("ConfigMap")
        note(", ".join(did) or "in place")
    return f"localhost:{registry.port}", probes[0].ca


def _unwire(docker: DockerHost, machine: Machine) -> bool:
    registry = machine.registry
    did = False
    if registry is not None and registry.ours:
        for node in machine.nodes:
            # A registry that moved to another port keeps the old one working, so there may be
            # several.
            files = docker.read(node.name, wiring.CERTS_DIR) if node.running else {}
            ours = [p for p, text in files.items() if text == wiring.hosts_toml(registry.name)]
            if ours:
                docker.execute(node.name, ("rm", "-r", *map(posixpath.dirname, ours)))
                did = True
    api, _ = clusters.ask_api(docker, machine)
    if api is not None and api.hosting is not None and wiring.is_ours(api.hosting):
        announced = ("configmap", "local-registry-hosting", "-n=kube-public")
        clusters.kubectl(docker, machine, "delete", *announced)
        did = True
    return did


def _old_image(name: str, node: str) -> DevloopError:
    return DevloopError.of(
        Code.CLUSTER_PROVISION,
        f"containerd in {node} does not read {wiring.CERTS_DIR}",
        cause="the cluster was made from a node image older than kind 0.27, without the patch",
        suggestions=(f"recreate it: devloop cluster up --name {name} --recreate",),
    )
