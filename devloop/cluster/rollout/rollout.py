"""A rollout, looked at again and again by `together`: out as soon as the end is certain.

The thin shell around `rollout_status` (how far) and `diagnose` (what is wrong). The only write it
makes is to delete a broken pod that keeps a StatefulSet from taking the fix
(kubernetes/kubernetes#67250); what a replacement does on the way it does by its hooks.
"""

# ruff: noqa: ARG002 - RolloutHooks is the base of what does something
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.deadline import Deadline
from devloop.cluster.api.log_stream import tail_log
from devloop.cluster.api.pod_view import Json, dig, images_of, items, metadata, name_of, uid_of
from devloop.cluster.api.writes import delete_pod
from devloop.cluster.rollout.cures import Cures
from devloop.cluster.rollout.diagnose import NEVER, Finding, examine, with_log
from devloop.cluster.rollout.patience import Patience, leaving
from devloop.cluster.rollout.restarted_pod import RestartRecord, found_records, normalised
from devloop.cluster.rollout.rollout_status import (
    Accepted,
    Failing,
    Ready,
    RolloutView,
    Waiting,
    digest_of,
    judge,
)
from devloop.errors import Code, DevloopError
from devloop.model import Served, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView, View
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.engine.ports import Reporter
    from devloop.errors import Diagnosis
    from devloop.model import DeployedWorkload, WorkloadRef


# A ready pod's status may still name the image before for a moment (an image with two digests).
_STALE_SECONDS = 5.0
_BROKEN_SECONDS = 1.0
_BACK_OFF = 2.5  # seconds; the status may be that of a moment ago
# What is over after so many seconds is not worth a warning.
_FLEETING = 1.0
_PROBE = 15.0  # seconds that a program may fail its probes before that is worth a word


class RolloutHooks:
    """What a replacement does, and knows, while its rollout is followed. Those of a rolling update,
    for which the controllers do everything: nothing. `Rollout` calls them in its own thread,
    `advance` first at each look."""

    def advance(self, deployed: DeployedWorkload, accepted: Accepted, cancel: Cancel) -> str:
        """Do what is next. Returns the name of the ReplicaSet whose pods get the image where they
        are, "" for none. `accepted` is that of `rollout_status.judge`. Errors: cluster/*."""
        return ""

    def seen(self, pod: Json, deployed: DeployedWorkload) -> Json:
        """The pod as it is to be judged; the very same object where nothing is known of it."""
        return pod

    def newest(self, workload: Json) -> Json:
        """The workload, newer where a write's answer is ahead of the watch."""
        return workload

    def is_news(self, event: Json) -> bool:
        """Whether the event is one of this rollout: a pod that stays keeps those of before."""
        return True

    def had_before(self, pod: Json, image_id: str) -> bool:
        """Whether the image that the pod's status names is one that it was given before."""
        return False

    def in_back_off(self) -> list[Json]:
        """The pods that the kubelet does not restart with the image yet."""
        return []

    def recreate(self, pod: Json) -> None:
        """Have one of those replaced by a new pod."""


