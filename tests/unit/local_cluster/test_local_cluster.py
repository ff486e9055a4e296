"""`devloop cluster` against a Docker in memory: what it makes, repairs and removes."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from devloop import local_cluster
from devloop.base.cancel import Cancel, Cancelled
from devloop.cli import cluster as cli
from devloop.errors import DevloopError
from devloop.local_cluster import ClusterProgress, Wanted, cluster, machine, registry, run, wiring
from devloop.local_cluster.run import CompletedProgram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CA = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"


@dataclass
class Box:
    """A container."""

    labels: dict[str, str] = field(default_factory=dict)
    state: str = "running"
    image: str = "image"
    networks: set[str] = field(default_factory=set)
    ports: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def inspected(self, name: str) -> dict[str, Any]:
        return {
            "Name": f"/{name}",
            "Config": {"Labels": self.labels, "Image": self.image},
            "State": {"Status": self.state},
            "NetworkSettings": {"Networks": dict.fromkeys(self.networks)},
            "HostConfig": {
                "PortBindings": {
                    inner: [{"HostIp": "127.0.0.1", "HostPort": outer}]
                    for inner, outer in self.ports.items()
                }
            },
        }


class Host:
    """Docker and kind, as far as `provision` uses them; writes a real kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.boxes: dict[str, Box] = {}
        self.volumes: dict[str, str] = {}
        self.hosting: dict[str, Any] | None = None
        self.kubeconfig = kubeconfig
        self.calls: list[tuple[str, ...]] = []
        self.failing: dict[str, str] = {}
        self.ready = True
        self.accounts_late = 0  # how often there is no service account yet
        self.api = True
        self.before: Callable[[tuple[str, ...]], None] = lambda _: None

    def run(self, argv: Sequence[str], *, cancel: Cancel, **more: Any) -> CompletedProgram:
        cancel.check()
        words = tuple(argv)
        self.calls.append(words)
        self.before(words)
        for start, error in self.failing.items():
            if " ".join(words).startswith(start):
                return CompletedProgram(argv=words, code=1, out="", err=error)
        method = getattr(self, f"{words[0]}_{words[1]}")
        out = method(list(words[2:]), more.get("given") or "")
        if out is None:
            return CompletedProgram(argv=words, code=1, out="", err="Error: no such thing")
        return CompletedProgram(argv=words, code=0, out=out, err="")

    # docker

    def docker_container(self, args: list[str], _given: str) -> str:
        if args[:2] == ["inspect", "--format"]:
            return "10.0.0.2  "
        if args[0] == "inspect":
            return json.dumps([self.boxes[n].inspected(n) for n in args[1:] if n in self.boxes])
        [wanted] = [a.partition("=") for a in args if a.startswith(("label=", "publish="))]
        if wanted[0] == "publish":
            return "".join(
                f"{n} (image)\n" for n, b in self.boxes.items() if wanted[2] in b.ports.values()
            )
        key, _, value = wanted[2].partition("=")
        return "".join(f"{n}\n" for n, b in self.boxes.items() if b.labels.get(key) == value)

    def docker_volume(self, args: list[str], _given: str) -> str:
        if args[0] == "create":
            self.volumes.setdefault(args[-1], args[2])
        elif args[0] == "rm":
            del self.volumes[args[1]]
        else:
            label = args[-1].removeprefix("label=")
            return "".join(f"{n}\n" for n, kept in self.volumes.items() if kept == label)
        return ""

    def docker_run(self, args: list[str], _given: str) -> str:
        pairs = list(pairwise(args))
        [port] = [b for a, b in pairs if a == "--publish"]
        address, outer, inner = port.split(":")
        assert address == "127.0.0.1"
        self.boxes[dict(pairs)["--name"]] = Box(
            labels=dict(b.split("=", 1) for a, b in pairs if a == "--label"),
            ports={f"{inner}/tcp": outer},
            networks={"bridge"},
        )
        return "id\n"

    def docker_rm(self, args: list[str], _given: str) -> str | None:
        return "" if self.boxes.pop(args[-1], None) else None

    def docker_start(self, args: list[str], _given: str) -> str:
        self.boxes[args[0]].state = "running"
        return ""

    docker_unpause = docker_start

    def docker_network(self, args: list[str], _given: str) -> str:
        self.boxes[args[2]].networks.add(args[1])
        return ""

    def docker_cp(self, args: list[str], _given: str) -> str | None:
        name, _, path = args[0].partition(":")
        return "tar" if path in self.boxes[name].files else None

    def docker_logs(self, _args: list[str], _given: str) -> str:
        return "panic: no disk\n"

    def docker_exec(self, args: list[str], given: str) -> str | None:
        if args[0] == "--interactive":
            args = args[1:]
        box, command = self.boxes[args[0]], args[1:]
        if box.state != "running":
            return None
        if command[0] == "kubectl":
            return self.kubectl(command[3:], given)
        if command[0] == "cat":
            return box.files.get(command[1])
        if command[0] == "touch":
            box.files[command[1]] = ""
        elif command[3] == "unwire":
            box.files = {k: v for k, v in box.files.items() if f"//{command[4]}:5000" not in v}
        elif command[3] == "wire":
            box.files[f"{command[4]}/hosts.toml"] = given
        else:
            sections = [
                box.files.get(f"{command[4]}/hosts.toml", ""),
                box.files.get("ca", ""),
                box.files.get("certs", ""),
                box.files.get("kubelet", ""),
                "yes" if command[5] in box.files else "",
            ]
            return "".join(f"{s}\x1e" for s in sections)
        return ""

    def kubectl(self, args: list[str], given: str) -> str | None:
        if not self.api:
            return None
        if args[0] == "apply":
            self.hosting = json.loads(given)
        elif args[0] == "delete":
            self.hosting = None
        elif args[1] == "serviceaccount":
            self.accounts_late -= 1
            return "serviceaccount/default" if self.accounts_late < 0 else None
        else:
            condition = {"type": "Ready", "status": str(self.ready)}
            nodes = [
                {"kind": "Node", "metadata": {"name": n}, "status": {"conditions": [condition]}}
                for n, b in self.boxes.items()
                if "io.x-k8s.kind.cluster" in b.labels
            ]
            return json.dumps({"items": [*nodes, *([self.hosting] if self.hosting else [])]})
        return ""

    # kind

    def kind_create(self, args: list[str], given: str) -> str:
        assert yaml.safe_load(given)["kind"] == "Cluster"
        name = args[args.index("--name") + 1]
        self.make_cluster(name)
        if "--image" in args:
            self.boxes[f"{name}-control-plane"].image = args[args.index("--image") + 1]
        return ""

    def make_cluster(self, name: str) -> None:
        self.boxes[f"{name}-control-plane"] = Box(
            labels={"io.x-k8s.kind.cluster": name, "io.x-k8s.kind.role": "control-plane"},
            networks={"kind"},
            ports={"6443/tcp": "40001"},
            files={"ca": CA, "certs": "yes", "kubelet": "yes"},
        )
        self.kind_export(["kubeconfig", "--name", name], "")

    def kind_get(self, args: list[str], _given: str) -> str:
        return f"{args[2]}-control-plane\n"

    def kind_delete(self, args: list[str], _given: str) -> str:
        self.boxes.pop(f"{args[2]}-control-plane", None)
        self.hosting = None
        self.kubeconfig.unlink(missing_ok=True)
        return ""

    def kind_export(self, args: list[str], _given: str) -> str:
        context = f"kind-{args[2]}"
        cluster = {
            "server": "https://127.0.0.1:40001",
            "certificate-authority-data": base64.b64encode(CA.encode()).decode(),
        }
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "contexts": [{"name": context, "context": {"cluster": context}}],
                    "clusters": [{"name": context, "cluster": cluster}],
                }
            )
        )
        return ""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(host.kubeconfig))
    monkeypatch.setattr(run, "run", host.run)
    monkeypatch.setattr(registry, "_is_bound", lambda _port: False)

    def answers(port: int, timeout: float = 0) -> bool:
        return any(
            box.state == "running" and box.ports.get("5000/tcp") == str(port)
            for box in host.boxes.values()
        )

    monkeypatch.setattr(registry, "answers", answers)
    return host


