"""buildx builders elsewhere: a BuildKit in the cluster, by its port and by buildx's `kubernetes`
driver, one in a container; what they push, and what becomes of a build when they are lost.

No Docker daemon is reached by sessions with a builder in the cluster.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.registry.client import RegistryClient
from tests.support import buildkit
from tests.support.buildkit import docker
from tests.support.cut import Cuttable
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

NOWHERE = "unix:///nowhere/docker.sock"


class Builders:
    """buildx with a configuration of its own, and a BuildKit in the cluster behind a connection
    that can be cut."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.registry = os.environ["DEVLOOP_TEST_REGISTRY"]
        self.namespace = namespace
        self.image = buildkit.image(self.registry)
        self.base = buildkit.base(self.registry)
        hosting = json.loads(
            self.kubectl(
                *("-n", "kube-public", "get", "configmap", "local-registry-hosting"),
                *("-o", r"jsonpath={.data.localRegistryHosting\.v1}"),
            ).replace("'", '"')
        )
        self.inside: str = hosting["hostFromClusterNetwork"]
        self.config = directory / "buildkitd.toml"
        self.config.write_text(buildkit.toml(self.registry, self.inside))
        self.env = {"BUILDX_CONFIG": str(directory / "buildx"), "BASE": self.base}
        manifests = buildkit.pod(self.image, self.registry, self.inside)
        self.kubectl("create", "namespace", namespace)
        self.kubectl("apply", "-f", "-", stdin=manifests)
        self.kubectl("wait", "pod/buildkitd", "--for=condition=Ready", "--timeout=60s")
        at = "jsonpath={.items[0].status.addresses[0].address}"
        address = self.kubectl("get", "nodes", "-o", at)
        port = self.kubectl("get", "svc", "buildkitd", "-o", "jsonpath={.spec.ports[0].nodePort}")
        self.way = Cuttable(address, int(port))
        self.create("far", "remote", f"tcp://127.0.0.1:{self.way.port}")

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, name: str, driver: str, *argv: str) -> None:
        docker("buildx", "create", f"--name={name}", f"--driver={driver}", *argv, env=self.env)

    def elsewhere(self, name: str = "far") -> dict[str, str]:
        """The environment of a session that uses the builder and has no Docker."""
        return {**self.env, "BUILDX_BUILDER": name, "DOCKER_HOST": NOWHERE}

    def close(self) -> None:
        self.way.close()
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builders]:
    made = Builders(tmp_path_factory.mktemp("buildx"), f"devloop-{secrets.token_hex(4)}")
    yield made
    made.close()


def runs(marker: str) -> bool:
    """Whether a step of a build does, wherever on this computer."""
    done = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True)
    return any(line.strip().startswith(f"sleep {marker}") for line in done.stdout.splitlines())


def test_a_builder_in_the_cluster_from_save_to_save(
    devloop: Callable[..., Devloop], cluster: Cluster, workspace: Workspace, builders: Builders
) -> None:
    shared = workspace.root.parent / "shared"
    shared.mkdir()
    (shared / "word.txt").write_text("one")
    workspace.replace(
        "devloop.yaml", "context: .", "context: .\n      contexts: {shared: ../shared}"
    )
    marker = f"60.{secrets.randbelow(10**8):08d}"
    workspace.replace(
        "Dockerfile",
        "COPY . .",
        "COPY --from=shared word.txt /word.txt\nRUN [ ! -e /slow ]\nCOPY . .\n"
        f"RUN if [ -e slow ]; then sleep {marker}; fi",
    )
    workspace.replace("app.py", 'VERSION = "v0"', 'VERSION = open("/word.txt").read()')
    session = devloop("dev", **builders.elsewhere())
    ready = session.finished("ready")
    cluster.serves("one")
    (notice,) = [d for d in session.of("diagnostic") if d["code"] == "registry/unreachable"]
    assert f"it pushes to {builders.inside} instead" in notice["message"]

    # A save in the named context, with the builder's cache for what does not read it.
    (shared / "word.txt").write_text("two")
    ready = session.finished("ready")
    cluster.serves("two")
    assert session.step("build", ready)["detail"].startswith("6 steps, 1 cached; ")

    # A newer save ends the build where it runs.
    workspace.save("slow", "")
    session.started("build")
    until(lambda: runs(marker), seconds=20)
    (workspace.root / "slow").unlink()
    workspace.save("run.txt", secrets.token_hex(8))
    session.ready_at_last()
    until(lambda: not runs(marker), seconds=5)

    # The connection breaks in the middle of a build, and comes back.
    workspace.save("slow", "")
    until(lambda: runs(marker), seconds=20)
    assert builders.way.cut()
    held = session.wait(
        lambda e: e["type"] == "hold" and e["code"] == "env/builder-unreachable",
        "word of the builder that is lost",
    )
    assert "the buildx builder far does not answer at tcp://127.0.0.1:" in held["reason"]
    until(lambda: not runs(marker), seconds=20)
    builders.way.mend()
    # It is tried again with no save, until one comes.
    until(lambda: runs(marker), seconds=30)
    (workspace.root / "slow").unlink()
    (shared / "word.txt").write_text("three")
    session.ready_at_last()
    cluster.serves("three")
    assert not runs(marker)


