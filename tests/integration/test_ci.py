"""The pipelines of docs/ci.md, step by step as they stand there, in a container of the image that
stands there: with the host's Docker, with Docker in Docker, and with a BuildKit elsewhere and no
Docker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from devloop.base.cancel import Cancel
from devloop.registry.client import RegistryClient
from tests.support import distribution
from tests.support.docs import markdown
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The first makes the image, for which devloop is built and installed.
pytestmark = [pytest.mark.docker, pytest.mark.kind, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs/ci.md"
BASE = "busybox-base:dev"
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
    """A checkout, and a container of the CI's image in which a pipeline's steps run on it.

    Images go to the `registry` of the pipeline, which answers this process at `reached`."""

    def __init__(self, root: Path, image: str, registry: str, reached: str) -> None:
        self.image, self.registry, self.reached = image, registry, reached
        self.name = f"devloop-{secrets.token_hex(4)}"  # the set-up removes images by it
        self.checkout = root / "checkout"
        self.checkout.mkdir()
        # Every builder gets its base from the registry.
        self.base = f"{registry}/{self.name}/base:1"
        (self.checkout / "Dockerfile").write_text(
            f"FROM {self.base}\nRUN echo {self.name} > /built\nCMD cat /built\n"
        )
        (self.checkout / "k8s.yaml").write_text(MANIFEST)
        (self.checkout / "devloop.yaml").write_text(
            f"version: 1\nservices: {{web: {{image: {self.name}/web, build: ., "
            "test: [cat, /built], deploy: {manifests: [k8s.yaml]}}}\n"
        )

    def run(self, steps: Sequence[str], *options: str) -> str:
        """Run the steps one after the other, as long as each succeeds."""
        text = "\n".join(steps).replace("registry.example", self.registry)
        text = text.replace("shop/manifests", f"{self.name}/manifests")
        return _docker(
            *("run", "--rm", f"--name={self.name}", "--workdir=/checkout"),
            *(f"--env=DEVLOOP_REGISTRY={self.registry}", "--env=CI=true"),
            f"--volume={self.checkout}:/checkout",
            *options,
            self.image,
            *("sh", "-ec", text),
        )

    def check(self) -> None:
        """What every pipeline leaves: an image in the registry, the manifests that run it by its
        digest, and the same as an artifact."""
        with RegistryClient(self.reached) as client:
            (built,) = json.loads((self.checkout / "images.json").read_text())["builds"]
            assert built["image"] == f"{self.registry}/{self.name}/web"
            place = f"{self.name}/web"
            assert client.digest(place, built["digest"], Cancel()) == built["digest"]
            rendered = (self.checkout / "rendered/deployment.apps_web.yaml").read_bytes()
            (container,) = yaml.safe_load(rendered)["spec"]["template"]["spec"]["containers"]
            assert container["image"] == built["ref"]
            artifact = client.get_manifest(f"{self.name}/manifests", "main", Cancel())
            assert artifact is not None
            assert json.loads(artifact.body)["config"]["mediaType"].endswith("flux.config.v1+json")


def _succeeds(*argv: str) -> bool:
    done = subprocess.run(["docker", *argv], capture_output=True, timeout=30, check=False)
    return done.returncode == 0


def _docker(*argv: str) -> str:
    done = subprocess.run(
        ["docker", *argv], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"docker {argv}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of docs/ci.md, with the wheel that is published installed as anybody does."""
    base = os.environ["DEVLOOP_TEST_BASE_IMAGE"]
    asked = "import platform, sys; print(*sys.version_info[:2], platform.machine())"
    major, minor, machine = _docker("run", "--rm", base, "python3", "-c", asked).split()
    folder = tmp_path_factory.mktemp("image")
    wheels = shutil.copytree(
        distribution.requirements(f"{major}.{minor}", machine), folder / "wheels"
    )
    shutil.copy(distribution.built()[0], wheels)
    text = _block("dockerfile", "FROM").replace(
        "FROM python:3.13-slim",
        f"FROM {base}\nCOPY wheels /wheels\nENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n"
        "ENV PIP_NO_COMPILE=1",
    )
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(text.replace("docker:cli", os.environ["DEVLOOP_TEST_DOCKER_IMAGE"]))
    name = f"devloop-ci-{secrets.token_hex(4)}/devloop"
    _docker("build", "--quiet", f"--tag={name}", str(folder))
    yield name
    _docker("rmi", name)


