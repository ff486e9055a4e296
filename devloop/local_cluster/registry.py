"""The registry's container: made, started, reached and removed.

The container is `<cluster>-registry` and listens on 127.0.0.1 only; its images live in a volume of
the same name, so it can be remade (another port, a lost network) without losing them.
"""

from __future__ import annotations

import errno
import http.client
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.errors import Code, DevloopError
from devloop.local_cluster.machine import CLUSTER_LABEL, MADE_LABEL, publisher
from devloop.local_cluster.run import CompletedProgram, docker, last_words
from devloop.local_cluster.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.local_cluster.machine import Machine, RegistryContainer
    from devloop.local_cluster.steps import Report

__all__ = ["IMAGE", "PORT", "Ask", "answers", "container_name", "ensure", "remove"]

IMAGE = "registry:3"  # the one kind's guide uses
PORT = 5001  # kind's guide again; 5000 belongs to AirPlay on macOS

_PULL_AND_START = 300.0
_ANSWER = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """`port` None: the one that an existing registry has, else 5001."""

    cluster: str
    image: str
    port: int | None
    port_owner: Callable[[int], str | None]


def container_name(cluster: str) -> str:
    return f"{cluster}-registry"


def ensure(ask: Ask, machine: Machine, *, report: Report, cancel: Cancel) -> None:
    """Have the registry running and answering on 127.0.0.1.

    Errors: env/port-busy, registry/unreachable, cluster/provision."""
    with step(report, "registry") as note:
        note(_ensure(ask, machine, cancel))


def _ensure(ask: Ask, machine: Machine, cancel: Cancel) -> str:
    there = machine.registry
    if there is not None and not there.ours:
        return _adopt(ask, there, cancel)
    if there is not None and there.port is not None and ask.port in (None, there.port):
        if there.running:
            _await_answer(there.name, there.port, cancel)
            return f"runs at localhost:{there.port}"
        verb = "unpause" if there.state == "paused" else "start"
        started = docker(verb, there.name, cancel=cancel, timeout=60, check=False)
        if started.ok:
            _await_answer(there.name, there.port, cancel)
            return f"started at localhost:{there.port}"
        if _port_taken(started):
            raise _busy(there.port, ask, cancel)
        # Any other reason (its network was deleted, its file system is damaged) ends with a new
        # container on the same volume.
    port = ask.port or (there.port if there is not None else None) or PORT
    made_cluster = not machine.nodes or (there is not None and there.made_cluster)
    if _is_bound(port):
        raise _busy(port, ask, cancel)
    if there is not None:
        docker("rm", "--force", there.name, cancel=cancel)
    _run(ask, port, made_cluster=made_cluster, cancel=cancel)
    return f"{'remade' if there else 'made'} at localhost:{port}"


def _adopt(ask: Ask, there: RegistryContainer, cancel: Cancel) -> str:
    if there.port is None or ask.port not in (None, there.port):
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            f"the container {there.name} was not made by devloop for the cluster {ask.cluster}",
            cause="it does not publish a registry at the port that is wanted",
            suggestions=(f"remove it: docker rm --force {there.name}", "use another --name"),
        )
    if not there.running:
        docker("start", there.name, cancel=cancel, timeout=60)
    _await_answer(there.name, there.port, cancel)
    return f"localhost:{there.port}, not made by devloop"


def _run(ask: Ask, port: int, *, made_cluster: bool, cancel: Cancel) -> None:
    name = container_name(ask.cluster)
    label = f"{CLUSTER_LABEL}={ask.cluster}"
    docker("volume", "create", "--label", label, name, cancel=cancel)
    started = docker(
        *("run", "--detach", "--name", name, "--restart", "unless-stopped", "--label", label),
        *(("--label", f"{MADE_LABEL}=true") if made_cluster else ()),
        *("--publish", f"127.0.0.1:{port}:5000", "--volume", f"{name}:/var/lib/registry"),
        # `devloop clean` deletes manifests; version 3 traces to a collector unless told not to.
        *("--env", "REGISTRY_STORAGE_DELETE_ENABLED=true", "--env", "OTEL_TRACES_EXPORTER=none"),
        ask.image,
        cancel=cancel,
        timeout=_PULL_AND_START,
        check=False,
    )
    if not started.ok:
        # docker keeps a container that it could make and not start.
        docker("rm", "--force", name, cancel=cancel, check=False)
        if _port_taken(started):
            raise _busy(port, ask, cancel)
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            f"the registry could not be started from {ask.image}",
            suggestions=("name an image that is here or can be pulled: --registry-image",),
            detail=last_words(started),
        )
    _await_answer(name, port, cancel)


def remove(cluster: str, machine: Machine, *, report: Report, cancel: Cancel) -> list[str]:
    """Remove our container and volume if they are there; returns what was removed, in words."""
    removed: list[str] = []
    listed = docker(
        *("volume", "ls", "--quiet", "--filter", f"label={CLUSTER_LABEL}={cluster}"), cancel=cancel
    )
    volumes = listed.out.split()
    ours = machine.registry is not None and machine.registry.ours
    if not ours and not volumes:
        return removed
    with step(report, "registry") as note:
        if ours:
            docker("rm", "--force", "--volumes", container_name(cluster), cancel=cancel)
            removed.append(f"container {container_name(cluster)}")
        for volume in volumes:
            docker("volume", "rm", volume, cancel=cancel)
            removed.append(f"volume {volume}")
        note("deleted")
    return removed


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


def _await_answer(name: str, port: int, cancel: Cancel) -> None:
    deadline = time.monotonic() + _ANSWER
    while not answers(port):
        if time.monotonic() > deadline:
            said = docker("logs", "--tail", "8", name, cancel=cancel, check=False)
            raise DevloopError.of(
                Code.REGISTRY_UNREACHABLE,
                f"the registry {name} does not answer at localhost:{port}",
                suggestions=(f"look at it: docker logs {name}",),
                detail=last_words(said),
            )
        cancel.wait(0.1)
        cancel.check()


def _is_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _port_taken(finished: CompletedProgram) -> bool:
    said = finished.err.lower()
    return "port is already allocated" in said or "address already in use" in said


def _busy(port: int, ask: Ask, cancel: Cancel) -> DevloopError:
    owner = publisher(port, cancel) or ask.port_owner(port)
    return DevloopError.of(
        Code.ENV_PORT_BUSY,
        f"port {port} on 127.0.0.1 is in use",
        cause=f"held by {owner}" if owner else None,
        suggestions=(
            f"choose another port: devloop cluster up --registry-port {port + 1}",
            "or stop what holds it",
        ),
    )
