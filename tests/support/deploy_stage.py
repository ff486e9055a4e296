"""One service's deployer on the fake API server, with what it reports."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel
from devloop.cluster.api.pod_view import generation_of
from devloop.cluster.deploy.deployments import Deployments
from devloop.config.schema import Project, Service
from devloop.manifests import renderings_of
from devloop.model import ImageRef, WorkloadRef
from tests.support.cluster_objects import deployment, service_config
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.deploy.service import ServiceDeployer
    from devloop.errors import Diagnosis
    from tests.support.fake_api import FakeApi

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"
ONE = ImageRef(repository="localhost:5001/shop/web", tag="1", digest="sha256:" + "1" * 64)
TWO = ImageRef(repository="localhost:5001/shop/web", tag="2", digest="sha256:" + "2" * 64)


@dataclass
class Recorder:
    diagnoses: list[Diagnosis] = field(default_factory=list)
    finished_with: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def started(self, step: Any) -> None:
        pass

    def progress(self, step: Any, message: str, *, current: Any = None, total: Any = None) -> None:
        pass

    def finished(self, step: Any, outcome: Any, detail: str = "") -> None:
        self.finished_with.append(f"{step} {outcome}")
        self.details.append(detail)

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        self.diagnoses.append(diagnosis)


class Stage:
    def __init__(self, api: FakeApi, connection: Connection, view: ClusterView, root: Path) -> None:
        self.api, self.connection, self.view, self.root = api, connection, view, root
        self.reporter, self.cancel = Recorder(), Cancel()
        self._deployed = False

    def deployer(self, *manifests: dict[str, Any], others: tuple[Service, ...] = ()) -> Any:
        """One that knows of no write of an earlier one: the view must have come as far."""
        if self._deployed and WEB in self.api.objects:
            until(self._seen)
        for index, manifest in enumerate(manifests):
            (self.root / f"{index}.json").write_text(json.dumps(manifest))
        patterns = (str(self.root / "*.json"),) if manifests else ()
        service = service_config(self.root, manifests=patterns)
        project = Project(
            name="shop",
            root=self.root,
            file=self.root / "devloop.yaml",
            services={s.name: s for s in (service, *others)},
        )
        renderings = renderings_of([service])
        shared = Deployments(project, self.connection, self.view, renderings=renderings)
        return shared.deployer(service)

    def deploy(self, deployer: ServiceDeployer, image: ImageRef) -> Any:
        self._deployed = True
        return deployer.deploy(image, self.reporter, self.cancel)

    def _seen(self) -> bool:
        view = self.view.workload(WorkloadRef(kind="deployment", name="web", namespace="dev"))
        seen = view.get("web")
        return seen is not None and generation_of(seen) == generation_of(self.api.objects[WEB])

    def writes(self) -> list[tuple[str, str]]:
        return [(c.method, c.path) for c in self.api.calls if c.method != "GET"]


def manifest(image: str = "shop/web") -> dict[str, Any]:
    thing = deployment(image)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": thing["spec"],
    }
