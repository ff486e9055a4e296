"""`devloop cluster` against a Docker in memory: what it makes, repairs and removes."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import docker.errors
import pytest
import yaml
from click.testing import CliRunner

from devloop import local_cluster
from devloop.app import docker as app_docker
from devloop.base import process
from devloop.base.cancel import Cancel, Cancelled
from devloop.cli import cluster as cli
from devloop.errors import Code, DevloopError
from devloop.local_cluster import (
    ClusterProgress,
    DockerHost,
    Wanted,
    garbage,
    machine,
    registry,
    wiring,
)
from devloop.local_cluster.cluster import kind
from tests.support.memory_docker import Box, MemoryDocker
from tests.support.waiting import Overdue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CA = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"


class Clock(Cancel):
    """A cancel whose waits take no time, and the clock that they move on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.is_set()

    def __call__(self) -> float:
        return self.now


class Host(MemoryDocker):
    """A Docker with a kind that makes nodes in it, a kubectl in these, and a kubeconfig."""

    def __init__(self) -> None:
        super().__init__()
        self.images = {"registry:3"}
        self.programs["kubectl"] = self.kubectl
        self.hosting: dict[str, Any] | None = None
        self.contexts: dict[str, tuple[str, str]] = {}
        self.current = ""
        self.kind_calls: list[tuple[str, ...]] = []
        self.kind_fails: dict[str, str] = {}
        self.ready = True
        self.accounts_late = 0  # how often there is no service account yet
        self.api = True
        self.clock = Clock()

    @property
    def docker(self) -> DockerHost:
        return DockerHost(self, self.clock, clock=self.clock)

    def read_context(self, name: str) -> local_cluster.KnownContext:
        server, ca = self.contexts.get(name, ("", ""))
        return local_cluster.KnownContext(server=server, ca=ca, current=self.current)

    def kubectl(self, box: Box, argv: list[str]) -> tuple[int, str, str]:
        args = argv[2:]
        if not self.api:
            return 1, "", "The connection to the server was refused"
        if args[0] == "apply":
            self.hosting = json.loads(box.files[args[1].removeprefix("--filename=")])
        elif args[0] == "delete":
            self.hosting = None
        elif args[1] == "serviceaccount":
            self.accounts_late -= 1
            return (0 if self.accounts_late < 0 else 1), "", "not found"
        else:
            condition = {"type": "Ready", "status": str(self.ready)}
            nodes = [
                {"kind": "Node", "metadata": {"name": n}, "status": {"conditions": [condition]}}
                for n, b in self.boxes.items()
                if "io.x-k8s.kind.cluster" in b.labels
            ]
            return 0, json.dumps({"items": [*nodes, *([self.hosting] if self.hosting else [])]}), ""
        return 0, "", ""

    def kind(self, argv: Sequence[str], *, cancel: Cancel, **more: Any) -> process.Completed:
        """In the place of the runner of programs."""
        cancel.check()
        _, verb, what, *args = argv
        self.kind_calls.append((verb, what))
        if verb in self.kind_fails:
            return process.Completed(status=1, out="", err=self.kind_fails[verb])
        name = args[args.index("--name") + 1]
        if verb == "create":
            assert yaml.safe_load(more["given"])["kind"] == "Cluster"
            more["on_error_line"](" • Preparing nodes 📦  ...")
            self.make_cluster(name)
            if "--image" in args:
                self.boxes[f"{name}-control-plane"].image = args[args.index("--image") + 1]
        elif verb == "delete":
            self.boxes.pop(f"{name}-control-plane", None)
            self.hosting = None
            self.contexts.clear()
            self.current = ""
        else:
            self.add_context(name)
        return process.Completed(status=0, out="", err="")

    def make_cluster(self, name: str) -> None:
        self.boxes[f"{name}-control-plane"] = Box(
            labels={"io.x-k8s.kind.cluster": name, "io.x-k8s.kind.role": "control-plane"},
            networks={"kind"},
            ports={"6443/tcp": "40001"},
            files={
                "/etc/kubernetes/pki/ca.crt": CA,
                "/etc/containerd/config.toml": 'config_path = "/etc/containerd/certs.d"',
                "/etc/kubernetes/kubelet.conf": "kind: Config",
            },
        )
        self.add_context(name)

    def add_context(self, name: str) -> None:
        self.contexts[f"kind-{name}"] = ("https://127.0.0.1:40001", CA)
        self.current = f"kind-{name}"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(process, "capture", host.kind)
    monkeypatch.setattr(registry, "is_bound", lambda port: str(port) in host.taken)

    def answers(port: int) -> bool:
        return any(
            box.state == "running" and box.ports.get("5000/tcp") == str(port)
            for box in host.boxes.values()
        )

    monkeypatch.setattr(registry, "answers", answers)
    return host


