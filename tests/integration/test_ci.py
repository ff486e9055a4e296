"""The pipelines of docs/ci.md, step by step as they stand there, in a container with devloop and
the docker CLI: with the host's Docker, and with a BuildKit elsewhere and no Docker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from devloop.base.cancel import Cancel
from devloop.registry.client import RegistryClient
from tests.support.docs import markdown
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.docker, pytest.mark.kind]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/ci.md"
MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
"""


class Pipeline:
    """A checkout, and a container in which a pipeline's steps run on it."""

    def __init__(self, root: Path, registry: str) -> None:
        self.root, self.registry = root, registry
        self.name = f"devloop-ci-{secrets.token_hex(4)}"
        self.checkout = root / "checkout"
        self.checkout.mkdir()
        base = os.environ["DEVLOOP_TEST_BASE_IMAGE"]
        # Every builder gets its base from the registry.
        self.base = f"{registry}/{self.name}/base:1"
        _docker("tag", base, self.base)
        _docker("push", "--quiet", self.base)
        (self.checkout / "Dockerfile").write_text(
            f"FROM {self.base}\nRUN echo {self.name} > /built\nCMD cat /built\n"
        )
        (self.checkout / "k8s.yaml").write_text(MANIFEST)
        (self.checkout / "devloop.yaml").write_text(
            f"version: 1\nservices: {{web: {{image: {self.name}/web, build: ., "
            "test: [cat, /built], deploy: {manifests: [k8s.yaml]}}}\n"
        )
        devloop = root / "devloop"
        devloop.write_text('#!/bin/sh\nexec python3 -m devloop "$@"\n')
        devloop.chmod(0o755)

    def run(self, steps: Sequence[str], *options: str) -> str:
        """Run the steps one after the other, as long as each succeeds."""
        text = "\n".join(steps).replace("registry.example", self.registry)
        text = text.replace("shop/manifests", f"{self.name}/manifests")
        docker = Path(shutil.which("docker") or "").resolve()
        plugins = next(
            folder.resolve()
            for folder in map(Path, ("/usr/local/lib/docker/cli-plugins",
                                     "/usr/libexec/docker/cli-plugins",
                                     "/usr/lib/docker/cli-plugins"))
            if (folder / "docker-buildx").exists()
        )  # fmt: skip
        places = {
            self.checkout: "/checkout",
            ROOT / "devloop": "/opt/devloop/devloop",
            Path(sysconfig.get_path("purelib")): "/opt/site",
            self.root / "devloop": "/usr/local/bin/devloop",
            docker: "/usr/local/bin/docker",
            (
                plugins / "docker-buildx"
            ).resolve(): "/usr/local/lib/docker/cli-plugins/docker-buildx",
        }
        mounts = [f"--volume={here}:{there}" for here, there in places.items()]
        return _docker(
            *("run", "--rm", f"--name={self.name}", "--network=host", "--workdir=/checkout"),
            *("--env=PYTHONPATH=/opt/devloop:/opt/site", f"--env=DEVLOOP_REGISTRY={self.registry}"),
            "--env=CI=true",
            *mounts,
            *options,
            os.environ["DEVLOOP_TEST_BASE_IMAGE"],
            *("sh", "-ec", text),
        )

    def check(self) -> None:
        """What every pipeline leaves: an image in the registry, the manifests that run it by its
        digest, and the same as an artifact."""
        with RegistryClient(self.registry) as client:
            (built,) = json.loads((self.checkout / "images.json").read_text())["builds"]
            assert client.digest(built["image"], built["digest"], Cancel()) == built["digest"]
            rendered = (self.checkout / "rendered/deployment.apps_web.yaml").read_bytes()
            (container,) = yaml.safe_load(rendered)["spec"]["template"]["spec"]["containers"]
            assert container["image"] == built["ref"]
            artifact = client.get_manifest(f"{self.name}/manifests", "main", Cancel())
            assert artifact is not None
            assert json.loads(artifact.body)["config"]["mediaType"].endswith("flux.config.v1+json")

    def close(self) -> None:
        for argv in (("rm", "-f", self.name), ("rmi", self.base)):
            with contextlib.suppress(AssertionError):
                _docker(*argv)


def _docker(*argv: str) -> str:
    done = subprocess.run(
        ["docker", *argv], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, f"docker {argv}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline(tmp_path, os.environ["DEVLOOP_TEST_REGISTRY"])
    yield pipeline
    pipeline.close()


def _block(language: str, key: str) -> str:
    (text,) = (
        block.text
        for block in markdown.split(PAGE.read_text())[1]
        if block.language == language and re.search(rf"^{key}", block.text, re.MULTILINE)
    )
    return text


def test_jenkins_with_the_hosts_docker(pipeline: Pipeline) -> None:
    steps = re.findall(r"sh '([^']+)'", _block("groovy", "pipeline"))
    assert [step.split()[1] for step in steps] == ["build", "test", "render", "render"]
    said = pipeline.run(steps, "--volume=/var/run/docker.sock:/var/run/docker.sock")
    assert f"[web test] {pipeline.name}" in said
    pipeline.check()


@pytest.fixture
def buildkit(tmp_path: Path) -> Iterator[str]:
    """A BuildKit's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    program, runc = shutil.which("buildkitd"), shutil.which("runc")
    if program is None or runc is None:
        pytest.skip("no buildkitd: script/test builds it where Go is")
    log = (tmp_path / "buildkitd.log").open("wb")
    process = subprocess.Popen(
        [program, f"--addr={address}", f"--root={tmp_path / 'buildkit'}",
         f"--oci-worker-binary={runc}", "--containerd-worker=false"],
        stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "buildkitd.log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0

    try:
        until(answers)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def test_github_with_a_buildkit_elsewhere_and_no_docker(pipeline: Pipeline, buildkit: str) -> None:
    job = yaml.safe_load(_block("yaml", "jobs:"))["jobs"]["deliver"]
    steps = [step["run"] for step in job["steps"] if "run" in step]
    steps = [step.replace("tcp://buildkitd.example:1234", buildkit) for step in steps]
    pipeline.run(steps, f"--env=BUILDX_BUILDER={job['env']['BUILDX_BUILDER']}")
    pipeline.check()


def test_gitlab_runs_the_same_commands() -> None:
    """Its Docker in Docker is a Docker at DOCKER_HOST; that one is made elsewhere is no matter."""
    script = yaml.safe_load(_block("yaml", "stages: "))["deliver"]["script"]
    assert script == re.findall(r"sh '([^']+)'", _block("groovy", "pipeline"))
