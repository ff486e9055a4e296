"""Images loaded into the nodes of clusters without a registry, by programs that stand in for those
that make such clusters; `kind` itself is with the cluster's tests."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.base import process
from devloop.base.cancel import Cancel, Cancelled
from devloop.errors import Code, DevloopError
from devloop.model import NodeImages, PushTarget
from devloop.registry.discovery import check
from devloop.registry.node_images import NodeImageLoader, node_images
from tests.support.waiting import Overdue, runs, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Program = Callable[[str, str], None]

KIND = NodeImages("kind", "dev")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a shell script on PATH under a name."""
    own = tmp_path / "bin"
    own.mkdir()
    monkeypatch.setenv("PATH", f"{own}:/usr/bin:/bin")

    def put(name: str, script: str) -> None:
        (own / name).write_text(f"#!/bin/sh\n{script}\n")
        (own / name).chmod(0o755)

    return put


def load(nodes: NodeImages = KIND, image: str = "shop/web:t", limit: float = 60.0) -> list[str]:
    said: list[str] = []
    NodeImageLoader(nodes, limit=limit).load(image, Cancel(), said.append)
    return said


@pytest.mark.parametrize(
    ("tool", "asked"),
    [
        ("kind", "kind load docker-image shop/web:t --name dev"),
        ("k3d", "k3d image import shop/web:t --cluster dev --mode direct"),
        ("minikube", "minikube image load shop/web:t --daemon=true --profile dev"),
        ("microk8s", "docker save shop/web:t\nmicrok8s ctr image import - < an image"),
    ],
)
def test_each_clusters_own_program_is_asked(
    tool: str, asked: str, tmp_path: Path, program: Program
) -> None:
    args = tmp_path / "args"
    program("docker", f'echo "docker $*" > {args}; echo an image')
    reads = 'echo "microk8s $* < $(cat)"' if tool == "microk8s" else f'echo "{tool} $*"'
    program(tool, f"{reads} >> {args}")
    assert load(NodeImages(tool, "dev")) == ["loading shop/web:t into the nodes of dev"]
    assert args.read_text() == f"{asked}\n"


def test_where_docker_is_shared_nothing_is_loaded(program: Program) -> None:
    for name in ("docker", "kind", "minikube"):
        program(name, "exit 1")
    assert load(NodeImages("docker", "docker-desktop")) == []
    check_ = NodeImages("docker", "docker-desktop")
    check(PushTarget(nodes=check_), None)


@pytest.mark.parametrize(
    ("tool", "said", "code"),
    [
        ("kind", 'ERROR: no nodes found for cluster "dev"', "cluster/not-found"),
        ("kind", "ERROR: failed to load image: no space left on device", "env/disk-full"),
        ("kind", 'ERROR: image: "x" not present locally', "registry/push-failed"),
        ("kind", "", "registry/push-failed"),
        ("k3d", "FATA[0000] no nodes found for given cluster", "cluster/not-found"),
        ("minikube", '* Profile "dev" not found. Run "minikube profile list"', "cluster/not-found"),
        ("minikube", "X Exiting due to GUEST_IMAGE_LOAD: cannot load", "registry/push-failed"),
        ("microk8s", "microk8s is not running, try microk8s start", "cluster/not-found"),
    ],
)
def test_what_it_says_of_a_failure_is_told(
    tool: str, said: str, code: str, program: Program
) -> None:
    program("docker", "exit 0")
    program(tool, f"echo '{said}' >&2; exit 1")
    with pytest.raises(DevloopError) as caught:
        load(NodeImages(tool, "dev"))
    assert caught.value.code == code
    if code == "registry/push-failed" and said:
        assert caught.value.diagnosis.cause == said


def test_a_node_that_does_not_run_is_named(program: Program) -> None:
    said = (
        'ERROR: command "docker exec --privileged dev-worker containerd config dump" failed\n\n'
        "Command Output: Error response from daemon: container 28dd is not running"
    )
    program("kind", f"echo '{said}' >&2; exit 1")
    with pytest.raises(DevloopError) as caught:
        load(KIND)
    assert caught.value.code == "registry/push-failed"
    assert caught.value.diagnosis.message == "node dev-worker of dev does not run"
    assert caught.value.diagnosis.suggestions == ("start it: docker start dev-worker",)


