"""The registry's container: created, started, reached and removed.

The container is `<cluster>-registry` and listens on 127.0.0.1 only; its images live in a volume of
the same name, so it can be recreated (another port, a lost network) without losing them.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.sockets import is_bound
from devloop.errors import Code, DevloopError
from devloop.local_cluster.cluster import valid_name
from devloop.local_cluster.docker_host import DockerRefused, last_lines
from devloop.local_cluster.machine import CLUSTER_LABEL, MADE_LABEL, publisher, registry_name
from devloop.local_cluster.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.local_cluster.docker_host import DockerHost
    from devloop.local_cluster.machine import Machine, RegistryContainer
    from devloop.local_cluster.steps import Report


_PORT = 5001  # of kind's guide; 5000 belongs to AirPlay on macOS

_ANSWER = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `up` is asked for. None means: as it is, or the default for something new.

    `port_owner` names the process that has a local port."""

    name: str = "devloop"
    node_image: str | None = None
    registry_image: str = "registry:3"  # the one kind's guide uses
    registry_port: int | None = None
    port_owner: Callable[[int], str | None] = lambda _: None

    def __post_init__(self) -> None:
        valid_name(self.name)


def ensure(docker: DockerHost, wanted: Wanted, machine: Machine, *, report: Report) -> None:
    """Have the registry running and answering on 127.0.0.1.

    Errors: env/port-busy, registry/unreachable, cluster/provision."""
    with step(report, "registry") as note:
        note(_ensure(docker, wanted, machine))


def _ensure(docker: DockerHost, wanted: Wanted, machine: Machine) -> str:
    there = machine.registry
    if there is not None and not there.ours:
        return _adopt(docker, wanted, there)
    if there is not None and there.port is not None and wanted.registry_port in (None, there.port):
        try:
            if not there.running:
                docker.call("unpause" if there.state == "paused" else "start", there.name)
        except DockerRefused:
            # Any reason but its port (its network was deleted, its file system is damaged) ends
            # with a new container on the same volume.
            _check_port(docker, there.port, wanted)
        else:
            _await_answer(docker, there.name, there.port)
            return f"{'runs' if there.running else 'started'} at localhost:{there.port}"
    port = wanted.registry_port or (there.port if there is not None else None) or _PORT
    made_cluster = not machine.nodes or (there is not None and there.made_cluster)
    if is_bound(port):
        raise _busy(docker, port, wanted)
    if there is not None:
        docker.remove(there.name)
    _run(docker, wanted, port, made_cluster=made_cluster)
    return f"{'recreated' if there else 'created'} at localhost:{port}"


def _adopt(docker: DockerHost, wanted: Wanted, there: RegistryContainer) -> str:
    if there.port is None or wanted.registry_port not in (None, there.port):
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            f"the container {there.name} was not made by devloop for the cluster {wanted.name}",
            cause="it does not publish a registry at the port that is wanted",
            suggestions=(f"remove it: docker rm --force {there.name}", "use another --name"),
        )
    if not there.running:
        docker.call("start", there.name)
    _await_answer(docker, there.name, there.port)
    return f"localhost:{there.port}, not made by devloop"


def _run(docker: DockerHost, wanted: Wanted, port: int, *, made_cluster: bool) -> None:
    name = registry_name(wanted.name)
    label = {CLUSTER_LABEL: wanted.name}
    docker.call("create_volume", name, labels=label)
    try:
        docker.create(
            name,
            wanted.registry_image,
            labels=label | ({MADE_LABEL: "true"} if made_cluster else {}),
            # `devloop clean` deletes manifests; version 3 sends traces unless configured not to.
            environment={"REGISTRY_STORAGE_DELETE_ENABLED": "true", "OTEL_TRACES_EXPORTER": "none"},
            ports=[5000],
            host={
                "port_bindings": {5000: ("127.0.0.1", port)},
                "binds": [f"{name}:/var/lib/registry"],
                "restart_policy": {"Name": "unless-stopped"},
            },
        )
        docker.call("start", name)
    except DockerRefused as error:
        # Docker keeps a container that it could create and not start.
        docker.remove(name)
        _check_port(docker, port, wanted)
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            f"the registry could not be started from {wanted.registry_image}",
            suggestions=("name an image that is here or can be pulled: --registry-image",),
            detail=error.diagnosis.detail,
        ) from error
    _await_answer(docker, name, port)


def remove(docker: DockerHost, machine: Machine, *, report: Report) -> list[str]:
    """Remove our container and volume if they are there; returns what was removed, in words."""
    listed = docker.call("volumes", filters={"label": f"{CLUSTER_LABEL}={machine.name}"})
    volumes = [volume["Name"] for volume in listed["Volumes"] or ()]
    ours = [machine.registry.name] if machine.registry and machine.registry.ours else []
    if not ours and not volumes:
        return []
    with step(report, "registry") as note:
        for container in ours:
            docker.remove(container)
        for volume in volumes:
            docker.call("remove_volume", volume)
        note("deleted")
    return [*(f"container {c}" for c in ours), *(f"volume {v}" for v in volumes)]


def answers(port: int, timeout: float = 2.0) -> bool:
    """Whether a registry (of the OCI distribution API) answers on the local port."""
    if not port:
        return False
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _await_answer(docker: DockerHost, name: str, port: int) -> None:
    if docker.until(lambda: answers(port) or None, _ANSWER, pause=0.1) is None:
        raise DevloopError.of(
            Code.REGISTRY_UNREACHABLE,
            f"the registry {name} does not answer at localhost:{port}",
            suggestions=(f"look at it: docker logs {name}",),
            detail=last_lines(docker.logs(name, 8)),
        )


def _check_port(docker: DockerHost, port: int, wanted: Wanted) -> None:
    """Raise env/port-busy if somebody has the port. Docker's answer has the reason as text only."""
    if is_bound(port) or publisher(docker, port):
        raise _busy(docker, port, wanted)


def _busy(docker: DockerHost, port: int, wanted: Wanted) -> DevloopError:
    owner = publisher(docker, port) or wanted.port_owner(port)
    return DevloopError.of(
        Code.ENV_PORT_BUSY,
        f"port {port} on 127.0.0.1 is in use",
        cause=f"held by {owner}" if owner else None,
        suggestions=(
            f"choose another port: devloop cluster up --registry-port {port + 1}",
            "or stop what holds it",
        ),
    )
