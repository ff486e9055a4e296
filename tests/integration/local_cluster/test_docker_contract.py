"""What devloop relies on of a Docker daemon: the one in memory and the real one must agree."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.docker import docker_host
from devloop.base.cancel import Cancel
from devloop.errors import Code, DevloopError
from devloop.local_cluster.docker_host import DockerHost, DockerRefused
from devloop.local_cluster.machine import publisher
from tests.support.memory_docker import MemoryDocker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = os.environ.get("DEVLOOP_TEST_BUSYBOX", "busybox-base:dev")
SCRIPT = ("sh", "-c", "echo out; echo err >&2; exit 3")
LABEL = "devloop.dev/cluster"


@pytest.fixture(params=["memory", pytest.param("daemon", marks=pytest.mark.docker)])
def docker(request: pytest.FixtureRequest) -> Iterator[DockerHost]:
    if request.param == "daemon":
        with docker_host(Cancel()) as host:
            yield host
        return
    memory = MemoryDocker()
    memory.images = {IMAGE}
    memory.programs["sh"] = lambda _box, _argv: (3, "out\n", "err\n")
    yield DockerHost(memory, Cancel())


@pytest.fixture
def create(docker: DockerHost) -> Iterator[Callable[..., str]]:
    """Creates a container that sleeps; returns its name."""
    made: list[str] = []

    def create(**more: Any) -> str:
        name = f"devloop-contract-{secrets.token_hex(4)}"
        docker.create(name, IMAGE, **{"host": {}, "entrypoint": ["sleep", "600"], **more})
        made.append(name)
        return name

    yield create
    for name in made:
        docker.remove(name)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def state(docker: DockerHost, name: str) -> str:
    shown = docker.inspect(name)
    assert shown is not None
    return str(shown["State"]["Status"])


def test_a_container_from_its_creation_to_its_end(
    docker: DockerHost, create: Callable[..., str]
) -> None:
    port = free_port()
    name = create(
        labels={LABEL: "c"}, ports=[5000], host={"port_bindings": {5000: ("127.0.0.1", port)}}
    )
    shown = docker.inspect(name)
    assert shown is not None
    assert shown["Name"] == f"/{name}"
    assert shown["Config"]["Labels"][LABEL] == "c"
    assert shown["Config"]["Image"] == IMAGE
    assert shown["HostConfig"]["PortBindings"]["5000/tcp"][0]["HostPort"] == str(port)
    assert state(docker, name) == "created"
    docker.remove(name)
    assert docker.inspect(name) is None
    docker.remove(name)


def test_a_container_that_runs_and_stops(docker: DockerHost, create: Callable[..., str]) -> None:
    name = create(entrypoint=None, command=None, tty=True, stdin_open=True)
    docker.call("start", name)
    assert state(docker, name) == "running"
    docker.call("stop", name, timeout=0)
    assert state(docker, name) == "exited"


def test_containers_are_found_by_label_and_by_port(
    docker: DockerHost, create: Callable[..., str]
) -> None:
    mark, port = secrets.token_hex(4), free_port()
    bindings = {"port_bindings": {5000: ("127.0.0.1", port)}}
    name = create(labels={LABEL: mark}, ports=[5000], host=bindings, **SHELL)
    for wanted in (LABEL, f"{LABEL}={mark}"):
        found = docker.call("containers", all=True, filters={"label": wanted})
        assert f"/{name}" in [each["Names"][0] for each in found]
    assert not docker.call("containers", filters={"label": f"{LABEL}={mark}"})
    assert not docker.call("containers", all=True, filters={"label": f"{LABEL}=x{mark}"})
    assert publisher(docker, port) is None
    docker.call("start", name)
    assert publisher(docker, port) == f"container {name} ({IMAGE})"


SHELL: dict[str, Any] = {"entrypoint": None, "tty": True, "stdin_open": True}


def test_a_name_that_is_taken_is_refused(docker: DockerHost, create: Callable[..., str]) -> None:
    name = create()
    with pytest.raises(DockerRefused):
        docker.create(name, IMAGE, host={})


def test_a_port_that_is_taken_is_refused(docker: DockerHost, create: Callable[..., str]) -> None:
    host = {"port_bindings": {5000: ("127.0.0.1", free_port())}}
    first, second = (create(ports=[5000], host=host, **SHELL) for _ in range(2))
    docker.call("start", first)
    with pytest.raises(DockerRefused) as caught:
        docker.call("start", second)
    assert caught.value.code == Code.CLUSTER_PROVISION
    assert "allocated" in caught.value.diagnosis.detail[-1]


def test_an_image_that_cannot_be_pulled(docker: DockerHost) -> None:
    with pytest.raises(DevloopError) as caught:
        docker.create(None, "127.0.0.1:1/none:1", host={})
    assert caught.value.code == Code.CLUSTER_PROVISION
    assert caught.value.diagnosis.detail


def test_files_in_a_container_that_does_not_run(
    docker: DockerHost, create: Callable[..., str]
) -> None:
    name = create()
    assert docker.read(name, "/etc/made") == {}
    docker.write(name, "/etc/made/up/a:1/hosts.toml", "one")
    docker.write(name, "/etc/made/up/a:1/hosts.toml", "two ü")
    docker.write(name, "/etc/made/up/mark", "")
    assert docker.read(name, "/etc/made/up/mark") == {"/etc/made/up/mark": ""}
    assert docker.read(name, "/etc/made/up") == {
        "/etc/made/up/a:1/hosts.toml": "two ü",
        "/etc/made/up/mark": "",
    }


def test_programs_in_a_container(docker: DockerHost, create: Callable[..., str]) -> None:
    name = create(**SHELL)
    with pytest.raises(DockerRefused):
        docker.execute(name, SCRIPT)
    docker.call("start", name)
    result = docker.execute(name, SCRIPT)
    assert (result.status, result.out, result.err) == (3, "out\n", "err\n")
    docker.write(name, "/etc/made/a/file", "x")
    docker.write(name, "/etc/made/b/file", "x")
    assert docker.execute(name, ("rm", "-r", "/etc/made/a")).status == 0
    assert docker.read(name, "/etc/made") == {"/etc/made/b/file": "x"}


def test_networks(docker: DockerHost, create: Callable[..., str]) -> None:
    name = create(host={"network_mode": "none"})
    shown = docker.inspect(name)
    assert shown is not None
    assert set(shown["NetworkSettings"]["Networks"]) == {"none"}
    other = create()
    shown = docker.inspect(other)
    assert shown is not None
    assert set(shown["NetworkSettings"]["Networks"]) == {"bridge"}


def test_volumes(docker: DockerHost, create: Callable[..., str]) -> None:
    mark = secrets.token_hex(4)
    name, wanted = f"devloop-contract-{mark}", {"label": f"{LABEL}={mark}"}
    assert not docker.call("volumes", filters=wanted)["Volumes"]
    for _ in range(2):
        docker.call("create_volume", name, labels={LABEL: mark})
    container = create(host={"binds": [f"{name}:/var/lib/registry"]})
    assert [v["Name"] for v in docker.call("volumes", filters=wanted)["Volumes"]] == [name]
    docker.remove(container)
    docker.call("remove_volume", name)
    assert not docker.call("volumes", filters=wanted)["Volumes"]