def test_k3d_fails_with_a_status_of_0(program: Program) -> None:
    program("k3d", "echo 'ERRO[0001] failed to import image: exec failed' >&2")
    with pytest.raises(DevloopError) as caught:
        load(NodeImages("k3d", "dev"))
    assert caught.value.code == "registry/push-failed"
    assert "failed to import" in (caught.value.diagnosis.cause or "")


def test_a_program_that_is_not_there_is_named_with_its_home(program: Program) -> None:
    del program
    for tool in ("kind", "k3d", "minikube", "microk8s"):
        for attempt in (
            load,
            lambda nodes: check(PushTarget(nodes=nodes), None),
        ):
            with pytest.raises(DevloopError) as caught:
                attempt(NodeImages(tool, "dev"))
            assert caught.value.code == "env/tool-missing"
            assert tool in caught.value.diagnosis.suggestions[0]


def test_a_load_is_cancelled_with_all_its_children(tmp_path: Path, program: Program) -> None:
    program("kind", f"sleep 60 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait")
    cancel = Cancel()

    def stop() -> None:
        until((tmp_path / "pid").exists)
        cancel.set()

    threading.Thread(target=stop, name="devloop-stop").start()
    with pytest.raises(Cancelled):
        NodeImageLoader(KIND).load("x:t", cancel, lambda _: None)
    until(lambda: not runs(int((tmp_path / "pid").read_text())))


def test_a_load_that_does_not_end_is_given_up_with_all_its_children(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, pid = tmp_path / "new", tmp_path / "pid"
    program("kind", f"echo saving; sleep 600 & echo $! > {new}; mv {new} {pid}; wait")
    monkeypatch.setattr(process, "time", Overdue(pid.exists))
    with pytest.raises(DevloopError) as caught:
        load(limit=90.0)
    assert caught.value.code == Code.REGISTRY_PUSH_FAILED
    assert caught.value.diagnosis.cause == "error: kind did not end within 90 s"
    assert caught.value.diagnosis.detail[0] == "saving"
    until(lambda: not runs(int((tmp_path / "pid").read_text())))


def test_a_child_that_kind_leaves_behind_keeps_no_load_waiting(
    tmp_path: Path, program: Program
) -> None:
    program("kind", f"sleep 600 & echo $! > {tmp_path}/pid")
    try:
        load()
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


# Which nodes a context leads to.


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("kind-dev", NodeImages("kind", "dev")),
        ("k3d-dev", NodeImages("k3d", "dev")),
        ("minikube", NodeImages("minikube", "minikube")),
        ("microk8s", NodeImages("microk8s", "microk8s")),
        ("docker-desktop", NodeImages("docker", "docker-desktop")),
        ("rancher-desktop", NodeImages("docker", "rancher-desktop")),
        ("orbstack", NodeImages("docker", "orbstack")),
        ("colima", NodeImages("docker", "colima")),
        ("colima-work", NodeImages("docker", "colima-work")),
    ],
)
def test_a_usual_name_tells_without_a_request(context: str, expected: NodeImages) -> None:
    def nobody() -> tuple[str, str]:
        raise AssertionError("asked")

    assert node_images(context, nobody, {}) == expected


@pytest.mark.parametrize(
    ("made_by", "expected"),
    [
        (("kind", "a"), NodeImages("kind", "a")),
        (("k3d", "a"), NodeImages("k3d", "a")),
        (("minikube", "mine"), NodeImages("minikube", "mine")),
        (("MicroK8s", "microk8s"), NodeImages("microk8s", "microk8s")),
        (("Docker Desktop", "docker desktop"), NodeImages("docker", "team")),
        (("kind", ""), None),
        (("", ""), None),
    ],
)
def test_under_another_name_the_nodes_tell(
    made_by: tuple[str, str], expected: NodeImages | None
) -> None:
    assert node_images("team", lambda: made_by, {}) == expected


def test_minikubes_own_docker_needs_no_load() -> None:
    env = {"MINIKUBE_ACTIVE_DOCKERD": "minikube"}
    assert node_images("minikube", lambda: ("", ""), env) == NodeImages("docker", "minikube")
    other = node_images("team", lambda: ("minikube", "mine"), env)
    assert other == NodeImages("minikube", "mine")
