"""What the deployers of one project share, and where they are made.

How one service's image gets served is `workload`'s.
"""

from __future__ import annotations

import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.cluster.api.kinds import Discovery
from devloop.cluster.deploy import guard
from devloop.cluster.deploy.apply import Applier
from devloop.cluster.deploy.recover import heal
from devloop.cluster.deploy.recovery_log import RecoveryLog
from devloop.cluster.deploy.workload import WorkloadDeployer
from devloop.cluster.replace.image_history import ImageHistory
from devloop.cluster.replace.in_place import InPlace
from devloop.cluster.replace.pod_restarts import PodRestarts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef, WorkloadRef

__all__ = ["Deployments", "WorkloadDeployer"]


class Deployments:
    """What the deployers of one project share: one guard, one memory of what was applied and which
    image each service has, one lock a workload (two services may live in one Deployment).

    `pinned_images` gives the images known of the project's services (from a journal, say) for
    those that this session has not deployed yet. `renderings` are by service; the image of one
    without is patched and nothing else. `in_place_by_default` is what `replace: auto`
    means on a local cluster. Checks the context at once: raises safety/context,
    safety/protected-namespace."""

    def __init__(
        self,
        project: Project,
        connection: Connection,
        view: ClusterView,
        *,
        pinned_images: Callable[[], Mapping[str, ImageRef]] = dict,
        in_place_by_default: bool = False,
        renderings: Mapping[str, Rendering] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        guard.check_context(connection.context, connection.server, project.allow_contexts)
        self.project = project
        self.connection = connection
        self.view = view
        self.namespace = connection.namespace
        guard.check_namespace(self.namespace)
        self.discovery = Discovery(connection)
        self.applier = Applier(connection, project=project.name)
        self.clock = clock
        self.journal = RecoveryLog(project.state_dir)
        self.in_place_by_default = (
            in_place_by_default
            and guard.local_reason(connection.context, connection.server) is not None
        )
        self.renderings = renderings
        self._pinned_images = pinned_images
        self._lock = threading.Lock()
        self._pinned: dict[str, ImageRef] = {}
        self._workload_locks: dict[WorkloadRef, threading.Lock] = {}
        self._in_place: dict[WorkloadRef, InPlace] = {}
        self._deployers: list[WorkloadDeployer] = []

    def deployer(self, service: Service) -> WorkloadDeployer:
        made = WorkloadDeployer(service, self)
        self._deployers.append(made)
        return made

    def heal(self) -> tuple[Diagnosis, ...]:
        """Put right what an earlier session of this project left half done, before the first
        deploy. Returns what to tell; asks the cluster nothing when there is nothing to heal."""
        return heal(self.connection, self.journal)

    def close(self) -> None:
        """Leave nothing half done: called when the session ends, before the views are closed."""
        with self._lock:
            rollouts, deployers = tuple(self._in_place.values()), tuple(self._deployers)
        for rollout in rollouts:
            rollout.close()
        for deployer in deployers:
            deployer.close()

    def in_place(self, ref: WorkloadRef) -> InPlace:
        lock = self.lock(ref)
        with self._lock:
            if ref not in self._in_place:
                ran = ImageHistory(self.project.state_dir, self.connection.context, ref)
                self._in_place[ref] = InPlace(
                    self.connection,
                    self.view,
                    ref,
                    journal=self.journal,
                    restarts=PodRestarts(ran),
                    lock=lock,
                )
            return self._in_place[ref]

    def pinned(self) -> dict[str, ImageRef]:
        with self._lock:
            return {**self._pinned_images(), **self._pinned}

    def remember(self, service: str, image: ImageRef) -> None:
        with self._lock:
            self._pinned[service] = image

    def lock(self, ref: WorkloadRef) -> threading.Lock:
        with self._lock:
            return self._workload_locks.setdefault(ref, threading.Lock())
