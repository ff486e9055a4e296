"""The deployers of one project: where they are made, recovered and closed, and what they share.

How one service's image gets served is `service`'s.
"""

from __future__ import annotations

import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.threads import Background
from devloop.cluster.api.kinds import Discovery
from devloop.cluster.deploy import guard
from devloop.cluster.deploy.apply import Applier
from devloop.cluster.deploy.gitops import GitopsGuard, resume_left
from devloop.cluster.deploy.left_over import AppliedObjects, LeftOvers
from devloop.cluster.deploy.objects import owners_of
from devloop.cluster.deploy.outside import OutsideWatch
from devloop.cluster.deploy.project_configs import ProjectConfigs
from devloop.cluster.deploy.recovery import recover
from devloop.cluster.deploy.service import ServiceDeployer
from devloop.cluster.replace.in_place import InPlace
from devloop.cluster.replace.live_objects import LiveObjects
from devloop.cluster.replace.pod_restarts import ImageHistory, PodRestarts
from devloop.cluster.replace.recovery_log import RecoveryLog
from devloop.cluster.replace.stop_signal import StopSignals, reading_by_exec
from devloop.cluster.replace.workload_lock import WorkloadLock
from devloop.cluster.rollout.handover import wait_for_handover
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.replace.stop_signal import ReadStatus
    from devloop.cluster.rollout.handover import PodsReplaced
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Release, Rendering
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef, ManifestObject, WorkloadRef


_CLOSE_SECONDS = 5.0