def up(
    host: Host, wanted: Wanted | None = None, **more: Any
) -> tuple[local_cluster.Up, list[ClusterProgress]]:
    reported: list[ClusterProgress] = []
    stands = local_cluster.up(
        host.docker,
        wanted or Wanted(),
        report=reported.append,
        read_context=host.read_context,
        **more,
    )
    return stands, [p for p in reported if p.state == "done"]


def down(host: Host, name: str = "devloop", **more: Any) -> local_cluster.RemovedCluster:
    return local_cluster.down(host.docker, name, report=lambda _: None, **more)


def status(host: Host, name: str = "devloop") -> local_cluster.Status:
    return local_cluster.status(host.docker, name, read_context=host.read_context)


NODE = "devloop-control-plane"
REGISTRY = "devloop-registry"
HOSTS = "/etc/containerd/certs.d/localhost:5001/hosts.toml"


def test_up_makes_a_cluster_wired_to_its_registry(host: Host) -> None:
    stands, _ = up(host)
    assert (stands.context, stands.registry, stands.created) == (
        "kind-devloop",
        "localhost:5001",
        True,
    )
    assert 'host."http://devloop-registry:5000"' in host.boxes[NODE].files[HOSTS]
    assert host.boxes[REGISTRY].networks == {"bridge", "kind"}
    assert host.boxes[REGISTRY].labels["devloop.dev/cluster"] == "devloop"
    assert host.hosting is not None
    hosting = yaml.safe_load(host.hosting["data"]["localRegistryHosting.v1"])
    assert hosting["host"] == "localhost:5001"
    assert hosting["hostFromClusterNetwork"] == "devloop-registry:5000"
    assert "hostFromContainerRuntime" not in hosting
    seen = status(host)
    assert seen.ok
    assert seen.created_by_devloop
    assert seen.problems == ()


def test_up_waits_until_pods_can_be_made(host: Host) -> None:
    host.accounts_late = 2
    up(host)
    assert sum("serviceaccount" in call for call in host.calls) == 3


def test_a_second_up_changes_nothing(host: Host) -> None:
    up(host)
    host.calls.clear()
    stands, _ = up(host)
    assert not stands.created
    assert {call[0] for call in host.calls} == {
        *("containers", "inspect_container", "get_archive", "exec_create"),
    }
    assert not any("apply" in call for call in host.calls)
    assert host.kind_calls == [("create", "cluster")]


def _stop_registry(host: Host) -> None:
    host.boxes[REGISTRY].state = "exited"


def _remove_registry(host: Host) -> None:
    del host.boxes[REGISTRY]


def _leave_network(host: Host) -> None:
    host.boxes[REGISTRY].networks.discard("kind")


def _stop_node(host: Host) -> None:
    host.boxes[NODE].state = "exited"


def _pause_node(host: Host) -> None:
    host.boxes[NODE].state = "paused"


def _lose_hosts(host: Host) -> None:
    del host.boxes[NODE].files[HOSTS]


def _spoil_hosts(host: Host) -> None:
    host.boxes[NODE].files[HOSTS] = "server = 'elsewhere'"


def _lose_config_map(host: Host) -> None:
    host.hosting = None


def _lose_kubeconfig(host: Host) -> None:
    host.contexts.clear()


def _leave_no_context_current(host: Host) -> None:
    # What kind does when it deletes the cluster whose context is.
    host.current = ""


def _keep_a_stale_context(host: Host) -> None:
    host.contexts["kind-devloop"] = ("https://127.0.0.1:40002", CA)


def _keep_a_context_with_another_ca(host: Host) -> None:
    host.contexts["kind-devloop"] = ("https://127.0.0.1:40001", CA * 2)


