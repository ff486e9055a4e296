"""A Deployment on the fake API server and one service that replaces its image in place."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Literal

from devloop.base.cancel import Cancel
from devloop.cluster.api.pod_view import images_of, pod_images
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.replace.pause import paused_by_devloop
from devloop.cluster.replace.recovery_log import RecoveryLog
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.engine.reporters import SilentReporter
from devloop.model import Deployed, ImageRef, WorkloadRef
from tests.support.cluster_objects import deployment, owner, pod, running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.deploy.service import ServiceDeployer
    from devloop.model import DeployedWorkload, Step, StepOutcome
    from tests.support.fake_api import FakeApi

__all__ = ["PODS", "REF", "WEB", "InPlaceStage", "image"]

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"
SET = "/apis/apps/v1/namespaces/dev/replicasets/web-new"
PODS = "/api/v1/namespaces/dev/pods"
REF = WorkloadRef("deployment", "web", "dev")


def image(letter: str) -> ImageRef:
    return ImageRef(repository="localhost:5001/shop/web", tag="", digest="sha256:" + letter * 64)


class Details(SilentReporter):
    """A `Reporter` that keeps what is said of the steps that ended."""

    def __init__(self) -> None:
        self.details: list[str] = []

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self.details.append(detail)


class InPlaceStage:
    """A Deployment, of three replicas unless said otherwise, that runs the image `a`, and one
    service that replaces it."""

    def __init__(
        self,
        api: FakeApi,
        connection: Connection,
        view: ClusterView,
        root: Path,
        *,
        replicas: int = 3,
        replace: Literal["in-place", "fast"] = "in-place",
    ) -> None:
        self.api, self.cancel = api, Cancel()
        live = deployment(image("a").pinned, replicas=replicas)
        uid = api.put(WEB, live)["metadata"]["uid"]
        replicaset: dict[str, Any] = {
            "metadata": {
                "name": "web-new",
                "uid": "rs-new",
                "annotations": live["metadata"]["annotations"],
                "ownerReferences": owner("Deployment", "web", uid),
            },
            "spec": {"replicas": replicas, "template": live["spec"]["template"]},
            "status": {"observedGeneration": 99},
        }
        api.put(SET, replicaset)
        for name in ("x", "y", "z")[:replicas]:
            self.pod(name, running(image("a").pinned))
        build = Build(context=root, dockerfile=root / "Dockerfile")
        deploy = Deploy(workload_name="web", replace=replace)
        self.service = Service(name="web", image="shop/web", build=build, deploy=deploy)
        project = Project(
            name="shop",
            root=root,
            file=root / "devloop.yaml",
            services={"web": self.service},
        )
        self.reporter = Details()
        self.caught = "SIGTERM"
        self.deployments = Deployments(project, connection, view, read_status=self._status)
        self.deployer: ServiceDeployer = self.deployments.deployer(self.service)
        self.log = RecoveryLog(project.state_dir)
        for kind in ("pods", "replicasets", "deployments"):
            view.view(kind, "dev").wait_synced(self.cancel)

    def pod(self, name: str, status: dict[str, Any]) -> None:
        made = pod(status, name=f"web-new-{name}", image=image("a").pinned)
        before = self.api.objects.get(f"{PODS}/web-new-{name}")
        if before is not None:
            made["spec"] = before["spec"]
        self.api.put(f"{PODS}/web-new-{name}", made)

    def deploy(self, letter: str) -> DeployedWorkload:
        return self.deployer.deploy(image(letter), self.reporter, self.cancel).picked

    def follow(self, deployed: DeployedWorkload, cancel: Cancel | None = None) -> None:
        whole = Deployed(image=deployed.image, workloads=(deployed,))
        self.deployer.follow(whole, SilentReporter(), cancel or self.cancel)

    def _status(self, pod: Mapping[str, Any], container: str, cancel: Cancel) -> str:
        """The container's /proc/1/status: its process has a handler for `caught`, if for any."""
        del pod, container, cancel
        caught = 1 << (signal.Signals[self.caught] - 1) if self.caught else 0
        return f"Name:\tweb\nSigIgn:\t{0:016x}\nSigCgt:\t{caught:016x}\n"

    def paused(self) -> bool:
        return paused_by_devloop(self.api.objects[WEB])

    def images(self) -> set[str]:
        """What Deployment, ReplicaSet and pods ask for."""
        asked = {
            *images_of(self.api.objects[WEB]).values(),
            *images_of(self.api.objects[SET]).values(),
        }
        for path, thing in self.api.objects.items():
            if path.startswith(PODS):
                asked |= set(pod_images(thing).values())
        return asked