class Deployments:
    """The deployers and what they share: one guard, one memory of what was applied and which image
    each service has, one lock and one in-place replacement a workload (two services may live in one
    Deployment).

    `renderings` are by service; the image of one without is patched and nothing else.
    `project_paths` are by service, too, and know what its image has. `read_status` looks at a
    container's process, by default with a command in it. `runs(service, workloads)` gets
    what runs a service's image before each deploy, the picked one first. `releases` are those that
    deploy what a service's rendering has, in devloop's place. `suspend_gitops`: what of Flux or
    Argo CD owns a workload is suspended until `close`; `report` gets what becomes of it then.
    Checks the context at once: raises safety/context, safety/protected-namespace."""

    def __init__(
        self,
        project: Project,
        connection: Connection,
        view: ClusterView,
        *,
        in_place_by_default: bool = False,
        renderings: Mapping[str, Rendering] = MappingProxyType({}),
        configs: ProjectConfigs | None = None,
        project_paths: Mapping[str, ProjectPaths] = MappingProxyType({}),
        read_status: ReadStatus | None = None,
        runs: Callable[[str, tuple[WorkloadRef, ...]], None] = lambda _service, _refs: None,
        releases: Callable[[Service], tuple[Release, ...]] = lambda _: (),
        attached: Callable[[str], bool] = lambda _: False,
        suspend_gitops: bool = False,
        report: Callable[[Diagnosis], None] = lambda _: None,
    ) -> None:
        facts = (connection.context, connection.server)
        guard.check_context(*facts, project.allow_contexts, lambda: connection.local_tool)
        self.project = project
        self.connection = connection
        self.view = view
        self.namespace = connection.namespace
        guard.check_namespace(self.namespace)
        self.discovery = Discovery(connection)
        self.notify = report
        self.gitops = GitopsGuard(
            connection, project.state_dir, suspends=suspend_gitops, report=report
        )
        self.applier = Applier(connection, project=project.name, gitops=self.gitops)
        self._read_status = read_status or reading_by_exec(connection)
        self.recovery_log = RecoveryLog(project.state_dir)
        self.applied = AppliedObjects(
            project.state_dir, connection.context, self.namespace, project.file.name
        )
        self.left_overs = LeftOvers(
            project, connection, self.applied, renderings, deleted=self.applier.forget
        )
        self.outside = OutsideWatch(view, self.lock)
        self.in_place_by_default = (
            in_place_by_default
            and guard.local_reason(*facts, lambda: connection.local_tool) is not None
        )
        self.renderings = renderings
        self.configs = configs or ProjectConfigs(renderings, self.namespace)
        self.runs = runs
        self.releases = releases
        self.attached = attached
        self.project_paths = project_paths
        self._deployers: tuple[ServiceDeployer, ...] = ()
        self._guard = threading.Lock()
        # What was replaced last and is served, by service.
        self.replaced: dict[str, PodsReplaced] = {}
        self._pinned: dict[str, ImageRef] = {}
        self._built: dict[str, ImageRef] = {}
        self._workloads: dict[str, frozenset[WorkloadRef]] = {}
        self._locks: dict[tuple[str, str], WorkloadLock] = {}
        self._in_place: dict[WorkloadRef, InPlace] = {}

    def in_place(self, ref: WorkloadRef) -> InPlace:
        lock = self.lock(ref)
        with self._guard:
            if ref not in self._in_place:
                history = ImageHistory(self.project.state_dir, self.connection.context, ref)
                self._in_place[ref] = InPlace(
                    self.connection,
                    ref,
                    objects=LiveObjects(self.view, ref),
                    recovery_log=self.recovery_log,
                    restarts=PodRestarts(history),
                    signals=StopSignals(self._read_status),
                    lock=lock,
                )
            return self._in_place[ref]

    def holds(self, asking: Rendering, service: str, manifest: ManifestObject) -> bool:
        """Whether the manifests of `service` have the same object as those of `asking`."""
        rendering = self.renderings.get(service)
        if rendering is None or rendering == asking:
            return rendering is not None
        try:
            return any(manifest.key == other.key for other in rendering.objects(Cancel()))
        except DevloopError:
            return True  # its own deploy reports what is wrong with them

    def runs_elsewhere(self, service: str) -> bool:
        """Whether the manifests of another service run the image of `service`."""
        services = self.project.services
        for name, rendering in self.renderings.items():
            try:
                manifests = rendering.objects(Cancel()) if name != service else ()
            except DevloopError:
                continue  # its own deploy reports what is wrong with them
            for manifest in manifests if name in services else ():
                owners = owners_of(
                    manifest.object, services[name], services, own=False, registry=""
                )
                if service in owners.values():
                    return True
        return False

    def pinned(self) -> dict[str, ImageRef]:
        """The images that this session deployed, by service; of one that it has not deployed yet,
        the one that it built."""
        with self._guard:
            return {**self._built, **self._pinned}

    def built(self, service: str, image: ImageRef) -> None:
        with self._guard:
            self._built[service] = image

    def awaited(self) -> frozenset[str]:
        """The services that this session builds, and has no image of yet."""
        with self._guard:
            known = {*self._built, *self._pinned}
            return frozenset(deployer.name for deployer in self._deployers) - known

    def remember(self, service: str, image: ImageRef) -> None:
        with self._guard:
            self._pinned[service] = image

    def deploys(self, service: str, refs: frozenset[WorkloadRef]) -> None:
        """`refs` are all the workloads that the service's manifests ask for, as far as known."""
        with self._guard:
            self._workloads[service] = refs

    def others(self, ref: WorkloadRef) -> frozenset[WorkloadRef]:
        """What this session deploys into the namespace of `ref` besides it."""
        with self._guard:
            every = [other for refs in self._workloads.values() for other in refs]
        return frozenset(r for r in every if r != ref and r.namespace == ref.namespace)

    def lock(self, ref: WorkloadRef) -> WorkloadLock:
        """By kind and name: the manifests may name another namespace only later."""
        with self._guard:
            return self._locks.setdefault((ref.kind, ref.name), WorkloadLock())

    def locks(self, refs: Iterable[WorkloadRef]) -> list[WorkloadLock]:
        """Those of several, none twice, in the order in which everybody takes them."""
        keys = sorted({(ref.kind, ref.name): ref for ref in refs}.items())
        return [self.lock(ref) for _, ref in keys]

    def deployer(self, service: Service) -> ServiceDeployer:
        """The service's deployer, in place of one that it had."""
        made = ServiceDeployer(service, self)
        self._deployers = (*(d for d in self._deployers if d.name != service.name), made)
        return made

    def forget(self, service: str) -> None:
        """The session works for a service no more; what it deployed stays."""
        self._deployers = tuple(d for d in self._deployers if d.name != service)
        with self._guard:
            self._pinned.pop(service, None)
            self._built.pop(service, None)
            self._workloads.pop(service, None)
        self.replaced.pop(service, None)

    def use(self, project: Project) -> None:
        """From now on this is the project; the renderings are replaced by their owner."""
        self.left_overs.use(project)
        self.project = project

    def recover(self) -> tuple[Diagnosis, ...]:
        """Recover what an earlier session of this project left half done, before the first deploy.
        Returns what to report; asks the cluster nothing when there is nothing to recover."""
        left = resume_left(self.connection, self.project.state_dir)
        return (*left, *recover(self.connection, self.recovery_log))

    def hand_over(self, report: Callable[[str, str], None], cancel: Cancel) -> None:
        """Wait a moment until whoever calls a Service reaches new pods only. `report` gets a
        service and what is waited for. Raises nothing."""
        replaced = tuple(self.replaced.values())
        wait_for_handover(self.connection, self.view, replaced, report, cancel)

    def close(self, deadline: float | None = None) -> None:
        """Leave nothing half done: called when the session ends, before the views are closed.

        Returns at `deadline` (of the monotonic clock; None for a few seconds from now) even if the
        cluster is silent; the recovery log then keeps what is left for the next start."""
        if deadline is None:
            deadline = time.monotonic() + _CLOSE_SECONDS
        self.outside.close()
        ends = [Background(f"close {d.name}", d.close) for d in self._deployers]
        ends.append(Background("resume GitOps", lambda _cancel: self.gitops.close()))
        for end in ends:
            end.wait(max(0.0, deadline - time.monotonic()), Cancel())
            end.stop()
