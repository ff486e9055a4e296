"""One service's `Deployer`: what is to be written, handed to how it is replaced, then followed.

The thin shell around the decisions, which live in `objects`, `ownership` and `replace`; waiting is
`rollout`'s. What services share is handed in, see `deployments`.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.cluster.api.kinds import WORKLOAD_KINDS, workload_path
from devloop.cluster.api.pod_view import Json, dig, images_of, metadata, number, uid_of
from devloop.cluster.deploy import guard
from devloop.cluster.deploy.objects import DeployPlan, PlannedObject, pick_container, plan_objects
from devloop.cluster.deploy.original import keep_original
from devloop.cluster.deploy.ownership import created_by, gitops_manager
from devloop.cluster.deploy.write import ImagePatch, ManifestApply, Recreated, missing_workload
from devloop.cluster.replace.pause import paused_by_devloop
from devloop.cluster.replace.policy import order_for
from devloop.cluster.replace.strategy import Change
from devloop.cluster.rollout.rollout import Rollout
from devloop.engine.loop import SilentReporter
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import Deployed, ImageRef, Served, Step, StepOutcome, WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devloop.base.cancel import Cancel
    from devloop.cluster.deploy.deployments import Deployments
    from devloop.cluster.replace.policy import ReplacementPolicy
    from devloop.cluster.replace.strategy import Replaced, Write
    from devloop.config.schema import Service
    from devloop.engine.ports import Reporter
    from devloop.model import ReplacedBy


_LOG = logging.getLogger(__name__)


class WorkloadDeployer:
    """One service's `Deployer` (see engine.ports). Made by `Deployments.deployer`."""

    def __init__(self, service: Service, shared: Deployments) -> None:
        self.name = service.name
        self._service = service
        self._shared = shared
        self._connection = shared.connection
        self._rendering = shared.renderings.get(service.name)
        deploy = service.deploy
        self._ref = WorkloadRef(deploy.workload_kind, deploy.workload_name, shared.namespace)
        self._lock = shared.lock(self._ref)
        auto: ReplacedBy = "in-place" if shared.in_place_by_default else "rolling"
        # An image that is deployed has not gone hot.
        ways: dict[str, ReplacedBy] = {"in-place": "in-place", "rolling": "rolling", "fast": "fast"}
        self._wanted = ways.get(deploy.replace, auto)
        self._policies: dict[WorkloadRef, ReplacementPolicy] = {}
        self._last: Json | None = None
        self._warned = False
        # What was applied since the pods started that they may read only when they start.
        self._unread = ""
        # Images that this session wrote and never saw served, and the last that it did see.
        self._unproven: set[str] = set()
        self._proven: dict[str, str] = {}
        # What stands before commands, by the image that it is in.
        self._supervisors: dict[str, tuple[str, ...]] = {}

    def deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        reporter.started(Step.DEPLOY)
        with self._lock.acquired(cancel):
            deployed, how = self._deploy(image, reporter, cancel)
            self._shared.remember(self.name, image)
            self._supervisors[image.pinned] = image.supervisor
            if deployed.changed:
                self._unproven.add(image.pinned)
        detail = "nothing to change"
        if deployed.changed:
            detail = f"{deployed.workload} -> {image.short}{how}"
        outcome = StepOutcome.DONE if deployed.changed else StepOutcome.SKIPPED
        reporter.finished(Step.DEPLOY, outcome, detail)
        return deployed

    def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        reporter.started(Step.ROLLOUT)
        hooks = self._policy(deployed.workload).hooks
        rollout = Rollout(
            self._connection,
            self._shared.view,
            deployed,
            timeout=self._service.deploy.timeout,
            hooks=hooks,
            project_paths=self._shared.project_paths.get(self.name),
        )
        try:
            served, detail = rollout.follow(reporter, cancel)
        except Cancelled:
            hooks.superseded(deployed)
            raise
        except BaseException:
            # What is wrong with the rollout is what counts; the recovery log keeps the rest.
            try:
                hooks.failed(deployed)
            except DevloopError as error:
                _LOG.warning("%s is left as it is for now: %s", deployed.workload, error)
            raise
        hooks.ready(deployed)
        pinned = deployed.image.pinned
        self._unproven.discard(pinned)
        self._proven.update(dict.fromkeys(deployed.containers, pinned))
        reporter.finished(Step.ROLLOUT, StepOutcome.DONE, detail)
        return served

    def rollback(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> None:
        """Put `deployed.previous` back, unless the workload has moved on since."""
        if not deployed.previous:
            return
        reporter.started(Step.DEPLOY)
        ref = deployed.workload
        with self._lock.acquired(cancel):
            live = self._connection.find(workload_path(ref))
            detail = "nothing to put back"
            if live is not None and uid_of(live) == deployed.uid:
                now = images_of(live)
                back = {
                    name: before
                    for name, before in deployed.previous.items()
                    if now.get(name) == deployed.image.pinned
                }
                if back:
                    supervisors = {self._supervisors.get(image, ()) for image in back.values()}
                    supervisor = supervisors.pop() if len(supervisors) == 1 else ()
                    write = replace(self._image_patch(ref, live, back), supervisor=supervisor)
                    with contextlib.suppress(Recreated):
                        self._last = write.plain().object
                        self._policy(ref).hooks.rolled_back(self._last, back)
                    detail = f"{ref} -> {', '.join(sorted({_short(i) for i in back.values()}))}"
        reporter.finished(Step.DEPLOY, StepOutcome.DONE, detail)

    def adopt(self, image: ImageRef, cancel: Cancel) -> str | None:
        """Bring Deployment and ReplicaSet to the image and leave the pods as they run; None when
        it is so, else why it cannot be."""
        if self._wanted != "in-place":
            return f"deploy.replace is {self._service.deploy.replace}"
        with self._lock.acquired(cancel):
            plan = self._plan(image, cancel)
            ref = plan.workload
            live = self._live(ref)
            if live is None or ref.kind != "deployment":
                return f"{ref} is not there" if live is None else f"a {ref.kind}"
            if dig(live, "spec", "paused") is True and not paused_by_devloop(live):
                return f"{ref} is paused"
            change = self._change(plan, live, image, SilentReporter(), cancel)
            if not change.image_differs and not paused_by_devloop(live):
                return None
            try:
                result, blocker = self._shared.in_place(ref).adopt(change, cancel)
            except Recreated:
                return f"{ref} was recreated"
            if result is not None:
                self._last = result
                self._shared.remember(self.name, image)
                self._supervisors[image.pinned] = image.supervisor
                self._unproven.add(image.pinned)
            return blocker

    def close(self, cancel: Cancel) -> None:
        """The end of the session: nothing is left half done, as far as the cluster is reached."""
        for policy in tuple(self._policies.values()):
            policy.close(cancel)

    # --- what is written -----------------------------------------------------------------------

    def _deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> tuple[Deployed, str]:
        """Returns, too, a few words on how pods come to run the image."""
        plan = self._plan(image, cancel)
        for planned in plan.objects:
            guard.check_namespace(planned.namespace)
        ref = plan.workload
        live = self._live(ref)
        _refuse_paused(live, plan.own.object if plan.own is not None else {}, ref)
        before, after = self._around(plan)
        written = self._apply_others(before, reporter, cancel)
        replaced: tuple[Change, Replaced, str] | None = None
        while replaced is None:
            cancel.check()
            change = self._change(plan, live, image, reporter, cancel)
            try:
                replaced = (change, *self._policy(ref).replace(change, cancel))
            except Recreated:
                live = self._connection.find(workload_path(ref))
        change, done, how = replaced
        self._last = done.written.object
        if done.written.changed and done.how != "in-place":
            self._unread = ""
        written = self._apply_others(after, reporter, cancel) or written
        return self._deployed(change, done, changed=written or done.written.changed), how

    def _around(self, plan: DeployPlan) -> tuple[Sequence[PlannedObject], Sequence[PlannedObject]]:
        """What to apply before the workload and what after: in the plan's order, but the workload
        first if it alone can have changed, since nothing it needs is looked at again then but to
        see that it is still there."""
        own = plan.own
        if own is None:
            return plan.objects, ()
        rest = tuple(p for p in plan.objects if p is not own)
        if all(map(self._shared.applier.believes, rest)):
            return (), rest
        at = plan.objects.index(own)
        return plan.objects[:at], plan.objects[at + 1 :]

    def _apply_others(
        self, objects: Sequence[PlannedObject], reporter: Reporter, cancel: Cancel
    ) -> bool:
        """Whether anything was written."""
        written = False
        for planned in objects:
            cancel.check()
            before = self._keep_original if planned.resource.api_version == "apps/v1" else None
            applied = self._shared.applier.apply(
                planned, reporter.diagnostic, cancel, before=before
            )
            written = written or applied.changed
            if applied.changed and not applied.created:
                self._unread = f"{planned} changed"
        return written

    def _change(
        self,
        plan: DeployPlan,
        live: Json | None,
        image: ImageRef,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Change:
        """Raises cluster/not-found when there is no workload to patch."""
        ref, containers = plan.workload, plan.containers
        write: Write
        if plan.own is not None:
            write = ManifestApply(
                applier=self._shared.applier,
                own=plan.own,
                live=live,
                containers=containers,
                notify=reporter.diagnostic,
                cancel=cancel,
                before=self._keep_original,
            )
        elif live is None:
            raise missing_workload(self._connection, ref)
        else:
            containers = pick_container(
                {"kind": WORKLOAD_KINDS[ref.kind], **live},
                image=self._service.image,
                container=self._service.deploy.container,
                where=str(ref),
            )
            write = replace(
                self._image_patch(ref, live, dict.fromkeys(containers, image.pinned)),
                supervisor=image.supervisor,
                present_on_node=not image.digest,
                before=partial(self._before_patch, ref, reporter),
            )
        return Change(
            ref=ref, live=live, containers=containers, image=image, write=write, unread=self._unread
        )

    def _image_patch(self, ref: WorkloadRef, live: Json, images: Mapping[str, str]) -> ImagePatch:
        return ImagePatch(
            connection=self._connection,
            recovery_log=self._shared.recovery_log,
            ref=ref,
            live=live,
            images=images,
        )

    def _before_patch(self, ref: WorkloadRef, reporter: Reporter, live: Json) -> None:
        manager = gitops_manager(live)
        if manager is not None and not self._warned:
            self._warned = True
            warning = Diagnosis(
                code=Code.CLUSTER_CONFLICT,
                severity="warning",
                message=f"{manager} manages {ref} and may put its own image back",
                suggestions=(f"pause {manager} for it while you work",),
            )
            reporter.diagnostic(warning)
        self._keep_original(live)

    def _plan(self, image: ImageRef, cancel: Cancel) -> DeployPlan:
        if self._rendering is None:
            return DeployPlan(objects=(), workload=self._ref)
        return plan_objects(
            self._rendering.objects(cancel),
            self._service,
            image,
            namespace=self._shared.namespace,
            services=self._shared.project.services,
            pinned=self._shared.pinned(),
            resource_of=self._shared.discovery.resource,
            live_image=self._live_image,
        )

    def _live_image(self, kind: str, namespace: str, name: str, container: str) -> str | None:
        for lower, known in WORKLOAD_KINDS.items():
            if known == kind:
                live = self._connection.find(workload_path(WorkloadRef(lower, name, namespace)))
                return images_of(live or {}).get(container)
        return None

    # --- what is known -------------------------------------------------------------------------

    def _policy(self, ref: WorkloadRef) -> ReplacementPolicy:
        if ref not in self._policies:
            shared = self._shared
            self._policies[ref] = order_for(
                self._wanted,
                ref,
                connection=self._connection,
                view=shared.view,
                lock=self._lock,
                in_place=shared.in_place,
            )
        return self._policies[ref]

    def _live(self, ref: WorkloadRef) -> Json | None:
        """The workload as it is: from the watch where that is up to date, else asked for."""
        view = self._shared.view.workload(ref)
        if view.synced.is_set() and view.error is None:
            seen = view.get(ref.name)
            last = self._last
            if seen is not None and (
                last is None
                or uid_of(last) != uid_of(seen)
                or _generation(seen) >= _generation(last)
            ):
                return seen
        return self._connection.find(workload_path(ref))

    def _keep_original(self, live: Json) -> None:
        """Before the first write to a workload that devloop did not create."""
        if live.get("kind") in WORKLOAD_KINDS.values() and not created_by(live):
            keep_original(self._shared.project.state_dir, self._connection.context, live)

    def _deployed(self, change: Change, done: Replaced, *, changed: bool) -> Deployed:
        written = done.written
        before = change.live if change.live is not None and not written.created else {}
        had = images_of(before)
        previous = {
            name: self._proven.get(name, had[name]) if had[name] in self._unproven else had[name]
            for name in change.containers
            if had.get(name) not in {None, change.image.pinned}
        }
        return Deployed(
            workload=change.ref,
            uid=uid_of(written.object),
            generation=_generation(written.object),
            image=change.image,
            containers=change.containers,
            changed=changed,
            how=done.how,
            alone=done.alone,
            previous=MappingProxyType(previous),
        )


def _refuse_paused(live: Json | None, wanted: Json, ref: WorkloadRef) -> None:
    """A paused Deployment takes a new image and rolls nothing out."""
    asked = dig(wanted, "spec", "paused")
    paused = dig(live, "spec", "paused") is True and not paused_by_devloop(live)
    if asked is True or (asked is None and paused):
        raise DevloopError.of(
            Code.CLUSTER_PAUSED,
            f"{ref} is paused: it would not roll anything out",
            cause="spec.paused is true",
            suggestions=(f"kubectl -n {ref.namespace} rollout resume {ref}",),
        )


def _generation(thing: Json) -> int:
    return number(metadata(thing).get("generation"))


def _short(image: str) -> str:
    """As `ImageRef.short` shows it; an image without a digest as it is."""
    _, _, digest = image.rpartition("@sha256:")
    return digest[:6] if digest != image else image
