"""The state of a local cluster: looks at every part that `up` takes care of, changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.local_cluster import registry as registries
from devloop.local_cluster.cluster import ask_api, in_kubeconfig, probe_all, valid_name
from devloop.local_cluster.machine import look, registry_name
from devloop.local_cluster.wiring import certs_dir, hosted_at, hosts_toml, is_ours, local_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.local_cluster.cluster import ReadContext
    from devloop.local_cluster.docker_host import DockerHost


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    name: str
    role: str
    running: bool
    ready: bool
    wired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is there. `problems` has in words what is not right, empty when `ok`."""

    cluster: str
    context: str
    exists: bool
    created_by_devloop: bool = False
    api_reachable: bool = False
    in_kubeconfig: bool = False
    current_context: str = ""
    nodes: tuple[NodeStatus, ...] = ()
    registry: str = ""
    registry_running: bool = False
    registry_reachable: bool = False
    registry_connected: bool = False
    registry_announced: bool = False
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.exists and not self.problems


def status(docker: DockerHost, name: str, *, read_context: ReadContext) -> Status:
    """Look, change nothing. Errors: env/docker-unreachable."""
    valid_name(name)
    machine = look(docker, name)
    registry = machine.registry
    api, _ = ask_api(docker, machine)
    hosting = api.hosting if api is not None else None
    host = hosted_at(hosting or {}) or (f"localhost:{registry.port}" if registry else "")
    probes = probe_all(docker, machine, certs_dir(local_port(host)))
    foreign = hosting is not None and not is_ours(hosting)
    known = read_context(f"kind-{name}")
    nodes = tuple(
        NodeStatus(
            name=node.name,
            role=node.role,
            running=node.running,
            ready=bool(api and api.ready.get(node.name)),
            wired=bool(probe.hosts_toml)
            and probe.reads_certs_dir
            and (foreign or probe.hosts_toml == hosts_toml(registry_name(name))),
        )
        for node, probe in zip(machine.nodes, probes, strict=True)
    )
    seen = Status(
        cluster=name,
        context=f"kind-{name}",
        exists=bool(machine.nodes),
        created_by_devloop=any(p.marked for p in probes),
        api_reachable=api is not None,
        in_kubeconfig=bool(probes) and in_kubeconfig(machine, probes[0].ca, known),
        current_context=known.current,
        nodes=nodes,
        registry=host,
        registry_running=bool(registry and registry.running) or foreign,
        registry_reachable=registries.answers(local_port(host)),
        registry_connected=bool(registry and machine.network in registry.networks) or foreign,
        registry_announced=hosting is not None,
    )
    return replace(seen, problems=tuple(_problems(seen)))


def _problems(seen: Status) -> Iterator[str]:
    if not seen.exists:
        yield f"there is no cluster {seen.cluster}"
        return
    yield from (f"node {n.name} is stopped" for n in seen.nodes if not n.running)
    # Of a cluster that does not answer, nobody knows what it would answer.
    silent = not seen.api_reachable
    checks = (
        (seen.api_reachable, "the API server does not answer"),
        (silent or seen.in_kubeconfig, f"the kubeconfig has no working context {seen.context}"),
        (bool(silent or seen.current_context), "the kubeconfig has no current context"),
        (seen.registry_running, "the registry's container is not running"),
        (seen.registry_reachable, f"the registry does not answer at {seen.registry or 'any port'}"),
        (seen.registry_connected, "the registry is not on the nodes' network"),
        (silent or seen.registry_announced, "the cluster has no ConfigMap local-registry-hosting"),
    )
    yield from (text for ok, text in checks if not ok)
    running = [n for n in seen.nodes if n.running]
    if not silent:
        yield from (f"node {n.name} is not ready" for n in running if not n.ready)
    yield from (f"node {n.name} does not pull from the registry" for n in running if not n.wired)
