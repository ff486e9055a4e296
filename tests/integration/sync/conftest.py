"""A namespace of its own, images in the test registry, and a service to sync into."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.base.ignore_rules import IgnoreRules
from devloop.cluster.api.connection import Connection
from devloop.cluster.api.exec_stream import open_exec
from devloop.cluster.api.view import ClusterView, owned_by
from devloop.model import Fingerprint, ImageRef, Scan, WorkloadRef
from devloop.sync.rules import PathRule
from devloop.sync.syncer import FileSync
from devloop.watch.rules import ContextRules
from devloop.watch.scan import TreeScanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from devloop.cluster.api.exec_stream import ExecStream
    from devloop.errors import Diagnosis
    from devloop.model import PodView, Served, Step, StepOutcome

BASES = {"python": "python-base:dev", "busybox": "busybox-base:dev"}


class Told:
    """A Reporter that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def started(self, step: Step) -> None:
        self.steps.append(f"{step} started")

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        pass

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self.steps.append(f"{step} {outcome} {detail}")

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        raise AssertionError(diagnosis)


@pytest.fixture(scope="session")
def session_connection() -> Iterator[Connection]:
    namespace = f"sync-{secrets.token_hex(4)}"
    env = os.environ | {"KUBECONFIG": os.environ["DEVLOOP_TEST_KUBECONFIG"]}
    opened = Connection.open(os.environ["DEVLOOP_TEST_CONTEXT"], namespace, env=env)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    opened.request("POST", "/api/v1/namespaces", body)
    yield opened
    opened.request("DELETE", f"/api/v1/namespaces/{namespace}")
    opened.close()


@pytest.fixture
def connection(session_connection: Connection) -> Connection:
    return session_connection


class Pods:
    """A `PodSource` for the workload of one service."""

    def __init__(self, view: ClusterView, ref: WorkloadRef) -> None:
        self._pods: dict[str, PodView] = {}
        self._callbacks: list[Callable[[], None]] = []
        self.stop = view.subscribe_pods(ref.namespace, owned_by(ref), self._take)

    def _take(self, pod: PodView, gone: bool) -> None:
        if gone:
            self._pods.pop(pod.uid, None)
        else:
            self._pods[pod.uid] = pod
        for callback in tuple(self._callbacks):
            callback()

    def current(self, service: str) -> tuple[PodView, ...]:
        return tuple(self._pods.values())

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)


def docker(*argv: str) -> str:
    done = subprocess.run(
        ["docker", *argv],
        env=os.environ | {"DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Shop:
    """One service `web` whose context is `directory`, copied to /app; its pods; its `FileSync`."""

    def __init__(self, connection: Connection, directory: Path) -> None:
        self.connection = connection
        self.directory = directory
        self.name = f"web-{secrets.token_hex(3)}"
        self.streams: list[ExecStream] = []
        self._scanner = TreeScanner(directory, ContextRules(IgnoreRules(())))
        self._view = ClusterView(connection)
        self.ref = WorkloadRef("deployment", self.name, connection.namespace)
        self.pods = Pods(self._view, self.ref)
        self.sync: FileSync | None = None

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(file.name + ".new~")
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)
        fresh.chmod(mode)
        fresh.replace(file)

    def scan(self) -> Scan:
        snapshot = self._scanner.scan(None, Cancel())
        fingerprint = Fingerprint(build=snapshot.digest, deploy="d")
        return Scan(fingerprint=fingerprint, snapshot=snapshot, recipe="r")

    def image(self, dockerfile: str) -> ImageRef:
        """Build the directory with `dockerfile`, and push."""
        repository = f"{os.environ['DEVLOOP_TEST_REGISTRY']}/devloop-sync/{self.name}"
        tag = secrets.token_hex(4)
        file = self.directory.parent / f"Dockerfile.{tag}"
        file.write_text(dockerfile)
        docker("build", "-q", "-t", f"{repository}:{tag}", "-f", str(file), str(self.directory))
        found = re.search(r"digest: (sha256:\w+)", docker("push", f"{repository}:{tag}"))
        docker("image", "rm", f"{repository}:{tag}")
        assert found
        return ImageRef(repository=repository, tag=tag, digest=found[1])

    def deploy(self, image: ImageRef, replicas: int = 1, **container: Any) -> None:
        labels = {"app": self.name}
        spec = {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "web", "image": image.pinned, **container}],
        }
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
        path = f"/apis/apps/v1/namespaces/{self.connection.namespace}/deployments"
        self.connection.request("POST", path, body)
        self.wait_for(lambda: len(self.running()) == replicas)

    def remove(self) -> None:
        path = f"/apis/apps/v1/namespaces/{self.connection.namespace}/deployments/{self.name}"
        with contextlib.suppress(Exception):
            self.connection.request("DELETE", path, query={"propagationPolicy": "Background"})

    def running(self) -> list[PodView]:
        return [
            pod
            for pod in self.pods.current("web")
            if not pod.deleting and any(c.state == "running" and c.image_id for c in pod.containers)
        ]

    def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.pods.current("web")
            time.sleep(0.02)

    def open_stream(
        self, pod: PodView, container: str, argv: Sequence[str], cancel: Cancel
    ) -> ExecStream:
        stream = open_exec(
            self.connection, pod.namespace, pod.name, container, argv=argv, cancel=cancel
        )
        self.streams.append(stream)
        return stream

    def start(self, *rules: PathRule) -> FileSync:
        self.sync = FileSync(
            "web",
            context=self.directory,
            open_stream=self.open_stream,
            pods=self.pods,
            rules=rules or (PathRule(src="**", dest="/app"),),
        )
        return self.sync

    def bring(self) -> Served:
        """What the engine does after a save."""
        assert self.sync
        scan = self.scan()
        assert self.sync.blocker(scan) is None
        return self.sync.sync(scan, Told(), Cancel())

    def run(self, *argv: str, pod: str = "", check: bool = True) -> str:
        """The output of a command in a container."""
        name = pod or self.running()[0].name
        done = subprocess.run(
            ["kubectl", "-n", self.connection.namespace, "exec", name, "--", *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        if self.sync is not None:
            self.sync.close()
        self.pods.stop()
        self._view.close()
        self.remove()


@pytest.fixture
def shop(connection: Connection, tmp_path: Path) -> Iterator[Shop]:
    directory = tmp_path / "context"
    directory.mkdir()
    made = Shop(connection, directory)
    yield made
    made.close()
