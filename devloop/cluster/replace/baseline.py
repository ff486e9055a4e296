"""How fast the cluster alone replaces an image: bare requests, nothing of devloop's in the way.

For `devloop bench` only: it writes the workload of the user's project, image by image, and must
be told when that is wanted. No journal, no diagnosis; a replacement that fails is a timeout.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.connection import STRATEGIC
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import items, pod_view
from devloop.cluster.api.view import owned_by
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.reflector import WatchEvent
    from devloop.cluster.api.view import ClusterView
    from devloop.model import ImageRef, PodView, WorkloadRef

__all__ = ["Baseline"]


class Baseline:
    """One workload with one container to replace."""

    def __init__(
        self, connection: Connection, view: ClusterView, ref: WorkloadRef, container: str
    ) -> None:
        self._connection = connection
        self._pods = view.view("pods", ref.namespace)
        self._sets = f"/apis/apps/v1/namespaces/{ref.namespace}/replicasets"
        self._mine = owned_by(ref)
        self._ref = ref
        self._container = container

    def rolling(self, image: ImageRef, cancel: Cancel, limit: float = 60.0) -> float:
        """Seconds from one PATCH of the template until a pod is ready with the image."""
        began = time.monotonic()
        self._patch(workload_path(self._ref), self._template(image))
        self._await(image, cancel, began + limit)
        return time.monotonic() - began

    def in_place(self, image: ImageRef, cancel: Cancel, limit: float = 60.0) -> float:
        """Seconds from the first PATCH until the only pod is ready with the image: the Deployment
        is paused with it and the pod gets it; its ReplicaSet and the unpausing come after."""
        pod = self._only_pod()
        path = f"/api/v1/namespaces/{self._ref.namespace}/pods/{pod.name}"
        template = self._template(image)
        began = time.monotonic()
        self._patch(workload_path(self._ref), {"spec": {"paused": True, **template["spec"]}})
        self._patch(path, template["spec"]["template"])
        self._await(image, cancel, began + limit)
        seconds = time.monotonic() - began
        self._patch(f"{self._sets}/{self._set_of(pod)}", template)
        self._patch(workload_path(self._ref), {"spec": {"paused": False}})
        return seconds

    def _only_pod(self) -> PodView:
        pods = [p for p in self._current() if not p.deleting]
        if len(pods) != 1:
            raise DevloopError.of(
                Code.POD_DEADLINE, f"{self._ref} has {len(pods)} pods: the floor is that of one"
            )
        return pods[0]

    def _current(self) -> list[PodView]:
        return [pod_view(thing) for thing in self._pods.items() if self._mine(thing)]

    def _set_of(self, pod: PodView) -> str:
        thing: Mapping[str, Any] = self._pods.get(pod.name) or {}
        owners = items((thing.get("metadata") or {}).get("ownerReferences"))
        return str(owners[0].get("name"))

    def _template(self, image: ImageRef) -> dict[str, Any]:
        containers = [{"name": self._container, "image": image.pinned}]
        return {"spec": {"template": {"spec": {"containers": containers}}}}

    def _patch(self, path: str, body: dict[str, Any]) -> None:
        self._connection.request("PATCH", path, body, content_type=STRATEGIC)

    def _await(self, image: ImageRef, cancel: Cancel, deadline: float) -> None:
        wake = threading.Event()

        def woken(_: WatchEvent) -> None:
            wake.set()

        with self._pods.subscribe(woken), cancel.closing(wake.set):
            while not any(self._runs(pod, image) for pod in self._current()):
                cancel.check()
                if not wake.wait(max(0.0, deadline - time.monotonic())):
                    raise DevloopError.of(
                        Code.POD_DEADLINE, f"{self._ref} did not take {image.short}"
                    )
                wake.clear()

    def _runs(self, pod: PodView, image: ImageRef) -> bool:
        return pod.ready and any(
            c.name == self._container and c.ready and c.image_id.endswith(image.digest)
            for c in pod.containers
        )