@pytest.mark.parametrize(
    "damage",
    [
        _stop_registry,
        _remove_registry,
        _leave_network,
        _stop_node,
        _pause_node,
        _lose_hosts,
        _spoil_hosts,
        _lose_config_map,
        _lose_kubeconfig,
        _leave_no_context_current,
        _keep_a_stale_context,
        _keep_a_context_with_another_ca,
    ],
)
def test_up_repairs(host: Host, damage: Callable[[Host], None]) -> None:
    up(host)
    damage(host)
    seen = status(host)
    assert not seen.ok
    assert seen.problems
    stands, _ = up(host)
    assert not stands.created
    assert status(host).ok


def test_up_makes_the_context_current_and_says_which_one_was(host: Host) -> None:
    up(host)
    host.current = "elsewhere"
    assert status(host).ok
    _, said = up(host)
    assert host.current == "kind-devloop"
    assert [p.detail for p in said if p.step == "kubeconfig" and p.state == "done"] == [
        "context kind-devloop is current, elsewhere was"
    ]


def test_a_registry_that_cannot_start_is_recreated_on_its_volume(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(host)
    host.boxes[REGISTRY].state = "exited"
    start, refused = host.start, iter([True])

    def start_once_refused(name: str) -> None:
        if next(refused, False):
            raise docker.errors.APIError("network 0123 not found")
        start(name)

    monkeypatch.setattr(host, "start", start_once_refused)
    _, reported = up(host)
    assert any(p.detail == "recreated at localhost:5001" for p in reported)
    assert set(host.volumes_by_name) == {REGISTRY}
    assert status(host).ok


def test_another_port_moves_the_registry(host: Host) -> None:
    up(host)
    stands, _ = up(host, Wanted(registry_port=5055))
    assert stands.registry == "localhost:5055"
    assert status(host).registry == "localhost:5055"
    assert status(host).ok
    assert up(host)[0].registry == "localhost:5055"
    assert HOSTS in host.boxes[NODE].files  # what was deployed before can still be pulled


def test_a_registry_that_is_gone_comes_back_at_its_port(host: Host) -> None:
    up(host, Wanted(registry_port=5055))
    _remove_registry(host)
    assert up(host)[0].registry == "localhost:5055"


def test_a_busy_port_leaves_the_old_registry_alone(host: Host) -> None:
    up(host)
    host.taken = {"5055"}
    with pytest.raises(DevloopError):
        up(host, Wanted(registry_port=5055))
    assert status(host).ok


def test_a_busy_port_names_its_owner(host: Host) -> None:
    host.taken = {"5001"}
    with pytest.raises(DevloopError) as caught:
        up(host, Wanted(port_owner=lambda port: f"nginx (pid {port})"))
    assert caught.value.code == Code.ENV_PORT_BUSY
    assert caught.value.diagnosis.cause == "held by nginx (pid 5001)"
    host.boxes["other"] = Box(ports={"80/tcp": "5001"})
    with pytest.raises(DevloopError) as caught:
        up(host, Wanted(port_owner=lambda _: None))
    assert caught.value.diagnosis.cause == "held by container other (image)"
    assert host.kind_calls == []


def test_a_port_that_docker_finds_busy_leaves_no_container(host: Host) -> None:
    host.boxes["other"] = Box(ports={"80/tcp": "5001"})
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == Code.ENV_PORT_BUSY
    assert set(host.boxes) == {"other"}


def test_a_registry_whose_port_was_taken_meanwhile_is_kept(host: Host) -> None:
    up(host)
    _stop_registry(host)
    host.taken = {"5001"}
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == Code.ENV_PORT_BUSY
    assert REGISTRY in host.boxes


def test_the_registrys_image_is_pulled_when_it_is_not_here(host: Host) -> None:
    host.images = set()
    host.pullable = {"registry:3"}
    up(host)
    assert ("pull", "registry", "3") in host.calls
    assert status(host).ok


def test_an_image_that_cannot_be_pulled_is_named(host: Host) -> None:
    host.images = set()
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == Code.CLUSTER_PROVISION
    assert caught.value.diagnosis.message == "the registry could not be started from registry:3"
    assert caught.value.diagnosis.detail == ("manifest for registry:3 not found",)


def test_kinds_last_lines_are_shown(host: Host) -> None:
    host.kind_fails["create"] = "Creating\nERROR: failed to create cluster: no disk\n"
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == Code.CLUSTER_PROVISION
    assert caught.value.diagnosis.detail[-1] == "ERROR: failed to create cluster: no disk"


AWAY = docker.errors.DockerException("Connection refused")


@pytest.mark.parametrize("method", ["containers", "create_container", "put_archive", "ping"])
def test_a_daemon_that_is_away(host: Host, method: str) -> None:
    host.failing[method] = AWAY
    if method == "ping":
        host.kind_fails["create"] = "ERROR: whatever kind writes then"
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == Code.ENV_DOCKER_UNREACHABLE
    assert caught.value.diagnosis.cause == "Connection refused"


def test_a_cancelled_creation_leaves_no_half_made_cluster(host: Host) -> None:
    def interrupt(method: str) -> None:
        if method == "put_archive":
            host.clock.set()

    host.before = interrupt
    with pytest.raises(Cancelled):
        up(host)
    assert NODE not in host.boxes
    host.before = lambda _: None
    host.clock = Clock()
    assert "container devloop-registry" in down(host).removed
    assert host.boxes == {}


def test_a_daemon_that_does_not_answer_does_not_keep_a_cancelled_command(host: Host) -> None:
    hung = threading.Event()

    def hang(_method: str) -> None:
        host.clock.set()
        hung.wait()

    host.before = hang
    try:
        with pytest.raises(Cancelled):
            status(host)
    finally:
        hung.set()


@pytest.mark.parametrize("method", ["start", "exec_create", "put_archive"])
def test_a_node_that_goes_away_meanwhile_is_an_error_like_any_other(
    host: Host, method: str
) -> None:
    up(host)
    _stop_node(host)
    _lose_hosts(host)

    def take_away(called: str) -> None:
        if called == method:
            host.boxes.pop(NODE, None)

    host.before = take_away
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == Code.CLUSTER_PROVISION


def test_down_leaves_nothing_and_is_idempotent(host: Host) -> None:
    up(host)
    gone = down(host)
    assert set(gone.removed) == {
        "cluster devloop",
        "container devloop-registry",
        "volume devloop-registry",
    }
    assert (host.boxes, host.volumes_by_name, host.contexts) == ({}, {}, {})
    assert down(host) == local_cluster.RemovedCluster(removed=())


def test_down_knows_its_cluster_when_it_is_stopped(host: Host) -> None:
    up(host)
    _stop_node(host)
    assert "cluster devloop" in down(host).removed


def test_down_removes_what_a_killed_up_left_half_made(host: Host) -> None:
    up(host)
    host.boxes[NODE].files.clear()
    _stop_node(host)
    with pytest.raises(DevloopError, match="cut short"):
        up(host)
    assert "cluster devloop" in down(host).removed


def test_an_adopted_cluster_is_wired_and_kept(host: Host) -> None:
    host.make_cluster("devloop")
    stands, _ = up(host)
    assert not stands.created
    seen = status(host)
    assert seen.ok
    assert not seen.created_by_devloop
    gone = down(host)
    assert gone.kept_cluster == "devloop"
    assert set(host.boxes) == {NODE}
    assert HOSTS not in host.boxes[NODE].files
    assert host.hosting is None
    assert host.volumes_by_name == {}
    assert "cluster devloop" in down(host, yes=True).removed


def test_recreate_spares_somebody_elses_cluster_unless_yes(host: Host) -> None:
    host.make_cluster("devloop")
    with pytest.raises(DevloopError) as caught:
        up(host, recreate=True)
    assert caught.value.exit_status == 4
    assert NODE in host.boxes
    stands, _ = up(host, recreate=True, yes=True)
    assert stands.created
    assert status(host).created_by_devloop


def test_recreate_keeps_the_registry_and_the_node_image(host: Host) -> None:
    up(host)
    before = host.boxes[REGISTRY]
    host.boxes[NODE].image = "kindest/node:v1.30.0"
    stands, _ = up(host, recreate=True)
    assert stands.created
    assert host.boxes[NODE].image == "kindest/node:v1.30.0"
    assert host.boxes[REGISTRY] is before
    assert status(host).ok


def test_a_registry_that_somebody_else_wired_is_respected(host: Host) -> None:
    host.make_cluster("devloop")
    host.boxes["kind-registry"] = Box(ports={"5000/tcp": "5001"}, networks={"kind"})
    host.boxes[NODE].files[HOSTS] = '[host."http://kind-registry:5000"]\n'
    host.hosting = {
        "kind": "ConfigMap",
        "metadata": {"name": "local-registry-hosting"},
        "data": {"localRegistryHosting.v1": 'host: "localhost:5001"\n'},
    }
    stands, _ = up(host)
    assert stands.registry == "localhost:5001"
    assert REGISTRY not in host.boxes
    assert status(host).ok


@pytest.mark.parametrize(("address", "why"), [("10.0.0.2", "does not answer"), ("", "address")])
def test_a_cluster_that_stays_silent_is_beyond_repair(host: Host, address: str, why: str) -> None:
    up(host)
    host.boxes[NODE].files["/etc/kubernetes/manifests/etcd.yaml"] = f"listen: {address}"
    host.api = False
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == Code.CLUSTER_PROVISION
    assert why in caught.value.diagnosis.message
    assert "--recreate" in caught.value.diagnosis.suggestions[0]
    assert status(host).problems == ("the API server does not answer",)


def test_nodes_that_do_not_become_ready_are_named(host: Host) -> None:
    host.ready = False
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.diagnosis.message.endswith(f"not ready: {NODE}")
    assert host.clock.now > 150


def test_a_cluster_without_its_service_account_takes_no_pods(host: Host) -> None:
    host.accounts_late = 10_000
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.diagnosis.message.endswith("no pod can be created in it")
    assert caught.value.diagnosis.detail == ("not found",)


def test_a_node_image_that_reads_no_certs_d(host: Host) -> None:
    host.make_cluster("devloop")
    del host.boxes[NODE].files["/etc/containerd/config.toml"]
    with pytest.raises(DevloopError, match=r"certs\.d"):
        up(host)


def test_a_silent_registry_is_reported_with_its_log(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "answers", lambda _port: False)

    def panic(method: str) -> None:
        if method == "logs":
            host.boxes[REGISTRY].log = "panic: no disk\n"

    host.before = panic
    with pytest.raises(DevloopError) as caught:
        up(host)
    assert caught.value.code == "registry/unreachable"
    assert caught.value.diagnosis.detail == ("panic: no disk",)


@pytest.mark.parametrize("name", ["", "-x", "Shop", "a b", "x" * 50, "a;b", "../x"])
def test_names_that_kind_would_refuse(name: str) -> None:
    with pytest.raises(DevloopError, match="not a valid cluster name"):
        Wanted(name=name)


# --- the parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "host"),
    [
        ({"data": {"localRegistryHosting.v1": "host: localhost:5000"}}, "localhost:5000"),
        ({"data": {"localRegistryHosting.v1": "host: ["}}, ""),
        ({"data": {"localRegistryHosting.v1": "- 1"}}, ""),
        ({"data": None}, ""),
        ({}, ""),
    ],
)
def test_reading_a_hosting_config_map(config: dict[str, Any], host: str) -> None:
    assert wiring.hosted_at(config) == host


