"""A namespace of its own for each test, images in the test registry, a service to deploy."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api.connection import Connection
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.deployments import Deployments
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.manifests import renderings_of
from devloop.model import ImageRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.cluster.deploy.service import ServiceDeployer
    from devloop.errors import Diagnosis
    from devloop.model import Deployed, Served, Step, StepOutcome

_BASE = "busybox-base:dev"


@dataclass
class Recorder:
    """A Reporter that remembers."""

    progressed: list[str] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def started(self, step: Step) -> None:
        self.steps.append(f"{step} started")

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        self.progressed.append(message)

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self.steps.append(f"{step} {outcome}")
        self.details.append(detail)

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        self.diagnoses.append(diagnosis)


@pytest.fixture(scope="session")
def push(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ImageRef]:
    """Make an image that differs from all others by `label` (its variable LABEL), and push it."""
    registry = os.environ["DEVLOOP_TEST_REGISTRY"]
    repository = f"{registry}/devloop-cluster/web"
    folder = tmp_path_factory.mktemp("image")
    made: dict[str, ImageRef] = {}

    def make(label: str) -> ImageRef:
        if label not in made:
            name = f"{repository}:{label}"
            dockerfile = folder / f"Dockerfile.{label}"
            lines = (f"FROM {_BASE}", f"LABEL devloop-test={label}", f"ENV LABEL={label}", "")
            dockerfile.write_text("\n".join(lines))
            _docker("build", "-q", "-t", name, "-f", str(dockerfile), str(folder))
            found = re.search(r"digest: (sha256:\w+)", _docker("push", name))
            assert found
            made[label] = ImageRef(repository=repository, tag=label, digest=found[1])
        return made[label]

    return make


def _docker(*argv: str) -> str:
    env = os.environ | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", *argv], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def connection() -> Iterator[Connection]:
    namespace = f"devloop-{secrets.token_hex(4)}"
    context = os.environ["DEVLOOP_TEST_CONTEXT"]
    env = os.environ | {"KUBECONFIG": os.environ["DEVLOOP_TEST_KUBECONFIG"]}
    opened = Connection.open(context, namespace, env=env)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    opened.request("POST", "/api/v1/namespaces", body)
    yield opened
    opened.request("DELETE", f"/api/v1/namespaces/{namespace}")
    opened.close()


@pytest.fixture
def view(connection: Connection) -> Iterator[ClusterView]:
    made = ClusterView(connection)
    yield made
    made.close()


HTTPD = "mkdir -p /tmp/w && echo hi > /tmp/w/index.html && exec httpd -f -p 8080 -h /tmp/w"


# As HTTPD, but it stops when it is reporter to, and in the image `crash` it ends at once.
QUICK = (
    '[ "$LABEL" = crash ] && exit 3; trap "exit 0" TERM; '
    "mkdir -p /tmp/w && echo hi > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w & wait"
)


def pod_spec(command: str = HTTPD, **container: Any) -> dict[str, Any]:
    return {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "web",
                "image": "devloop-cluster/web",
                "command": ["sh", "-c", command],
                **container,
            }
        ],
    }


def workload(kind: str = "Deployment", *, spec: dict[str, Any] | None = None, **pod: Any) -> Any:
    """A manifest for `web` that serves on 8080; `pod` is merged over the pod's spec."""
    base = pod_spec()
    base["containers"][0]["readinessProbe"] = {
        "httpGet": {"path": "/", "port": 8080},
        "periodSeconds": 1,
    }
    extra = {"serviceName": "web"} if kind == "StatefulSet" else {}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": base | pod},
            **extra,
            **(spec or {}),
        },
    }


class Bench:
    """A project with one service `web`, its manifests as given, in the test's namespace."""

    def __init__(self, root: Path, connection: Connection, view: ClusterView) -> None:
        self.root = root
        self.connection = connection
        self.view = view
        self.reporter = Recorder()
        self.cancel = Cancel()
        self.namespace = connection.namespace
        self.opened: list[Deployments] = []

    def project(
        self,
        *manifests: dict[str, Any],
        kind: str = "deployment",
        timeout: float = 40.0,
        container: str | None = None,
        replace: str = "rolling",
    ) -> Project:
        import json  # noqa: PLC0415

        for index, manifest in enumerate(manifests):
            (self.root / f"{index}.json").write_text(json.dumps(manifest))
        deploy = Deploy(
            workload_kind=cast("Any", kind),
            workload_name="web",
            container=container,
            manifests=(str(self.root / "*.json"),) if manifests else (),
            timeout=timeout,
            replace=cast("Any", replace),
        )
        build = Build(context=self.root, dockerfile=self.root / "Dockerfile")
        service = Service(name="web", image="devloop-cluster/web", build=build, deploy=deploy)
        return Project(
            name=f"project-{self.namespace}",
            root=self.root,
            file=self.root / "devloop.yaml",
            services={"web": service},
        )

    def deployer(self, project: Project, view: ClusterView | None = None) -> ServiceDeployer:
        shared = Deployments(
            project,
            self.connection,
            view or self.view,
            renderings=renderings_of(
                project.services.values(), show=lambda path: str(path.relative_to(self.root))
            ),
        )
        self.opened.append(shared)
        return shared.deployer(project.services["web"])

    def serve(self, deployer: ServiceDeployer, image: ImageRef) -> tuple[Deployed, Served]:
        deployed = deployer.deploy(image, self.reporter, self.cancel)
        return deployed, deployer.follow(deployed, self.reporter, self.cancel)

    def get(self, path: str) -> dict[str, Any]:
        return self.connection.request("GET", path)

    def live(self, kind: str = "deployments") -> dict[str, Any]:
        return self.get(f"/apis/apps/v1/namespaces/{self.namespace}/{kind}/web")

    def create(self, manifest: dict[str, Any], plural: str, manager: str = "kubectl-create") -> Any:
        group = "/api/v1" if manifest["apiVersion"] == "v1" else f"/apis/{manifest['apiVersion']}"
        return self.connection.request(
            "POST",
            f"{group}/namespaces/{self.namespace}/{plural}",
            manifest,
            query={"fieldManager": manager},
        )


@pytest.fixture
def bench(tmp_path: Path, connection: Connection, view: ClusterView) -> Iterator[Bench]:
    root = tmp_path / "project"
    root.mkdir()
    made = Bench(root, connection, view)
    yield made
    for shared in made.opened:
        shared.close()