def up(wanted: Wanted | None = None, **more: Any) -> tuple[local_cluster.Up, list[ClusterProgress]]:
    told: list[ClusterProgress] = []
    stands = local_cluster.up(wanted or Wanted(), report=told.append, cancel=Cancel(), **more)
    return stands, [p for p in told if p.state == "done"]


def down(name: str = "devloop", **more: Any) -> local_cluster.RemovedCluster:
    return local_cluster.down(name, report=lambda _: None, cancel=Cancel(), **more)


def status(name: str = "devloop") -> local_cluster.Status:
    return local_cluster.status(name, cancel=Cancel())


NODE = "devloop-control-plane"
REGISTRY = "devloop-registry"
HOSTS = "/etc/containerd/certs.d/localhost:5001/hosts.toml"


def test_up_makes_a_cluster_wired_to_its_registry(host: Host) -> None:
    stands, _ = up()
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
    seen = status()
    assert seen.ok
    assert seen.created_by_devloop
    assert seen.problems == ()


def test_up_waits_until_pods_can_be_made(host: Host) -> None:
    host.accounts_late = 2
    up()
    assert sum("serviceaccount" in call for call in host.calls) == 3


def test_a_second_up_changes_nothing(host: Host) -> None:
    up()
    host.calls.clear()
    stands, _ = up()
    assert not stands.created
    reading = {"container", "exec"}
    assert {call[1] for call in host.calls} <= reading
    assert not any("wire" in call or "apply" in call for call in host.calls)
    assert len(host.calls) <= 10


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
    host.kubeconfig.write_text("{}")


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
    ],
)
def test_up_repairs(host: Host, damage: Callable[[Host], None]) -> None:
    up()
    damage(host)
    seen = status()
    assert not seen.ok
    assert seen.problems
    stands, _ = up()
    assert not stands.created
    assert status().ok