def test_control_plane_comes_first_whatever_the_order() -> None:
    boxes = {
        f"c-{role}": Box(labels={"io.x-k8s.kind.cluster": "c", "io.x-k8s.kind.role": role})
        for role in ("worker", "control-plane")
    }
    found = machine.parse([b.inspected(n) for n, b in boxes.items()], "c")
    assert [n.role for n in found.nodes] == ["control-plane", "worker"]
    assert found.registry is None


# --- kind --------------------------------------------------------------------------------------


@pytest.fixture
def idle() -> DockerHost:
    return DockerHost(MemoryDocker(), Cancel())


def test_a_missing_kind_comes_with_a_way_to_get_it(
    idle: DockerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for system, hint in (("linux", "kind.sigs.k8s.io"), ("darwin", "brew install kind")):
        monkeypatch.setattr("sys.platform", system)
        with pytest.raises(DevloopError) as caught:
            kind(idle, "version", limit=1)
        assert caught.value.code == Code.ENV_TOOL_MISSING
        assert hint in caught.value.diagnosis.suggestions[0]


def test_a_kind_that_does_not_end_is_given_up_with_its_last_lines(
    idle: DockerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "kind"
    program.write_text(f"#!/bin/sh\necho last >&2\n: > {tmp_path}/done\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(process, "time", Overdue((tmp_path / "done").exists))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(DevloopError, match="did not end in time") as caught:
        kind(idle, "create", "cluster", limit=90)
    assert caught.value.diagnosis.detail == ("last",)


# --- the collector -----------------------------------------------------------------------------


SCRIPT = ["/entrypoint.sh", "/etc/registry.yml"]
PROGRAM = ["registry", "serve", "/etc/registry.yml"]


@pytest.fixture
def filled(host: Host) -> Host:
    up(host)
    host.boxes[REGISTRY].command = SCRIPT
    host.ends_at_once = lambda box: "garbage-collect" in box.command
    return host


@pytest.mark.parametrize("command", [SCRIPT, PROGRAM])
def test_the_collector_runs_while_the_registry_stands_still(
    filled: Host, command: list[str]
) -> None:
    filled.boxes[REGISTRY].command = command
    seen: list[tuple[str, list[str]]] = []

    def look(method: str) -> None:
        if method == "logs":
            collector = next(b for n, b in filled.boxes.items() if n not in {NODE, REGISTRY})
            collector.log = "blob eligible for deletion: a\nblob eligible for deletion: b\n"
            seen.append((filled.boxes[REGISTRY].state, collector.command))

    filled.before = look
    assert garbage.owned_registry(filled.docker, "localhost:5001") == REGISTRY
    assert garbage.owned_registry(filled.docker, "registry.example.com:5001") is None
    assert garbage.collect(filled.docker, REGISTRY) == 2
    assert seen == [("exited", [command[0], "garbage-collect", "/etc/registry.yml"])]
    assert filled.boxes[REGISTRY].state == "running"
    assert set(filled.boxes) == {NODE, REGISTRY}


@pytest.mark.parametrize("method", ["create_container", "logs"])
def test_the_registry_runs_again_whatever_becomes_of_the_collector(
    filled: Host, method: str
) -> None:
    filled.failing[method] = docker.errors.APIError("no")
    with pytest.raises(DevloopError):
        garbage.collect(filled.docker, REGISTRY)
    assert filled.boxes[REGISTRY].state == "running"
    assert set(filled.boxes) == {NODE, REGISTRY}


def test_the_registry_runs_again_when_the_collection_is_cancelled(filled: Host) -> None:
    def interrupt(method: str) -> None:
        if method == "create_container":
            filled.clock.set()

    filled.before = interrupt
    with pytest.raises(Cancelled):
        garbage.collect(filled.docker, REGISTRY)
    assert filled.boxes[REGISTRY].state == "running"


def test_a_stop_that_was_cancelled_is_waited_for_before_the_registry_is_started(
    filled: Host,
) -> None:
    filled.calls.clear()
    first, moved_on = iter([True]), threading.Event()

    def interrupt(method: str) -> None:
        if method == "stop" and next(first, False):
            filled.clock.set()
            moved_on.wait()
        elif method in {"stop", "start"}:
            moved_on.set()

    filled.before = interrupt
    with pytest.raises(Cancelled):
        garbage.collect(filled.docker, REGISTRY)
    called = [call[0] for call in filled.calls if call[0] in {"stop", "start"}]
    assert called == ["stop", "stop", "start"]


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def command(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(app_docker, "connect", lambda _timeout: host)
    monkeypatch.setattr(cli, "_read_context", host.read_context)
    return host


def test_the_commands_from_up_to_down(command: Host) -> None:
    host = command
    runner = CliRunner()
    made = runner.invoke(cli.command, ["up"])
    assert made.exit_code == 0
    assert "context kind-devloop, registry localhost:5001" in made.output
    assert made.output.rstrip().endswith("next: devloop dev")
    assert "\x1b" not in made.output
    seen = runner.invoke(cli.command, ["status", "-o", "json"])
    assert seen.exit_code == 0
    assert json.loads(seen.output)["ok"] is True
    assert json.loads(seen.output)["nodes"][0]["wired"] is True
    assert runner.invoke(cli.command, ["status"]).exit_code == 0
    _lose_hosts(host)
    broken = runner.invoke(cli.command, ["status"])
    assert broken.exit_code == 3
    assert "does not pull from the registry" in broken.output
    gone = runner.invoke(cli.command, ["down"])
    assert "removed: cluster devloop" in gone.output
    assert runner.invoke(cli.command, ["status"]).exit_code == 3
    assert "nothing to remove" in runner.invoke(cli.command, ["down"]).output


def test_errors_reach_the_caller_of_the_command(command: Host) -> None:
    host = command
    host.failing["containers"] = AWAY
    failed = CliRunner().invoke(cli.command, ["status"])
    assert isinstance(failed.exception, DevloopError)
