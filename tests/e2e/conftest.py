"""The real cluster: a namespace for each test, its API server's proxy, and devloop processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.session import Devloop, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.kind)
            item.add_marker(pytest.mark.docker)


class Cluster:
    """What the tests ask the cluster themselves, past devloop: through kubectl and its proxy."""

    def __init__(self, namespace: str, proxy: str) -> None:
        self.namespace = namespace
        self.proxy = proxy

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, kind: str, name: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, *([name] if name else []), "-o", "json")
        )
        return found

    def answer(self, path: str = "/", service: str = "web") -> str | None:
        """What the app answers at its Service, None when it does not."""
        url = f"{self.proxy}/api/v1/namespaces/{self.namespace}/services/{service}:8080/proxy{path}"
        try:
            with urllib.request.urlopen(url, timeout=3) as response:
                text: str = response.read().decode()
        except (OSError, urllib.error.HTTPError):
            return None
        return text

    def serves(
        self, wanted: str, path: str = "/", service: str = "web", within: float = 10
    ) -> None:
        deadline = time.monotonic() + within
        while (got := self.answer(path, service)) != wanted:
            assert time.monotonic() < deadline, f"{got!r} is served, not {wanted!r}"
            time.sleep(0.02)

    def files(self, *, has: str = "", lacks: str = "", within: float = 10) -> None:
        """Wait until the app's folder has one file and lacks another."""
        deadline = time.monotonic() + within
        while True:
            names = (self.answer("/files") or "").split()
            if names and (not has or has in names) and lacks not in names:
                return
            assert time.monotonic() < deadline, names
            time.sleep(0.02)

    def image_ids(self) -> set[str]:
        """The digests that the kubelet reports for the pods that are not on their way out."""
        return {
            status["imageID"].rpartition("@")[2]
            for pod in self.get("pods")["items"]
            if "deletionTimestamp" not in pod["metadata"]
            for status in pod["status"].get("containerStatuses", [])
        }


@pytest.fixture(scope="session")
def proxy() -> Iterator[str]:
    process = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"127\.0\.0\.1:\d+", line)
    assert match, line
    yield f"http://{match.group()}"
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def cluster(proxy: str) -> Iterator[Cluster]:
    namespace = f"devloop-{secrets.token_hex(4)}"
    cluster = Cluster(namespace, proxy)
    subprocess.run(["kubectl", "create", "namespace", namespace], check=True, timeout=60)
    yield cluster
    subprocess.run(
        ["kubectl", "delete", "namespace", namespace, "--wait=false"], check=True, timeout=60
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "app")


class RegistryContainer:
    """The test cluster's registry, to be stopped and started again."""

    def __init__(self, name: str) -> None:
        self._name = name

    def stop(self) -> None:
        subprocess.run(
            ["docker", "kill", self._name], check=True, timeout=30, stdout=subprocess.DEVNULL
        )

    def start(self) -> None:
        subprocess.run(
            ["docker", "start", self._name], check=True, timeout=30, stdout=subprocess.DEVNULL
        )


@pytest.fixture
def registry() -> RegistryContainer:
    port = os.environ["DEVLOOP_TEST_REGISTRY"].rpartition(":")[2]
    names = subprocess.run(
        ["docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}}"],
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert len(names) == 1, names
    return RegistryContainer(names[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def devloop(cluster: Cluster, workspace: Workspace) -> Iterator[Callable[..., Devloop]]:
    """Start `devloop ARGV...` on the workspace; every stream is checked at the end."""
    sessions: list[Devloop] = []

    def start(*argv: str, cwd: Path | None = None, **env: str) -> Devloop:
        session = Devloop(
            *argv,
            "--namespace",
            cluster.namespace,
            cwd=cwd or workspace.root,
            env={
                "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
                "IMAGE": f"{cluster.namespace}/web",
                "PORT": str(free_port()),
                **env,
            },
        )
        sessions.append(session)
        return session

    yield start
    for session in sessions:
        killed = session.process.poll() is None
        if killed:
            with contextlib.suppress(ProcessLookupError):
                session.interrupt()
        try:
            if session.events and not session.killed:
                session.check_stream()
        finally:
            session.close()
