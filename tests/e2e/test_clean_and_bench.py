"""`devloop clean` and `devloop bench` as processes, against a real registry and cluster."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from devloop.builders.built_images import BuiltImages
from devloop.errors import DevloopError
from devloop.registry.client import RegistryClient
from tests.e2e.conftest import free_port
from tests.e2e.standing import standing, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

# It looks at images of the whole machine.
pytestmark = pytest.mark.exclusive

START = 180.0


@dataclass(frozen=True, slots=True)
class Command:
    """`devloop ...` in the workspace, run to its end."""

    workspace: Workspace
    cluster: Cluster
    env: dict[str, str]

    def argv(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "devloop", *argv, "-n", self.cluster.namespace]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
            "IMAGE": f"{self.cluster.namespace}/web",
            "PORT": str(free_port()),
            **self.env,
        }

    def __call__(self, *argv: str, status: int = 0) -> dict[str, Any]:
        """The JSON that it prints; {} for nothing."""
        done = subprocess.run(
            self.argv(*argv),
            cwd=self.workspace.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == status, done
        found: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        return found


@pytest.fixture
def command(workspace: Workspace, cluster: Cluster) -> Command:
    return Command(workspace, cluster, {})


# --- clean ---------------------------------------------------------------------------------------


def _docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.fixture
def own_registry() -> Iterator[str]:
    """A registry for one test, marked as devloop's own. The nodes cannot pull from it."""
    name, port = f"devloop-test-registry-{uuid.uuid4().hex[:8]}", free_port()
    _docker(
        *("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:5000"),
        *("--label", "devloop.dev/cluster=nobody", "-e", "REGISTRY_STORAGE_DELETE_ENABLED=true"),
        os.environ["DEVLOOP_TEST_REGISTRY_IMAGE"],
    )
    try:
        _await_answer(f"localhost:{port}")
        yield f"localhost:{port}"
    finally:
        _docker("rm", "-f", "-v", name)


def _await_answer(host: str) -> None:
    deadline = time.monotonic() + 60
    with RegistryClient(host) as client:
        while True:
            try:
                return client.ping()
            except DevloopError:
                assert time.monotonic() < deadline, f"{host} does not answer"
                time.sleep(0.1)


class Images:
    """What the test's registry has of the images that devloop wrote down."""

    def __init__(self, workspace: Workspace, cluster: Cluster, host: str) -> None:
        self._built = BuiltImages(workspace.root / ".devloop")
        self._host = host
        self._name = f"{cluster.namespace}/web"

    def written(self) -> list[str]:
        return [made.digest for made in self._built.all()]

    def there(self, digests: list[str]) -> list[str]:
        with RegistryClient(self._host) as client:
            return [d for d in digests if client.digest(f"{self._host}/{self._name}", d) == d]


@pytest.fixture
def empty(workspace: Workspace) -> None:
    """The app with no pods, so that no node needs its image, and one older ReplicaSet."""
    workspace.replace(
        "k8s.yaml",
        "spec:\n  selector: {match",
        "spec:\n  replicas: 0\n  revisionHistoryLimit: 1\n  selector: {match",
    )


@pytest.mark.usefixtures("empty")
def test_clean_removes_what_nothing_names(
    devloop: Start, workspace: Workspace, cluster: Cluster, own_registry: str
) -> None:
    command = Command(workspace, cluster, {"DEVLOOP_TEST_REGISTRY": own_registry})
    images = Images(workspace, cluster, own_registry)
    for version in ("v0", "v1", "v2", "v3"):
        workspace.version(version)
        assert devloop("run", DEVLOOP_TEST_REGISTRY=own_registry).join(START) == 0
    made = images.written()
    assert len(set(made)) == 4
    assert images.there(made) == made
    named = until(cluster, lambda now: len(now.replicasets) == 2, "one older ReplicaSet").images
    assert named == set(made[2:])

    told = command("clean", "--dry-run", "-o", "json")
    assert told["dry_run"] is True
    assert told["registry"]["host"] == own_registry
    assert {m.rpartition("@")[2] for m in told["registry"]["manifests"]} == set(made[:2])
    assert told["registry"]["in_use"] == 2
    assert told["removed"] is None
    assert images.there(made) == made
    assert images.written() == made
    before = standing(cluster)

    done = command("clean", "-o", "json")
    assert done["registry"] == told["registry"]
    assert done["docker"] == told["docker"]
    assert done["problems"] == []
    assert done["removed"]["manifests"] == 2
    assert done["removed"]["images"] == len(told["docker"]) > 0
    assert done["removed"]["blobs"] > 0
    _await_answer(own_registry)
    assert images.there(made) == made[2:]
    assert images.written() == made[2:]
    assert standing(cluster).version == before.version

    again = command("clean", "--dry-run", "-o", "json")
    assert again["registry"]["manifests"] == again["docker"] == []
    # What was removed can be made again.
    workspace.version("v0")
    session = devloop("run", DEVLOOP_TEST_REGISTRY=own_registry)
    assert session.join(START) == 0, session.story()
    assert standing(cluster).image not in made[2:]
    assert images.there([standing(cluster).image])


