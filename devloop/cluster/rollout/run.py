"""What is not rolled out, followed by `together`: a Job to its end, a Pod until it is ready, a
custom resource until its controller calls it so. The thin shell around `run_status` and `diagnose`;
writes nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from devloop.cluster.api.log_stream import tail_log
from devloop.cluster.api.pod_view import Json, dig, items, name_of, number, uid_of
from devloop.cluster.rollout.cures import Cures
from devloop.cluster.rollout.diagnose import NEVER, Finding, examine, with_log
from devloop.cluster.rollout.patience import Patience
from devloop.cluster.rollout.run_status import (
    HOPELESS,
    RunDone,
    RunEnded,
    RunGoing,
    judge_run,
    running_container,
)
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import Served, Step

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView, View
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.engine.ports import Reporter
    from devloop.model import DeployedWorkload, WorkloadRef


class Run:
    """One of them. `timeout` is in seconds, from now. `project_paths` knows the files of the
    containers that get the image."""

    def __init__(
        self,
        connection: Connection,
        view: ClusterView,
        deployed: DeployedWorkload,
        *,
        timeout: float,
        project_paths: ProjectPaths | None = None,
    ) -> None:
        self._connection = connection
        self._deployed = deployed
        self._project_paths = project_paths
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        ref = deployed.workload
        self._things = view.workload(ref)
        self._pods = view.view("pods", ref.namespace)
        self._events = view.view("events", ref.namespace)
        self._patience = Patience()
        self._cures = Cures(connection, self._patience)
        self._last: Json | None = None
        self._reported = ""

    @property
    def workload(self) -> WorkloadRef:
        return self._deployed.workload

    @property
    def views(self) -> tuple[View, ...]:
        """What tells of it."""
        return self._things, self._pods, self._events

    def wait_synced(self, cancel: Cancel) -> None:
        """Errors: cluster/* when what is needed is not known within a while."""
        for view in (self._things, self._pods):
            view.wait_synced(cancel)

    def due(self, now: float) -> float:
        """When something would be decided without news from the cluster (monotonic)."""
        return min(self._deadline, self._patience.next(now))

    def look(self, reporter: Reporter, cancel: Cancel) -> tuple[Served, str] | None:
        """Where it is now: the proof and a few words once it is at its end. Raises pod/*,
        cluster/*."""
        del cancel
        late = time.monotonic() >= self._deadline
        self._patience.begin()
        thing = self._things.get(self.workload.name)
        if thing is not None and uid_of(thing) != self._deployed.uid:
            thing = None  # the one before, or another since
        if thing is None and self._last is not None:
            return self._gone(self._last)
        self._last = thing
        if thing is None:
            self._report(reporter, f"waiting to see {self.workload}")
            if late:
                raise self._too_late("it is not there", ())
            return None
        status = judge_run(self._deployed, thing, self._pods.items())
        match status:
            case RunDone():
                if self._patience.lasted(("done",), status.grace) or late:
                    return self._served(status), status.detail
            case RunEnded():
                diagnosis = Diagnosis(
                    code=Code.POD_RUN_FAILED, message=status.message, cause=status.cause
                )
                raise DevloopError(self._with_log(diagnosis, status.pod, status.container))
            case RunGoing():
                self._report(reporter, status.message + self._troubles(status))
                if late:
                    raise self._too_late(status.message, status.pods)
        return None

    def look_for_recovery(self) -> tuple[Served, str] | None:
        """As `look`, once it has failed: has no deadline and raises nothing."""
        thing = self._things.get(self.workload.name)
        if thing is None or uid_of(thing) != self._deployed.uid:
            return None
        status = judge_run(self._deployed, thing, self._pods.items())
        return (self._served(status), status.detail) if isinstance(status, RunDone) else None

    def _report(self, reporter: Reporter, message: str) -> None:
        error = self._things.error or self._pods.error
        if error is not None:
            message = f"{error.diagnosis.message}: reconnecting"
        if message != self._reported:
            self._reported = message
            reporter.progress(Step.ROLLOUT, message)

    def _gone(self, last: Json) -> tuple[Served, str]:
        """It is not there any more: a Job may be removed as soon as it has ended."""
        removed = self.workload.kind == "job" and "ttlSecondsAfterFinished" in (
            dig(last, "spec") or {}
        )
        if removed and not number(dig(last, "status", "failed")):
            return self._served(RunDone(detail="")), "completed and removed"
        raise DevloopError.of(
            Code.CLUSTER_NOT_FOUND,
            f"{self.workload} was deleted before its end",
            suggestions=("deploy again",),
        )

    def _served(self, status: RunDone) -> Served:
        ids = [
            str(each.get("imageID"))
            for pod in status.pods
            for each in items(dig(pod, "status", "containerStatuses"))
            if each.get("name") in self._deployed.containers
        ]
        return Served(
            image=self._deployed.image,
            pods=tuple(map(name_of, status.pods)),
            image_ids=tuple(dict.fromkeys(ids)),
        )

    def _troubles(self, status: RunGoing) -> str:
        """What is wrong with the pods and waited out, in words that follow a message; raises what
        is certain."""
        events = self._events.items()
        words = ""
        for pod in status.pods:
            found = examine(pod, events)
            if found is None or (self.workload.kind == "job" and not _hopeless(found)):
                continue
            cure = self._cures.of(found, pod, self._pods.items())
            if cure is None:
                pod_name, container = (found.pod, found.container) if found.log else ("", "")
                raise DevloopError(self._with_log(found.diagnosis, pod_name, container))
            if cure or found.grace != NEVER:
                waits = f"waits for {cure}" if cure else f"waits {found.grace:g} s for it"
                words = f", {found.diagnosis.message}; {waits}"
        return words

    def _too_late(self, cause: str, pods: tuple[Json, ...]) -> DevloopError:
        ref = self.workload
        error = self._things.error or self._pods.error
        if error is not None:
            return error
        ends = "ready" if ref.serves else "at its end"
        diagnosis = Diagnosis(
            code=Code.POD_DEADLINE,
            message=f"{ref} is not {ends} after {self._timeout:g} s",
            cause=cause,
            suggestions=(
                "raise `deploy.timeout` if it needs longer",
                f"kubectl -n {ref.namespace} describe {ref}",
            ),
        )
        return DevloopError(self._with_log(diagnosis, *running_container(pods)))

    def _with_log(self, diagnosis: Diagnosis, pod: str, container: str) -> Diagnosis:
        """With the last lines of the container, and where in the project they point."""
        if not pod:
            return diagnosis
        finding = Finding(diagnosis=diagnosis, grace=0.0, pod=pod, container=container, log=True)
        where = (self._connection, self.workload.namespace, pod, container)
        lines = tail_log(*where) or tail_log(*where, previous=True)
        ours = container in self._deployed.containers
        return with_log(finding, lines, self._project_paths if ours else None)


def _hopeless(found: Finding) -> bool:
    return found.diagnosis.code in HOPELESS and found.grace != NEVER
