"""A process that deploys in place and is gone, as by kill -9, after a number of writes.

usage: killed_deploy.py ROOT NAMESPACE REPOSITORY DIGEST WRITES; ROOT holds the manifests, the test
environment names the cluster. Ends with status 9, with 1 when it got through to the end.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from devloop.base.cancel import Cancel
from devloop.cluster.api.connection import Connection
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.deployments import Deployments
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.manifests import renderings_of
from devloop.model import ImageRef


class Dying(Connection):
    """Ends the process in place of one write too many; the last one was answered."""

    left = 0

    def request(self, method: str, path: str, *args: Any, **more: Any) -> dict[str, Any]:
        if method != "GET":
            if self.left == 0:
                os._exit(9)
            self.left -= 1
        return super().request(method, path, *args, **more)


class Silent:
    def started(self, step: Any) -> None:
        pass

    def progress(self, step: Any, message: str, *, current: Any = None, total: Any = None) -> None:
        pass

    def finished(self, step: Any, outcome: Any, detail: str = "") -> None:
        pass

    def diagnostic(self, diagnosis: Any) -> None:
        pass


def main() -> None:
    root, namespace, repository, digest, writes = sys.argv[1:]
    directory = Path(root)
    env = os.environ | {"KUBECONFIG": os.environ["DEVLOOP_TEST_KUBECONFIG"]}
    connection = Dying.open(os.environ["DEVLOOP_TEST_CONTEXT"], namespace, env=env)
    assert isinstance(connection, Dying)
    connection.left = int(writes)
    deploy = Deploy(
        workload_name="web",
        manifests=(str(directory / "*.json"),),
        replace="in-place",
        timeout=40.0,
    )
    build = Build(context=directory, dockerfile=directory / "Dockerfile")
    service = Service(name="web", image="devloop-cluster/web", build=build, deploy=deploy)
    project = Project(
        name=f"project-{namespace}",
        root=directory,
        file=directory / "devloop.yaml",
        services={"web": service},
    )
    shared = Deployments(
        project, connection, ClusterView(connection), renderings=renderings_of([service])
    )
    deployer = shared.deployer(service)
    image = ImageRef(repository=repository, tag="", digest=digest)
    deployed = deployer.deploy(image, Silent(), Cancel())
    deployer.follow(deployed, Silent(), Cancel())
    os._exit(9 if connection.left == 0 else 1)


if __name__ == "__main__":
    main()
