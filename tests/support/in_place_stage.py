"""A Deployment on the fake API server and one service that replaces its image in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.replace.pause import paused_by_devloop
from devloop.cluster.replace.recovery_log import RecoveryLog
from devloop.config.schema import Build, Deploy, Project, Service
from devloop.engine.loop import SilentReporter
from devloop.model import ImageRef, WorkloadRef
from tests.support.cluster_objects import deployment, owner, pod, running

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.deploy.workload import WorkloadDeployer
    from devloop.model import Deployed
    from tests.support.fake_api import FakeApi

__all__ = ["REF", "WEB", "InPlaceStage", "image"]

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"
SET = "/apis/apps/v1/namespaces/dev/replicasets/web-new"
PODS = "/api/v1/namespaces/dev/pods"
REF = WorkloadRef("deployment", "web", "dev")


def image(letter: str) -> ImageRef:
    return ImageRef(repository="localhost:5001/shop/web", tag="", digest="sha256:" + letter * 64)


class InPlaceStage:
    """A Deployment of three replicas that runs the image `a`, and one service that replaces it."""

    def __init__(self, api: FakeApi, connection: Connection, view: ClusterView, root: Path) -> None:
        self.api, self.cancel = api, Cancel()
        live = deployment(image("a").pinned, replicas=3)
        uid = api.put(WEB, live)["metadata"]["uid"]
        replicas: dict[str, Any] = {
            "metadata": {
                "name": "web-new",
                "uid": "rs-new",
                "annotations": live["metadata"]["annotations"],
                "ownerReferences": owner("Deployment", "web", uid),
            },
            "spec": {"replicas": 3, "template": live["spec"]["template"]},
        }
        api.put(SET, replicas)
        for name in ("x", "y", "z"):
            self.pod(name, running(image("a").pinned))
        build = Build(context=root, dockerfile=root / "Dockerfile")
        deploy = Deploy(workload_name="web", replace="in-place")
        self.service = Service(name="web", image="shop/web", build=build, deploy=deploy)
        project = Project(
            name="shop",
            root=root,
            file=root / "devloop.yaml",
            services={"web": self.service},
        )
        self.deployments = Deployments(project, connection, view)
        self.deployer: WorkloadDeployer = self.deployments.deployer(self.service)
        self.log = RecoveryLog(project.state_dir)
        for kind in ("pods", "replicasets", "deployments"):
            view.view(kind, "dev").wait_synced(self.cancel)

    def pod(self, name: str, status: dict[str, Any]) -> None:
        made = pod(status, name=f"web-new-{name}", image=image("a").pinned)
        before = self.api.objects.get(f"{PODS}/web-new-{name}")
        if before is not None:
            made["spec"] = before["spec"]
        self.api.put(f"{PODS}/web-new-{name}", made)

    def deploy(self, letter: str) -> Deployed:
        return self.deployer.deploy(image(letter), SilentReporter(), self.cancel)

    def follow(self, deployed: Deployed, cancel: Cancel | None = None) -> None:
        self.deployer.follow(deployed, SilentReporter(), cancel or self.cancel)

    def paused(self) -> bool:
        return paused_by_devloop(self.api.objects[WEB])
