"""What Docker knows about a local cluster: node containers, the registry's container, their state.

Reads only; `provision` decides and acts. Everything comes from two docker calls, so that a look
at a healthy cluster costs well under a second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devloop.local_cluster.run import docker

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel

__all__ = [
    "CLUSTER_LABEL",
    "MADE_LABEL",
    "MARK",
    "Machine",
    "NodeContainer",
    "Probe",
    "RegistryContainer",
    "look",
    "parse",
    "probe",
    "publisher",
]

CLUSTER_LABEL = "devloop.dev/cluster"
# On the registry's container: there was no cluster of this name when it was made, so the one
# that came after is devloop's even if its making was cut short.
MADE_LABEL = "devloop.dev/makes-cluster"
# In every node that `up` made. It lies in the container's own file system, so it lives and dies
# with the node and can be read from a stopped one.
MARK = "/etc/devloop-created"

_KIND_LABEL = "io.x-k8s.kind.cluster"
_ROLE_LABEL = "io.x-k8s.kind.role"
_SEPARATOR = "\x1e"

_PROBE = r"""
cat "$1/hosts.toml" 2>/dev/null; printf '\036'
cat /etc/kubernetes/pki/ca.crt 2>/dev/null; printf '\036'
grep -qs /etc/containerd/certs.d /etc/containerd/config.toml && printf yes; printf '\036'
test -e /etc/kubernetes/kubelet.conf && printf yes; printf '\036'
test -e "$2" && printf yes; printf '\036'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContainer:
    """A node's container. `state` is Docker's word: running, exited, paused, created, ...
    `api_port` is the API server's port on the host, known for control-plane nodes."""

    name: str
    role: str
    state: str
    image: str = ""
    networks: tuple[str, ...] = ()
    api_port: int | None = None

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryContainer:
    """The registry's container. `ours`: it carries devloop's label for this cluster.
    `port` is where 127.0.0.1 leads to it, None when it publishes no port 5000."""

    name: str
    state: str
    ours: bool
    made_cluster: bool
    port: int | None
    networks: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Nodes (control plane first) and registry as Docker has them now."""

    nodes: tuple[NodeContainer, ...] = ()
    registry: RegistryContainer | None = None

    @property
    def control_plane(self) -> NodeContainer | None:
        return next((n for n in self.nodes if n.role == "control-plane"), None)

    @property
    def network(self) -> str:
        """The Docker network of the nodes; kind's default before there is any."""
        return next((net for node in self.nodes for net in node.networks), "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one running node has on its disk. `finished`: kubeadm got as far as the kubelet."""

    hosts_toml: str
    ca: str
    reads_certs_dir: bool
    finished: bool
    marked: bool


def look(name: str, registry: str, cancel: Cancel) -> Machine:
    """Errors: env/docker-unreachable, env/tool-missing."""
    listed = docker(
        *("container", "ls", "--all", "--filter", f"label={_KIND_LABEL}={name}"),
        *("--format", "{{.Names}}"),
        cancel=cancel,
    )
    # A missing container is an error on stderr only; the others are printed all the same.
    shown = docker(
        "container", "inspect", *listed.out.split(), registry, cancel=cancel, check=False
    )
    return parse(json.loads(shown.out or "[]"), name, registry)


def parse(containers: list[dict[str, Any]], name: str, registry: str) -> Machine:
    """`docker container inspect`'s JSON as a `Machine`."""
    nodes: list[NodeContainer] = []
    found: RegistryContainer | None = None
    for container in containers:
        labels = container["Config"].get("Labels") or {}
        called = container["Name"].removeprefix("/")
        state = container["State"]["Status"]
        networks = tuple(sorted(container["NetworkSettings"].get("Networks") or {}))
        if labels.get(_KIND_LABEL) == name:
            nodes.append(
                NodeContainer(
                    name=called,
                    role=labels.get(_ROLE_LABEL, ""),
                    state=state,
                    image=container["Config"].get("Image") or "",
                    networks=networks,
                    api_port=_published(container, "6443/tcp"),
                )
            )
        elif called == registry:
            found = RegistryContainer(
                name=called,
                state=state,
                ours=labels.get(CLUSTER_LABEL) == name,
                made_cluster=MADE_LABEL in labels,
                port=_published(container, "5000/tcp"),
                networks=networks,
            )
    nodes.sort(key=lambda n: (n.role != "control-plane", n.name))
    return Machine(nodes=tuple(nodes), registry=found)


def _published(container: dict[str, Any], port: str) -> int | None:
    bindings = (container.get("HostConfig") or {}).get("PortBindings") or {}
    for binding in bindings.get(port) or []:
        if str(binding.get("HostPort", "")).isdigit():
            return int(binding["HostPort"])
    return None


def probe(node: NodeContainer, certs_dir: str, cancel: Cancel) -> Probe:
    """Look into a node. Of a stopped one only the mark is known."""
    if not node.running:
        copied = docker("cp", f"{node.name}:{MARK}", "-", cancel=cancel, check=False)
        return Probe(hosts_toml="", ca="", reads_certs_dir=True, finished=True, marked=copied.ok)
    said = docker("exec", node.name, "sh", "-c", _PROBE, "probe", certs_dir, MARK, cancel=cancel)
    hosts, ca, reads, finished, marked = said.out.split(_SEPARATOR)[:5]
    return Probe(
        hosts_toml=hosts,
        ca=ca,
        reads_certs_dir=bool(reads.strip()),
        finished=bool(finished.strip()),
        marked=bool(marked.strip()),
    )


def publisher(port: int, cancel: Cancel) -> str | None:
    """The container that publishes a local port, if one does."""
    listed = docker(
        *("container", "ls", "--filter", f"publish={port}", "--format", "{{.Names}} ({{.Image}})"),
        cancel=cancel,
    )
    return next((f"container {line}" for line in listed.out.splitlines() if line), None)
