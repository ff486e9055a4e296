"""The cluster's own life: created by kind, started again, waited for, given up with advice.

Talks to the API server through the kubectl inside the control-plane node, so that the host needs
none and a broken kubeconfig does not matter.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devloop.base import process
from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError
from devloop.local_cluster.docker_host import DockerRefused, last_lines, provision_error
from devloop.local_cluster.machine import MARK, Machine, NodeContainer, Probe, look, probe
from devloop.local_cluster.steps import ClusterProgress, Report, step
from devloop.local_cluster.wiring import KIND_CONFIG

if TYPE_CHECKING:
    from devloop.local_cluster.docker_host import DockerHost


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownContext:
    """What the user's kubeconfig has for a context: the API server's URL and its CA (PEM), empty
    where it has none; and the name of the context that is current, empty where none is."""

    server: str = ""
    ca: str = ""
    current: str = ""


ReadContext = Callable[[str], KnownContext]
"""Look a context up by its name."""

_CREATE = 900.0  # seconds; the node image may have to be pulled
_API_SOON = 15.0  # time to come back before it is worth asking why not
_API_RUNNING = 60.0
_API_STARTED = 150.0
_GRACE = 1.0  # that kind needs to clean up after a cancelled creation
_ETCD = "/etc/kubernetes/manifests/etcd.yaml"


@dataclass(frozen=True, slots=True)
class Api:
    """What the API server knows: node name -> ready, and the hosting ConfigMap if there is one."""

    ready: dict[str, bool]
    hosting: dict[str, Any] | None = None


def probe_all(docker: DockerHost, machine: Machine, certs_dir: str = "") -> tuple[Probe, ...]:
    return tuple(probe(docker, node, certs_dir) for node in machine.nodes)


def create(docker: DockerHost, name: str, node_image: str | None, report: Report) -> None:
    """Create the cluster and mark its nodes as made by devloop; all of it or nothing."""
    image = ("--image", node_image) if node_image else ()

    def relay(line: str) -> None:
        # kind announces each of its steps with a bullet and an emoji, and repeats it with a tick.
        if line.strip().startswith("•"):
            text = line.encode("ascii", "ignore").decode().strip(" .")
            report(ClusterProgress(step="cluster", state="output", detail=text))

    with step(report, "cluster", slow="creating with kind, about a minute") as note:
        try:
            kind(
                docker,
                *("create", "cluster", "--name", name, "--config", "-", *image),
                limit=_CREATE,
                given=KIND_CONFIG,
                on_line=relay,
            )
            for node in look(docker, name).nodes:
                docker.write(node.name, MARK, "")
        except BaseException:
            # kind cleans up after its own errors only. Whoever cancelled waits for this second.
            with contextlib.suppress(DevloopError):
                kind(docker.uncancelled(), "delete", "cluster", "--name", name, limit=30)
            raise
        note("created")


def start(docker: DockerHost, machine: Machine, report: Report) -> Api:
    """Start what is stopped and wait for the API server.

    Errors: cluster/provision with the way out when the cluster does not come back."""
    plane = control_plane(machine)
    asleep = [node for node in machine.nodes if not node.running]
    with step(report, "cluster", slow="starting" if asleep else "") as note:
        for node in asleep:
            try:
                docker.call("unpause" if node.state == "paused" else "start", node.name)
            except DockerRefused as error:
                detail = error.diagnosis.detail
                raise beyond_repair(machine, f"node {node.name} does not start", detail) from error
        if asleep and not probe(docker, replace(plane, state="running")).finished:
            raise beyond_repair(machine, "its creation was cut short")
        api = docker.until(lambda: ask_api(docker, machine)[0], _API_SOON)
        if api is None and not _knows_its_address(docker, plane):
            raise beyond_repair(machine, f"node {plane.name} came back with another address")
        if api is None:
            api = await_api(docker, machine, _API_STARTED if asleep else _API_RUNNING)
        note("started" if asleep else "runs")
    return api


def control_plane(machine: Machine) -> NodeContainer:
    if machine.control_plane is None:
        raise beyond_repair(machine, "it has no control-plane node")
    return machine.control_plane


def kubectl(docker: DockerHost, machine: Machine, *args: str) -> process.Completed:
    """A failed result also when there is no control-plane node that runs."""
    admin = ("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--request-timeout=5s")
    if machine.control_plane is None:
        return process.Completed(status=1, out="", err="")
    try:
        return docker.execute(machine.control_plane.name, (*admin, *args))
    except DockerRefused as error:
        return process.Completed(status=1, out="", err="\n".join(error.diagnosis.detail))


def ask_api(docker: DockerHost, machine: Machine) -> tuple[Api | None, tuple[str, ...]]:
    """One request for all that is to be known, or the last lines of why there was no answer."""
    answer = kubectl(docker, machine, "get", "nodes,configmaps", "-n=kube-public", "-o=json")
    if answer.status != 0:
        return None, last_lines(answer.err)
    ready: dict[str, bool] = {}
    hosting = None
    for item in json.loads(answer.out)["items"]:
        name = item["metadata"]["name"]
        if item["kind"] == "Node":
            conditions = item.get("status", {}).get("conditions", [])
            ready[name] = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        elif name == "local-registry-hosting":
            hosting = item
    return Api(ready, hosting), ()


def await_api(docker: DockerHost, machine: Machine, seconds: float = _API_STARTED) -> Api:
    why: tuple[str, ...] = ()

    def ask() -> Api | None:
        nonlocal why
        api, why = ask_api(docker, machine)
        return api

    api = docker.until(ask, seconds)
    if api is None:
        raise beyond_repair(machine, "the API server does not answer", why)
    return api


def _knows_its_address(docker: DockerHost, plane: NodeContainer) -> bool:
    """Whether etcd is configured to listen where the node is now.

    Docker gives a restarted container any free address. kind's node images rewrite their files
    for that when there is one control-plane node (their entrypoint); others do not come back."""
    shown = docker.inspect(plane.name) or {}
    networks = (shown.get("NetworkSettings") or {}).get("Networks") or {}
    addresses = [n.get(k) for n in networks.values() for k in ("IPAddress", "GlobalIPv6Address")]
    manifest = docker.read(plane.name, _ETCD).get(_ETCD)
    return manifest is None or any(address in manifest for address in addresses if address)


def await_nodes(docker: DockerHost, machine: Machine, api: Api, report: Report) -> None:
    """Wait until pods can run: the nodes are ready, and the service account that every pod of the
    default namespace gets exists, which comes a moment after the API server's first answer."""
    names = [node.name for node in machine.nodes]
    waiting = [n for n in names if not api.ready.get(n)]
    why = ""

    def nodes() -> bool | None:
        nonlocal waiting
        if waiting:
            ready = await_api(docker, machine, _API_RUNNING).ready
            waiting = [n for n in names if not ready.get(n)]
        return not waiting or None

    def pods() -> bool | None:
        nonlocal why
        asked = ("get", "serviceaccount", "default", "-n=default", "-o=name")
        account = kubectl(docker, machine, *asked)
        why = account.err
        return account.status == 0 or None

    with step(report, "nodes") as note:
        if docker.until(nodes, _API_STARTED) is None:
            raise beyond_repair(machine, f"not ready: {', '.join(waiting)}")
        if docker.until(pods, _API_STARTED) is None:
            raise beyond_repair(machine, "no pod can be created in it", last_lines(why))
        note(f"{len(names)}/{len(names)} ready")