@pytest.mark.usefixtures("empty")
def test_clean_keeps_the_last_ones_if_asked(
    devloop: Start, workspace: Workspace, cluster: Cluster, own_registry: str
) -> None:
    workspace.replace("k8s.yaml", "revisionHistoryLimit: 1", "revisionHistoryLimit: 0")
    for version in ("v0", "v1", "v2"):
        workspace.version(version)
        assert devloop("run", DEVLOOP_TEST_REGISTRY=own_registry).join(START) == 0
    until(cluster, lambda now: len(now.replicasets) == 1, "one ReplicaSet")
    images = Images(workspace, cluster, own_registry)
    made = images.written()
    command = Command(workspace, cluster, {"DEVLOOP_TEST_REGISTRY": own_registry})
    told = command("clean", "--dry-run", "--keep", "2", "-o", "json")
    assert [m.rpartition("@")[2] for m in told["registry"]["manifests"]] == made[:1]


@pytest.mark.usefixtures("empty")
def test_clean_is_refused_beside_a_session(
    devloop: Start, workspace: Workspace, cluster: Cluster, own_registry: str
) -> None:
    session = devloop("dev", DEVLOOP_TEST_REGISTRY=own_registry)
    session.finished("ready", seconds=START)
    workspace.replace("k8s.yaml", "revisionHistoryLimit: 1", "revisionHistoryLimit: 0")
    # A save of its own: on a busy machine two are two iterations in any case.
    session.finished("ready", seconds=START)
    for version in ("v1", "v2"):
        workspace.version(version)
        session.finished("ready", seconds=START)
    until(cluster, lambda now: len(now.replicasets) == 1, "one ReplicaSet")
    images = Images(workspace, cluster, own_registry)
    made = images.written()
    command = Command(workspace, cluster, {"DEVLOOP_TEST_REGISTRY": own_registry})
    assert command("clean", "--dry-run", "-o", "json")["registry"]["manifests"]
    refused = subprocess.run(
        command.argv("clean"),
        cwd=workspace.root,
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 3, refused
    assert "env/session-running" in refused.stdout + refused.stderr
    assert str(session.process.pid) in refused.stdout + refused.stderr
    assert images.there(made) == made == images.written()
    session.interrupt()
    assert command("clean", "-o", "json")["removed"]["manifests"] > 0


# --- bench ---------------------------------------------------------------------------------------


def _free(workspace: Workspace) -> None:
    """No session is left: its lock can be had."""
    with (workspace.root / ".devloop" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _files(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """All of the project but devloop's own folder: content, mode, time."""
    return {
        str(path.relative_to(root)): (
            path.read_bytes(),
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in root.rglob("*")
        if path.is_file() and ".devloop" not in path.relative_to(root).parts
    }


def test_bench_measures_and_leaves_no_trace(
    workspace: Workspace, cluster: Cluster, command: Command
) -> None:
    (workspace.root / "app.py").chmod(0o755)
    os.utime(workspace.root / "app.py", (1_700_000_000, 1_700_000_000.5))
    before = _files(workspace.root)
    report = command("bench", "-N", "2", "--edit", "app.py", "--pause", "0.2", "-o", "json")
    assert (report["service"], report["file"]) == ("web", "app.py")
    assert len(report["samples"]) == len(report["baseline"]["samples"]) == 2, report
    for stage in ("detect", "build", "push", "deploy", "rollout", "total", "baseline"):
        figures = report["summary"][stage]
        assert figures["n"] == 2, report
        assert 0 < figures["min"] <= figures["p50"] <= figures["p95"] <= figures["max"], report
    assert report["ratio"] > 0
    for sample in report["samples"]:
        assert sample["total"] >= max(v for k, v in sample.items() if k not in ("total", "how"))
    assert _files(workspace.root) == before
    _free(workspace)
    cluster.serves("v0")
    after = until(cluster, lambda now: len(now.pods) == 1, "one pod")
    assert not after.paused
    assert after.pod.image == after.pod.runs == after.image


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_bench_restores_the_file_when_interrupted(
    workspace: Workspace, command: Command, number: signal.Signals, status: int
) -> None:
    before = _files(workspace.root)
    process = subprocess.Popen(
        command.argv("bench", "-N", "50", "--edit", "app.py", "--pause", "0", "-o", "json"),
        cwd=workspace.root,
        env=command.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START
        while (workspace.root / "app.py").read_bytes() == before["app.py"][0]:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "nothing was edited"
            time.sleep(0.02)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == status, (out, err)
    assert out == ""
    assert _files(workspace.root) == before
    _free(workspace)
