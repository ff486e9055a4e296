"""The in-place rollout on the real cluster: what agrees afterwards, and when it is not made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.inplace import HOLD
from devloop.cluster.ownership import images_of
from devloop.cluster.podview import dig
from tests.integration.cluster.conftest import Bench, workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.model import ImageRef

pytestmark = [pytest.mark.kind, pytest.mark.docker]


# As HTTPD, but it stops when told to.
QUICK = (
    "trap 'exit 0' TERM; mkdir -p /tmp/w && echo hi > /tmp/w/index.html; "
    "httpd -f -p 8080 -h /tmp/w & wait"
)


def quick(*, spec: dict[str, Any] | None = None, **pod: Any) -> Any:
    made = workload(spec=spec, **pod)
    made["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", QUICK]
    return made


class State:
    """Deployment, ReplicaSets and pods as the API server has them."""

    def __init__(self, bench: Bench) -> None:
        self.deployment = bench.live()
        apps = f"/apis/apps/v1/namespaces/{bench.namespace}/replicasets"
        self.sets = bench.get(apps)["items"]
        pods = bench.get(f"/api/v1/namespaces/{bench.namespace}/pods")["items"]
        self.pods = [p for p in pods if not p["metadata"].get("deletionTimestamp")]

    @property
    def pod(self) -> dict[str, Any]:
        assert len(self.pods) == 1
        return dict(self.pods[0])

    @property
    def restarts(self) -> list[int]:
        return sorted(p["status"]["containerStatuses"][0]["restartCount"] for p in self.pods)

    @property
    def revision(self) -> str:
        return str(self.deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"])

    def agrees(self, image: ImageRef, *, sets: int = 1, pods: int = 1) -> None:
        """Deployment, ReplicaSet and pods ask for the image, the pods run it, nothing is held."""
        live = self.deployment
        assert images_of(live) == {"web": image.pinned}
        assert not dig(live, "spec", "paused")
        assert HOLD not in live["metadata"].get("labels", {})
        assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
        current = [s for s in self.sets if dig(s, "spec", "replicas")]
        assert (len(self.sets), len(current)) == (sets, 1)
        assert images_of(current[0]) == {"web": image.pinned}
        assert len(self.pods) == pods
        for pod in self.pods:
            assert pod["spec"]["containers"][0]["image"] == image.pinned
            status = pod["status"]["containerStatuses"][0]
            assert status["imageID"].endswith(image.digest)
            assert status["ready"]


def test_each_iteration_restarts_once_and_leaves_no_drift(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    project = bench.project(quick(), replace="in-place")
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    first = State(bench)
    first.agrees(push("one"))
    for count, label in enumerate(("two", "three", "four", "five"), start=1):
        image = push(label)
        deployed, served = bench.serve(deployer, image)
        now = State(bench)
        now.agrees(image)
        assert bench.told.details[-2].endswith(", in place")
        assert now.restarts == [count]
        assert now.revision == first.revision
        assert now.pod["metadata"]["uid"] == first.pod["metadata"]["uid"]
        assert served.image_ids == (image.pinned,)
        assert set(deployed.previous.values()) == {push(_before(label)).pinned}


def _before(label: str) -> str:
    labels = ["one", "two", "three", "four", "five"]
    return labels[labels.index(label) - 1]