def test_a_registry_that_cannot_start_is_remade_on_its_volume(host: Host) -> None:
    up()
    host.boxes[REGISTRY].state = "exited"
    host.failing["docker start"] = "network 0123 not found"
    _, told = up()
    assert any(p.detail == "remade at localhost:5001" for p in told)
    assert set(host.volumes) == {REGISTRY}
    assert status().ok


def test_another_port_moves_the_registry(host: Host) -> None:
    up()
    stands, _ = up(Wanted(registry_port=5055))
    assert stands.registry == "localhost:5055"
    assert status().registry == "localhost:5055"
    assert status().ok
    assert up()[0].registry == "localhost:5055"
    assert HOSTS in host.boxes[NODE].files  # what was deployed before can still be pulled


def test_a_registry_that_is_gone_comes_back_at_its_port(host: Host) -> None:
    up(Wanted(registry_port=5055))
    _remove_registry(host)
    assert up()[0].registry == "localhost:5055"


def test_a_busy_port_leaves_the_old_registry_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    up()
    monkeypatch.setattr(registry, "_is_bound", lambda port: port == 5055)
    with pytest.raises(DevloopError):
        up(Wanted(registry_port=5055))
    assert status().ok


def test_a_busy_port_names_its_owner(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_is_bound", lambda _port: True)
    with pytest.raises(DevloopError) as caught:
        up(port_owner=lambda port: f"nginx (pid {port})")
    assert caught.value.code == "env/port-busy"
    assert caught.value.diagnosis.cause == "held by nginx (pid 5001)"
    host.boxes["other"] = Box(ports={"80/tcp": "5001"})
    with pytest.raises(DevloopError) as caught:
        up(port_owner=lambda _: None)
    assert caught.value.diagnosis.cause == "held by container other (image)"
    assert not any(call[0] == "kind" for call in host.calls)


def test_a_port_that_docker_finds_busy_leaves_no_container(host: Host) -> None:
    host.failing["docker run"] = "Bind for 127.0.0.1:5001 failed: port is already allocated"
    with pytest.raises(DevloopError) as caught:
        up()
    assert caught.value.code == "env/port-busy"
    assert host.boxes == {}


def test_kinds_last_words_are_shown(host: Host) -> None:
    host.failing["kind create"] = "Creating\nERROR: failed to create cluster: no disk\n"
    with pytest.raises(DevloopError) as caught:
        up()
    assert caught.value.code == "cluster/provision"
    assert caught.value.diagnosis.detail[-1] == "ERROR: failed to create cluster: no disk"


@pytest.mark.parametrize("program", ["docker container", "kind create"])
def test_a_daemon_that_is_away(host: Host, program: str) -> None:
    host.failing[program] = "ERROR: Cannot connect to the Docker daemon at unix:///x. Is it?"
    with pytest.raises(DevloopError) as caught:
        up()
    assert caught.value.code == "env/docker-unreachable"


def test_a_cancelled_creation_leaves_no_half_made_cluster(host: Host) -> None:
    cancel = Cancel()

    def interrupt(call: tuple[str, ...]) -> None:
        if call[:2] == ("docker", "exec"):
            cancel.set()
            cancel.check()

    host.before = interrupt
    with pytest.raises(Cancelled):
        local_cluster.up(Wanted(), report=lambda _: None, cancel=cancel)
    assert NODE not in host.boxes
    host.before = lambda _: None
    assert "container devloop-registry" in down().removed
    assert host.boxes == {}


def test_down_leaves_nothing_and_is_idempotent(host: Host) -> None:
    up()
    gone = down()
    assert set(gone.removed) == {
        "cluster devloop",
        "container devloop-registry",
        "volume devloop-registry",
    }
    assert (host.boxes, host.volumes, host.kubeconfig.exists()) == ({}, {}, False)
    assert down() == local_cluster.RemovedCluster(removed=())


def test_down_knows_its_cluster_when_it_is_stopped(host: Host) -> None:
    up()
    _stop_node(host)
    assert "cluster devloop" in down().removed


def test_down_removes_what_a_killed_up_left_half_made(host: Host) -> None:
    up()
    host.boxes[NODE].files.clear()
    _stop_node(host)
    with pytest.raises(DevloopError, match="cut short"):
        up()
    assert "cluster devloop" in down().removed


def test_an_adopted_cluster_is_wired_and_kept(host: Host) -> None:
    host.make_cluster("devloop")
    stands, _ = up()
    assert not stands.created
    seen = status()
    assert seen.ok
    assert not seen.created_by_devloop
    gone = down()
    assert gone.kept_cluster == "devloop"
    assert set(host.boxes) == {NODE}
    assert HOSTS not in host.boxes[NODE].files
    assert host.hosting is None
    assert host.volumes == {}
    assert "cluster devloop" in down(yes=True).removed


def test_recreate_spares_a_strangers_cluster_unless_told(host: Host) -> None:
    host.make_cluster("devloop")
    with pytest.raises(DevloopError) as caught:
        up(recreate=True)
    assert caught.value.exit_status == 4
    assert NODE in host.boxes
    stands, _ = up(recreate=True, yes=True)
    assert stands.created
    assert status().created_by_devloop


def test_recreate_keeps_the_registry_and_the_node_image(host: Host) -> None:
    up()
    before = host.boxes[REGISTRY]
    host.boxes[NODE].image = "kindest/node:v1.30.0"
    stands, _ = up(recreate=True)
    assert stands.created
    assert host.boxes[NODE].image == "kindest/node:v1.30.0"
    assert host.boxes[REGISTRY] is before
    assert status().ok


def test_a_registry_that_somebody_else_wired_is_respected(host: Host) -> None:
    host.make_cluster("devloop")
    host.boxes["kind-registry"] = Box(ports={"5000/tcp": "5001"}, networks={"kind"})
    host.boxes[NODE].files[HOSTS] = '[host."http://kind-registry:5000"]\n'
    host.hosting = {
        "kind": "ConfigMap",
        "metadata": {"name": "local-registry-hosting"},
        "data": {"localRegistryHosting.v1": 'host: "localhost:5001"\n'},
    }
    stands, _ = up()
    assert stands.registry == "localhost:5001"
    assert REGISTRY not in host.boxes
    assert status().ok


@pytest.mark.parametrize(("address", "why"), [("10.0.0.2", "does not answer"), ("", "address")])
def test_a_cluster_that_stays_silent_is_beyond_repair(
    host: Host, monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    monkeypatch.setattr(cluster, "_API_SOON", 0.0)
    monkeypatch.setattr(cluster, "_API_RUNNING", 0.0)
    up()
    host.boxes[NODE].files["/etc/kubernetes/manifests/etcd.yaml"] = f"listen: {address}"
    host.api = False
    with pytest.raises(DevloopError) as caught:
        up()
    assert caught.value.code == "cluster/provision"
    assert why in caught.value.diagnosis.message
    assert "--recreate" in caught.value.diagnosis.suggestions[0]
    assert status().problems == ("the API server does not answer",)


def test_a_node_image_that_reads_no_certs_d(host: Host) -> None:
    host.make_cluster("devloop")
    del host.boxes[NODE].files["certs"]
    with pytest.raises(DevloopError, match=r"certs\.d"):
        up()


def test_a_silent_registry_is_reported_with_its_log(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "answers", lambda _port: False)
    monkeypatch.setattr(registry, "_ANSWER", 0.0)
    with pytest.raises(DevloopError) as caught:
        up()
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


def test_a_context_left_over_from_another_cluster_does_not_count(host: Host) -> None:
    host.kind_export(["kubeconfig", "--name", "devloop"], "")
    paths = (host.kubeconfig.parent / "missing", host.kubeconfig)
    assert wiring.kubeconfig_has(paths, "kind-devloop", 40001, CA)
    assert not wiring.kubeconfig_has(paths, "kind-devloop", 40002, CA)
    assert not wiring.kubeconfig_has(paths, "kind-devloop", 40001, CA * 2)
    assert not wiring.kubeconfig_has(paths, "kind-other", 40001, CA)
    host.kubeconfig.write_text("{{{")
    assert not wiring.kubeconfig_has(paths, "kind-devloop", 40001, CA)


def test_kubeconfig_paths_follow_the_variable(tmp_path: Path) -> None:
    named = wiring.kubeconfig_paths({"KUBECONFIG": f"{tmp_path}/a:{tmp_path}/b"})
    assert named == (tmp_path / "a", tmp_path / "b")
    assert wiring.kubeconfig_paths({})[0].parts[-2:] == (".kube", "config")


def test_control_plane_comes_first_whatever_the_order() -> None:
    boxes = {
        f"c-{role}": Box(labels={"io.x-k8s.kind.cluster": "c", "io.x-k8s.kind.role": role})
        for role in ("worker", "control-plane")
    }
    found = machine.parse([b.inspected(n) for n, b in boxes.items()], "c", "c-registry")
    assert [n.role for n in found.nodes] == ["control-plane", "worker"]
    assert found.registry is None


# --- running programs --------------------------------------------------------------------------


def test_run_returns_what_was_said() -> None:
    lines: list[str] = []
    script = "cat; echo one >&2; echo two >&2; exit 3"
    done = run.run(
        ["sh", "-c", script], cancel=Cancel(), timeout=10, given="in", on_line=lines.append
    )
    assert (done.code, done.out, done.err, lines) == (3, "in", "one\ntwo\n", ["one", "two"])
    assert run.last_words(done, 1) == ("two",)


def test_run_kills_the_whole_group_when_cancelled() -> None:
    cancel = Cancel()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run.run(["sh", "-c", "sleep 60 & sleep 60"], cancel=cancel, timeout=60)
    assert time.monotonic() - began < 2
    timer.join()


def test_run_gives_up_at_the_deadline() -> None:
    with pytest.raises(DevloopError, match="did not end in time") as caught:
        run.run(["sh", "-c", "echo last >&2; sleep 60"], cancel=Cancel(), timeout=0.3)
    assert caught.value.diagnosis.detail == ("last",)


def test_run_kills_a_program_that_ignores_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_GRACE", 0.2)
    began = time.monotonic()
    with pytest.raises(DevloopError):
        run.run(
            ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], cancel=Cancel(), timeout=0.3
        )
    assert time.monotonic() - began < 3


def test_a_missing_tool_comes_with_a_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for system, hint in (("linux", "kind.sigs.k8s.io"), ("darwin", "brew install kind")):
        monkeypatch.setattr("sys.platform", system)
        with pytest.raises(DevloopError) as caught:
            run.kind("version", cancel=Cancel(), timeout=1)
        assert caught.value.code == "env/tool-missing"
        assert hint in caught.value.diagnosis.suggestions[0]


# --- the command -------------------------------------------------------------------------------


def test_the_commands_from_up_to_down(host: Host) -> None:
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


def test_errors_reach_the_caller_of_the_command(host: Host) -> None:
    host.failing["docker"] = "Cannot connect to the Docker daemon"
    failed = CliRunner().invoke(cli.command, ["status"])
    assert isinstance(failed.exception, DevloopError)