def beyond_repair(machine: Machine, why: str, detail: tuple[str, ...] = ()) -> DevloopError:
    return DevloopError.of(
        Code.CLUSTER_PROVISION,
        f"the cluster {machine.name} is there but does not work: {why}",
        suggestions=(
            f"recreate it: devloop cluster up --name {machine.name} --recreate",
            "the registry keeps its images; what runs in the cluster is lost",
        ),
        detail=detail,
    )


def made_by_devloop(docker: DockerHost, machine: Machine) -> bool:
    probes = probe_all(docker, machine)
    if any(seen.marked for seen in probes):
        return True
    begun = machine.registry is not None and machine.registry.made_cluster
    return begun and not all(seen.finished for seen in probes)


def delete(docker: DockerHost, name: str, what: str, report: Report) -> None:
    """Delete the cluster and its kubeconfig entries."""
    with step(report, what) as note:
        kind(docker, "delete", "cluster", "--name", name, limit=120)
        note("deleted")


def in_kubeconfig(machine: Machine, ca: str, known: KnownContext) -> bool:
    """Whether the user's kubeconfig leads to this very cluster: a context of its name that stayed
    behind from a deleted one does not."""
    plane = machine.control_plane
    port = plane.api_port if plane is not None else None
    same_port = port is None or known.server.endswith(f":{port}")
    return bool(ca and known.server) and same_port and known.ca.strip() == ca.strip()


def valid_name(name: str) -> None:
    """Errors: usage/arguments. kind's own rule, and the longest container name made from it
    (`NAME-control-plane`) has to be a host name of 63 characters."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?", name):
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            f"not a valid cluster name: {name!r}",
            suggestions=("use small letters, digits and dashes, at most 42",),
        )


def kind(
    docker: DockerHost,
    *args: str,
    limit: float,
    given: str | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run `kind ARGS`, which has no API but this, for at most `limit` seconds; `given` is its
    input, `on_line` gets each line of its progress.

    Errors: env/tool-missing, cluster/provision with its last lines, env/docker-unreachable when
    that is why it failed, `Cancelled`."""
    what = " ".join(("kind", *args[:2]))
    try:
        done = process.capture(
            ("kind", *args),
            cancel=docker.cancel,
            limit=limit,
            given=None if given is None else given.encode(),
            on_error_line=on_line,
            grace=_GRACE,
        )
    except process.CannotRun as error:
        install = (
            "brew install kind"
            if sys.platform == "darwin"
            else "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
            " (or: go install sigs.k8s.io/kind@latest)"
        )
        unknown = "kind is not installed, or not on PATH"
        raise DevloopError.of(
            Code.ENV_TOOL_MISSING,
            unknown if error.missing else f"kind cannot be run: {error.reason}",
            cause="`devloop cluster` runs kind",
            suggestions=(f"install kind: {install}",),
        ) from error
    except process.Overran as error:
        raise provision_error(f"`{what}` did not end in time", error.err or error.out) from error
    if done.status != 0:
        docker.call("ping")
        shown = done.err if done.err.strip() else done.out
        raise provision_error(f"`{what}` ended with {done.status}", shown)
