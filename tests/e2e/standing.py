"""How one app stands in the cluster at one moment: its Deployment, ReplicaSets and pods.

Asked of the API server through kubectl, past devloop. Decides nothing: tests compare.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

__all__ = ["Pod", "Standing", "standing", "until"]

_HOLD = "devloop.dev/in-place"
_REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """`image` is the digest that its spec names, `runs` the one that the kubelet reports."""

    name: str
    uid: str
    ready: bool
    image: str
    runs: str
    container: str
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`image` and `replicasets` (name -> image) are digests; pods on their way out are left out."""

    image: str
    generation: int
    version: str
    revision: str
    paused: bool
    strategy: dict[str, Any]
    grace: int
    replicasets: dict[str, str]
    pods: tuple[Pod, ...]

    @property
    def pod(self) -> Pod:
        assert len(self.pods) == 1, self
        return self.pods[0]

    @property
    def images(self) -> set[str]:
        """All that is named for pods: by the Deployment, by its ReplicaSets and in the pods."""
        named = {self.image, *self.replicasets.values()}
        return named.union(*({pod.image, pod.runs} for pod in self.pods))


def standing(cluster: Cluster, name: str = "web") -> Standing:
    """Everything in one request a kind; the ReplicaSets that are empty count as well."""
    found: dict[str, list[dict[str, Any]]] = {"Deployment": [], "ReplicaSet": [], "Pod": []}
    text = cluster.kubectl("get", "deployments,replicasets,pods", "-l", f"app={name}", "-o", "json")
    for item in json.loads(text)["items"]:
        found[item["kind"]].append(item)
    (deployment,) = found["Deployment"]
    meta, spec = deployment["metadata"], deployment["spec"]
    return Standing(
        image=_digest(spec["template"]),
        generation=meta["generation"],
        version=meta["resourceVersion"],
        revision=meta["annotations"].get(_REVISION, ""),
        paused=bool(spec.get("paused")) or _HOLD in meta.get("labels", {}),
        strategy=spec["strategy"],
        grace=spec["template"]["spec"]["terminationGracePeriodSeconds"],
        replicasets={
            r["metadata"]["name"]: _digest(r["spec"]["template"]) for r in found["ReplicaSet"]
        },
        pods=tuple(_pod(p) for p in found["Pod"] if "deletionTimestamp" not in p["metadata"]),
    )


def _digest(template: dict[str, Any]) -> str:
    image: str = template["spec"]["containers"][0]["image"]
    return image.rpartition("@")[2]


def _pod(pod: dict[str, Any]) -> Pod:
    (status,) = pod["status"].get("containerStatuses") or [{}]
    return Pod(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        ready=status.get("ready", False),
        image=_digest(pod),
        runs=status.get("imageID", "").rpartition("@")[2],
        container=status.get("containerID", ""),
        restarts=status.get("restartCount", 0),
    )


def until(
    cluster: Cluster, wanted: Callable[[Standing], bool], what: str, seconds: float = 60
) -> Standing:
    """Wait until the app stands as `wanted`."""
    deadline = time.monotonic() + seconds
    while not wanted(now := standing(cluster)):
        assert time.monotonic() < deadline, f"not {what} in {seconds} s: {now}"
        time.sleep(0.1)
    return now