@pytest.fixture
def pipeline(tmp_path: Path, image: str) -> Iterator[Pipeline]:
    """On this computer's network, with the registry of the tests."""
    registry = os.environ["DEVLOOP_TEST_REGISTRY"]
    pipeline = Pipeline(tmp_path, image, registry, registry)
    _docker("tag", BASE, pipeline.base)
    _docker("push", "--quiet", pipeline.base)
    yield pipeline
    with contextlib.suppress(AssertionError):
        _docker("rm", "-f", pipeline.name)
    _docker("rmi", pipeline.base)


def _block(language: str, key: str) -> str:
    (text,) = (
        block.text
        for block in markdown.split(PAGE.read_text())[1]
        if block.language == language and re.search(rf"^{key}", block.text, re.MULTILINE)
    )
    return text


def _as_jenkins(checkout: Path) -> tuple[str, str]:
    """Options to run as a user whom the image does not know, without a home, but who may use the
    socket: Jenkins runs containers under its own user."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        user = group = 1000
        for path in (checkout, *checkout.rglob("*")):
            os.chown(path, user, group)
    return (
        f"--user={user}:{group}",
        f"--group-add={Path('/var/run/docker.sock').stat().st_gid}",
    )


def test_jenkins_with_the_hosts_docker(pipeline: Pipeline) -> None:
    steps = re.findall(r"sh '([^']+)'", _block("groovy", "pipeline"))
    assert [step.split()[1] for step in steps] == ["build", "test", "render", "render"]
    said = pipeline.run(
        steps,
        "--network=host",
        *_as_jenkins(pipeline.checkout),
        "--volume=/var/run/docker.sock:/var/run/docker.sock",
    )
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
    builder = job["env"]["BUILDX_BUILDER"]
    pipeline.run(steps, "--network=host", f"--env=BUILDX_BUILDER={builder}")
    pipeline.check()


@pytest.fixture
def elsewhere(tmp_path: Path, image: str) -> Iterator[Pipeline]:
    """On a network of its own, with a registry and with a Docker that knows nothing of this
    computer's."""
    with contextlib.ExitStack() as stack:
        pipeline = Pipeline(tmp_path, image, "registry.local:5000", "")
        _docker("network", "create", pipeline.name)
        stack.callback(_docker, "network", "rm", pipeline.name)

        def begin(name: str, *argv: str) -> str:
            name = f"{pipeline.name}-{name}"
            stack.callback(_docker, "rm", "--force", "--volumes", name)
            _docker("run", "--detach", f"--name={name}", f"--network={pipeline.name}", *argv)
            return name

        registry = begin(
            "registry",
            *("--network-alias=registry.local", "--publish=127.0.0.1::5000"),
            os.environ["DEVLOOP_TEST_REGISTRY_IMAGE"],
        )
        pipeline.reached = _docker("port", registry, "5000").split()[0]
        (service,) = yaml.safe_load(_block("yaml", "stages: "))["services"]
        assert service == "docker:dind"
        docker = begin(
            "docker",
            *("--privileged", "--network-alias=docker", "--env=DOCKER_TLS_CERTDIR="),
            os.environ["DEVLOOP_TEST_DOCKER_IMAGE"],
            f"--insecure-registry={pipeline.registry}",
        )
        until(lambda: _succeeds("exec", docker, "docker", "version"), seconds=60)
        base = tmp_path / "base.tar"
        _docker("save", f"--output={base}", BASE)
        _docker("cp", str(base), f"{docker}:/base.tar")
        load = f"docker load -i /base.tar && docker tag {BASE} $0 && docker push $0"
        _docker("exec", docker, "sh", "-ec", load, pipeline.base)
        yield pipeline


def test_gitlab_with_docker_in_docker(elsewhere: Pipeline) -> None:
    page = yaml.safe_load(_block("yaml", "stages: "))
    variables = {**page["variables"], "DEVLOOP_REGISTRY": elsewhere.registry}
    said = elsewhere.run(
        page["deliver"]["script"],
        f"--network={elsewhere.name}",
        *(f"--env={name}={value}" for name, value in variables.items()),
    )
    assert f"[web test] {elsewhere.name}" in said
    elsewhere.check()
    for kept in page["deliver"]["artifacts"]["paths"]:
        assert (elsewhere.checkout / kept).exists()
    assert not _docker("images", "--quiet", f"{elsewhere.registry}/{elsewhere.name}/web")
