"""What Docker knows about a local cluster: node containers, the registry's container, their state.

Reads only; others decide and act.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.local_cluster.wiring import CERTS_DIR

if TYPE_CHECKING:
    from devloop.local_cluster.docker_host import DockerHost


CLUSTER_LABEL = "devloop.dev/cluster"
# On the registry's container: there was no cluster of this name when it was made, so the one
# that came after is devloop's even if its making was cut short.
MADE_LABEL = "devloop.dev/makes-cluster"
# In every node that `up` made. It lies in the container's own file system, so it lives and dies
# with the node and can be read from a stopped one.
MARK = "/etc/devloop-created"

_KIND_LABEL = "io.x-k8s.kind.cluster"
_ROLE_LABEL = "io.x-k8s.kind.role"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Container:
    """`state` is Docker's: running, exited, paused, created, ..."""

    name: str
    state: str
    networks: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContainer(_Container):
    """`api_port` is the API server's port on the host, known for control-plane nodes."""

    role: str
    image: str = ""
    api_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryContainer(_Container):
    """`ours`: it carries devloop's label for this cluster. `port` is where 127.0.0.1 leads to it,
    None when it publishes no port 5000."""

    ours: bool
    made_cluster: bool
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A cluster's nodes (control plane first) and registry as Docker has them now."""

    name: str
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


def registry_name(cluster: str) -> str:
    """The name of the registry's container and volume."""
    return f"{cluster}-registry"


def look(docker: DockerHost, name: str) -> Machine:
    """The cluster `name` and its registry. Errors: env/docker-unreachable."""
    listed = docker.call("containers", all=True, filters={"label": f"{_KIND_LABEL}={name}"})
    shown = [
        docker.inspect(container) for container in (*(c["Id"] for c in listed), registry_name(name))
    ]
    return parse([found for found in shown if found is not None], name)


def parse(containers: list[dict[str, Any]], name: str) -> Machine:
    """What Docker shows of containers as a `Machine`."""
    nodes: list[NodeContainer] = []
    found: RegistryContainer | None = None
    for container in containers:
        labels = container["Config"].get("Labels") or {}
        common = {
            "name": container["Name"].removeprefix("/"),
            "state": container["State"]["Status"],
            "networks": tuple(sorted(container["NetworkSettings"].get("Networks") or {})),
        }
        if labels.get(_KIND_LABEL) == name:
            role, image = labels.get(_ROLE_LABEL, ""), container["Config"].get("Image") or ""
            port = _published(container, "6443/tcp")
            nodes.append(NodeContainer(**common, role=role, image=image, api_port=port))
        elif common["name"] == registry_name(name):
            found = RegistryContainer(
                **common,
                ours=labels.get(CLUSTER_LABEL) == name,
                made_cluster=MADE_LABEL in labels,
                port=_published(container, "5000/tcp"),
            )
    nodes.sort(key=lambda n: (n.role != "control-plane", n.name))
    return Machine(name=name, nodes=tuple(nodes), registry=found)


def _published(container: dict[str, Any], port: str) -> int | None:
    bindings = (container.get("HostConfig") or {}).get("PortBindings") or {}
    for binding in bindings.get(port) or []:
        if str(binding.get("HostPort", "")).isdigit():
            return int(binding["HostPort"])
    return None


def probe(docker: DockerHost, node: NodeContainer, certs_dir: str = "") -> Probe:
    """Look into a node, `certs_dir` for its wiring to a registry. Of a stopped one only the mark is
    known."""
    marked = bool(docker.read(node.name, MARK))
    if not node.running:
        return Probe(hosts_toml="", ca="", reads_certs_dir=True, finished=True, marked=marked)

    def text(path: str) -> str:
        return docker.read(node.name, path).get(path, "")

    return Probe(
        hosts_toml=text(f"{certs_dir}/hosts.toml") if certs_dir else "",
        ca=text("/etc/kubernetes/pki/ca.crt"),
        reads_certs_dir=CERTS_DIR in text("/etc/containerd/config.toml"),
        finished=bool(text("/etc/kubernetes/kubelet.conf")),
        marked=marked,
    )


def publisher(docker: DockerHost, port: int) -> str | None:
    """The running container that publishes a local port, if one does."""
    found = next(iter(docker.call("containers", filters={"publish": str(port)})), None)
    if found is None:
        return None
    return f"container {found['Names'][0].removeprefix('/')} ({found['Image']})"