class Rollout:
    """One workload's rollout, to be followed by `together`. `timeout` is in seconds, from now.
    `project_paths` knows the files of the containers that get the image, `others` the workloads
    that are deployed together with this one: its program may need them; while it is `halted` by
    a debugger, the timeout does not count."""

    def __init__(
        self,
        connection: Connection,
        view: ClusterView,
        deployed: DeployedWorkload,
        *,
        timeout: float,
        hooks: RolloutHooks,
        project_paths: ProjectPaths | None = None,
        others: Callable[[], Collection[WorkloadRef]] = tuple,
        halted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection = connection
        self._deployed = deployed
        self._hooks = hooks
        self._project_paths = project_paths
        self._others = others
        self._timeout = timeout
        ref = deployed.workload
        self._workloads = view.workload(ref)
        self._pods = view.view("pods", ref.namespace)
        self._events = view.view("events", ref.namespace)
        self._sets = view.view("replicasets", ref.namespace) if ref.kind == "deployment" else None
        # Those to wait for: events are a help; they may be forbidden.
        self._needed = [v for v in (self._workloads, self._pods, self._sets) if v is not None]
        self._patience = Patience()
        self._accepted: Accepted = frozenset()
        self._removed: set[str] = set()
        # pod uid -> container -> what it was when the rollout began
        self._found: dict[str, dict[str, RestartRecord]] | None = None
        self._deadline = Deadline(timeout, halted)
        self._reported = ""
        self._cures = Cures(connection, self._patience)
        self._warned: set[tuple[str, ...]] = set()
        # A new workload may be in the view later than its deploy; one that was there is deleted.
        self._was_there = not deployed.changed

    @property
    def workload(self) -> WorkloadRef:
        return self._deployed.workload

    @property
    def views(self) -> tuple[View, ...]:
        """What tells of it."""
        return *self._needed, self._events

    def wait_synced(self, cancel: Cancel) -> None:
        """Errors: cluster/* when what is needed is not known within a while."""
        for view in self._needed:
            view.wait_synced(cancel)

    def due(self, now: float) -> float:
        """When something would be decided without news from the cluster (monotonic)."""
        return min(self._deadline.at, self._patience.next(now))

    def look(self, reporter: Reporter, cancel: Cancel) -> tuple[Served, str] | None:
        """Where it is now: the proof and a few words ("1/1 ready") once it is at its end. Raises
        pod/*, safety/changed-outside, cluster/*."""
        view = self._look_around(cancel)
        late = self._deadline.passed()
        self._patience.begin()
        status = judge(self._deployed, view, accepted=self._accepted)
        match status:
            case Ready():
                return self._proof(status), status.detail
            case Failing(error=error):
                cure = leaving(view.pods) if status.wants_room else ""
                if late or (not cure and self._patience.lasted((error.code,), status.grace)):
                    raise error
                self._report(_waiting_for(cure, error.diagnosis.message), reporter)
                self._warn((error.code,), error.diagnosis, cure, status.grace, reporter)
            case Waiting():
                self._waiting(status, reporter, late=late)
        return None

    def look_for_recovery(self) -> tuple[Served, str] | None:
        """As `look`, of a rollout that failed: does nothing for it and has no deadline. Raises
        safety/changed-outside and cluster/not-found, after which it can come to no end."""
        pods = tuple(map(self._seen, self._pods.items()))
        status = judge(self._deployed, self._view_of(pods), accepted=self._accepted)
        if isinstance(status, Failing) and status.error.code is Code.SAFETY_CHANGED_OUTSIDE:
            raise status.error
        return (self._proof(status), status.detail) if isinstance(status, Ready) else None

    def _look_around(self, cancel: Cancel) -> RolloutView:
        pods = self._pods.items()
        if self._found is None:
            deployed = self._deployed
            self._found = {
                uid_of(p): found_records(p, deployed.containers, deployed.image) for p in pods
            }
        restarted = self._hooks.advance(self._deployed, self._accepted, cancel)
        return self._view_of(tuple(map(self._seen, pods)), restarted)

    def _view_of(self, pods: tuple[Json, ...], restarted: str = "") -> RolloutView:
        return RolloutView(
            workload=self._seen_workload(),
            restarted=restarted,
            replicasets=tuple(self._sets.items()) if self._sets is not None else (),
            pods=pods,
        )

    def _proof(self, ready: Ready) -> Served:
        return Served(image=self._deployed.image, pods=ready.pods, image_ids=ready.image_ids)

    def _seen(self, pod: Json) -> Json:
        """The pod as it is to be judged: by what became of it since the rollout began."""
        seen = self._hooks.seen(pod, self._deployed)
        if seen is not pod:
            return seen
        records = (self._found or {}).get(uid_of(pod))
        return normalised(pod, records) if records else pod

    def _seen_workload(self) -> Json | None:
        ref = self._deployed.workload
        seen = self._workloads.get(ref.name)
        if seen is None and self._was_there:
            raise DevloopError.of(
                Code.CLUSTER_NOT_FOUND,
                f"{ref} was deleted while it was rolled out",
                suggestions=("deploy again",),
            )
        self._was_there = self._was_there or seen is not None
        return self._hooks.newest(seen) if seen is not None else None

    def _waiting(self, status: Waiting, reporter: Reporter, *, late: bool) -> None:
        error = self._workloads.error or self._pods.error
        events = list(filter(self._hooks.is_news, self._events.items()))
        # What becomes of one that goes says nothing about those that stay.
        stay = (p for p in status.pods if not metadata(p).get("deletionTimestamp"))
        found = [(p, finding) for p in stay if (finding := examine(p, events)) is not None]
        message = status.message if error is None else f"{error.diagnosis.message}: reconnecting"
        findings = []
        cures = []
        for pod, finding in found:
            cures.append(cure := self._cure(pod, finding))
            if cure or 0 < finding.grace < NEVER:
                self._warn(finding.key, finding, cure, finding.grace, reporter)
            elif finding.diagnosis.code is Code.POD_PROBE_FAILING:
                self._warn(finding.key, finding, cure, NEVER, reporter, after=_PROBE)
            findings.append(finding)
        self._report(_waiting_for(next(filter(None, cures), ""), message), reporter, status)
        self._check_stale(status)
        self._unblock(status, events, reporter)
        self._recreate_in_back_off(reporter)
        if late:
            raise self._too_late(status, findings, error)

    def _cure(self, pod: Json, finding: Finding) -> str:
        """What is waited for, "" where the grace alone is; raises when that is over in vain."""
        cure = self._cures.of(finding, pod, self._pods.items(), self._others())
        if cure is None:
            raise DevloopError(self._evidence(finding))
        return cure

    def _report(self, message: str, reporter: Reporter, status: Waiting | None = None) -> None:
        if message != self._reported:
            self._reported = message
            ready, wanted = (status.ready, status.wanted) if status else (None, None)
            reporter.progress(Step.ROLLOUT, message, current=ready, total=wanted or None)

    def _warn(
        self,
        key: tuple[str, ...],
        trouble: Finding | Diagnosis,
        cure: str,
        grace: float,
        reporter: Reporter,
        *,
        after: float = _FLEETING,
    ) -> None:
        """Say once, `after` so many seconds, what is wrong and what is waited for."""
        known = (*key[1:], cure)
        if known in self._warned or not self._patience.lasted(("warn", *key), after):
            return
        self._warned.add(known)
        diagnosis = self._evidence(trouble) if isinstance(trouble, Finding) else trouble
        words = f"waits {grace:g} s for it" if grace < NEVER else "waits until the deadline"
        words = f"waits for {cure}" if cure else words
        message = f"{diagnosis.message}; {words}"
        reporter.diagnostic(replace(diagnosis, severity="warning", message=message))

    def _check_stale(self, status: Waiting) -> None:
        for pod, image_id in status.stale:
            if not self._patience.lasted(("stale", pod, image_id), _STALE_SECONDS):
                continue
            if self._same_image(pod, image_id):
                self._accepted |= {(pod, image_id)}
                self._patience.lasted(("accepted", pod, image_id), 0.001)  # look again at once
                continue
            if self._hooks.had_before(self._pods.get(pod) or {}, image_id):
                continue  # a save overtook that one; the kubelet is at it still
            raise DevloopError.of(
                Code.POD_STALE_IMAGE,
                f"pod {pod} runs another image than the one deployed",
                cause=f"it reports {image_id}, deployed was {self._deployed.image.pinned}",
                suggestions=(
                    "see whether an admission webhook rewrites images",
                    "see whether the registry or its mirror serves an old copy",
                ),
            )

    def _same_image(self, pod_name: str, image_id: str) -> bool:
        """Whether the node knows both digests as names of one image: two manifests with the same
        layers and configuration are one to containerd, and it reports either name."""
        digest = self._deployed.image.digest
        pod = self._pods.get(pod_name)
        node = dig(pod, "spec", "nodeName")
        other = digest_of(image_id) or image_id
        if not node or not digest:
            return False
        try:
            found = self._connection.request("GET", f"/api/v1/nodes/{node}")
        except DevloopError:
            return False
        images = items(dig(found, "status", "images"))
        known = (" ".join(str(n) for n in image.get("names") or ()) for image in images)
        return any(digest in names and other in names for names in known)

    def _unblock(self, status: Waiting, events: list[Json], reporter: Reporter) -> None:
        """Remove the pod of an old revision that will never be ready and that an ordered
        StatefulSet waits for before it takes the new revision."""
        for pod in status.broken:
            finding = examine(pod, events)
            if finding is None or finding.grace == NEVER or uid_of(pod) in self._removed:
                continue
            if not self._patience.lasted(("broken", uid_of(pod)), _BROKEN_SECONDS):
                continue
            self._removed.add(uid_of(pod))
            name = name_of(pod)
            reporter.progress(Step.ROLLOUT, f"removing broken pod {name}: it blocks the update")
            delete_pod(self._connection, pod)

    def _recreate_in_back_off(self, reporter: Reporter) -> None:
        """Recreate the pods that the kubelet does not restart with the image: its back-off takes
        that for a crash when the pod ran the same image before."""
        for pod in self._hooks.in_back_off():
            uid = uid_of(pod)
            if uid in self._removed or not self._patience.lasted(("back-off", uid), _BACK_OFF):
                continue
            self._removed.add(uid)
            name = name_of(pod)
            reporter.progress(Step.ROLLOUT, f"recreating pod {name}: it ran this image before")
            self._hooks.recreate(pod)

    def _evidence(self, finding: Finding) -> Diagnosis:
        if not finding.log:
            return with_log(finding, ())
        where = (self._connection, self._deployed.workload.namespace, finding.pod)
        lines = tail_log(*where, finding.container, previous=finding.previous)
        lines = lines or tail_log(*where, finding.container, previous=not finding.previous)
        ours = finding.container in self._deployed.containers
        return with_log(finding, lines, self._project_paths if ours else None)

    def _too_late(
        self, status: Waiting, findings: list[Finding], error: DevloopError | None
    ) -> DevloopError:
        if error is not None:
            return error
        if findings:
            return DevloopError(self._evidence(max(findings, key=lambda f: f.log)))
        ref = self._deployed.workload
        images = ", ".join(sorted(set(images_of(self._seen_workload() or {}).values())))
        return DevloopError.of(
            Code.POD_DEADLINE,
            f"{ref} is not ready after {self._timeout:g} s",
            cause=status.message,
            suggestions=(
                "raise `deploy.timeout` if it needs longer",
                f"kubectl -n {ref.namespace} describe {ref}",
            ),
            detail=(f"images: {images}",) if images else (),
        )


def _waiting_for(cure: str, message: str) -> str:
    return f"waiting for {cure}: {message}" if cure else message