def builds(workspace: Workspace, builders: Builders, name: str, **env: str) -> str:
    """`devloop build --push` with a builder that has no image yet; what it prints."""
    (workspace.root / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    # Without a RUN that is what needs a builder.
    workspace.replace("devloop.yaml", "context: .", "context: .\n      labels: {a: b}")
    # The cluster names it by both of its names then.
    workspace.replace("devloop.yaml", "registry: ${DEVLOOP_TEST_REGISTRY}\n", "")
    image = f"{builders.namespace}/{name}"
    found = workspace.root.parent / "images.json"
    done = subprocess.run(
        [sys.executable, "-m", "devloop", "build", "--push", f"--file-output={found}"],
        cwd=workspace.root,
        env={**os.environ, **builders.env, "BUILDX_BUILDER": name, "IMAGE": image, **env},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = json.loads(found.read_text())["builds"]
    with RegistryClient(builders.registry) as client:
        assert client.digest(built["image"], built["digest"], Cancel()) == built["digest"]
    return done.stdout + done.stderr


def test_the_kubernetes_driver(workspace: Workspace, builders: Builders) -> None:
    options = f"--driver-opt=namespace={builders.namespace},image={builders.image}"
    builders.create("pods", "kubernetes", options, f"--config={builders.config}")
    said = builds(workspace, builders, "pods", DOCKER_HOST=NOWHERE)
    assert f"it pushes to {builders.inside} instead" in said


def test_a_builder_in_a_container_without_a_way_to_the_registry(
    workspace: Workspace, builders: Builders
) -> None:
    builders.create("boxed", "docker-container", f"--driver-opt=image={builders.image}")
    try:
        said = builds(workspace, builders, "boxed")
    finally:
        docker("buildx", "rm", "--force", "boxed", check=False, env=builders.env)
    assert "its images come back to the local Docker" in said


PLATFORMS = "context: .\n      platforms: [linux/amd64, linux/arm64]"


def test_an_image_for_two_platforms_without_emulation(
    devloop: Callable[..., Devloop], cluster: Cluster, workspace: Workspace, builders: Builders
) -> None:
    """What runs, runs on the builder's platform; the rest is copied. A node takes its own."""
    workspace.replace("devloop.yaml", "context: .", PLATFORMS)
    text = workspace.read("Dockerfile")
    text = text.replace("COPY . .", "COPY . .\nCOPY --from=made /arch .")
    made = "FROM --platform=$BUILDPLATFORM ${BASE} AS made\nARG TARGETARCH\n"
    made += "RUN echo -n $TARGETARCH > /arch\n"
    workspace.save("Dockerfile", text.replace("FROM ${BASE}", f"{made}FROM ${{BASE}}"))
    workspace.replace("app.py", 'VERSION = "v0"', 'VERSION = "v1 " + open("arch").read()')
    session = devloop("dev", **builders.elsewhere())
    ready = session.finished("ready")
    cluster.serves("v1 amd64")
    # A save is served at once, and an index follows.
    workspace.replace("app.py", "v1 ", "v2 ")
    session.finished("ready")
    cluster.serves("v2 amd64")
    session.interrupt()

    session = devloop("run", **builders.elsewhere())
    assert session.join(60) == 0, session.story()
    cluster.serves("v2 amd64")
    (digest,) = cluster.image_ids()
    with RegistryClient(builders.registry) as client:
        manifest = client.get_manifest(f"{cluster.namespace}/web", digest, Cancel())
    assert manifest is not None
    assert ready["outcome"] == "ready"
    found = [each["platform"]["architecture"] for each in json.loads(manifest.body)["manifests"]]
    assert sorted(found) == ["amd64", "arm64"]


def test_what_would_need_emulation(
    devloop: Callable[..., Devloop], workspace: Workspace, builders: Builders
) -> None:
    workspace.replace("devloop.yaml", "context: .", PLATFORMS)
    # The header of a program for arm64, and nothing else that could be run.
    header = bytearray(Path("/proc/self/exe").read_bytes()[:4096])
    header[18:20] = (183).to_bytes(2, "little")
    (workspace.root / "tool").write_bytes(header)
    (workspace.root / "tool").chmod(0o755)
    workspace.save("Dockerfile", 'FROM scratch\nCOPY . .\nRUN ["/tool"]\n')
    session = devloop("run", **builders.elsewhere())
    assert session.join(60) == 1
    (found,) = session.of("diagnostic")
    assert (found["code"], found["location"]["line"]) == ("build/no-emulation", 3)
    assert "exec format error" in found["cause"]
    assert "FROM --platform=$BUILDPLATFORM" in found["suggestions"][1]

    session = devloop("run", BUILDX_BUILDER="default")
    assert session.join(60) == 1
    (found,) = session.of("diagnostic")
    assert found["code"] == "build/unsupported"
    assert found["message"] == "this builder makes no image for several platforms"
