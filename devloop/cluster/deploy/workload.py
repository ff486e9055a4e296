"""One service's `Deployer`: its manifests applied or its images patched, in place or rolled.

The thin shell around the decisions, which live in `objects`, `ownership` and `inplace`; waiting is
`rollout`'s. What services share is handed in, see `deployer`.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.kinds import WORKLOAD_KINDS, Resource, workload_path
from devloop.cluster.api.pod_view import dig, metadata, number, uid_of
from devloop.cluster.deploy import guard
from devloop.cluster.deploy.apply import read
from devloop.cluster.deploy.objects import DeployPlan, PlannedObject, pick_container, plan_objects
from devloop.cluster.deploy.original import write_before
from devloop.cluster.deploy.ownership import created_by, gitops_manager, images_of
from devloop.cluster.deploy.patch import Recreated, image_patch, missing_workload, patch_images
from devloop.cluster.deploy.recover import release, take_back
from devloop.cluster.deploy.recovery_log import RecoveryEntry
from devloop.cluster.replace.fast import is_fast, with_fast_strategy
from devloop.cluster.replace.in_place_rules import held, same_manifest, with_hold
from devloop.cluster.rollout.rollout import Rollout
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.model import Deployed, ImageRef, Served, Step, StepOutcome, WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.cluster.deploy.deployments import Deployments
    from devloop.cluster.replace.in_place import InPlace
    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering, Reporter

__all__ = ["WorkloadDeployer"]


class WorkloadDeployer:
    """One service's `Deployer` (see engine.ports). Made by `Deployments.deployer`."""

    def __init__(self, service: Service, shared: Deployments) -> None:
        self._service = service
        self._shared = shared
        self._connection = shared.connection
        self._rendering = shared.renderings.get(service.name)
        deploy = service.deploy
        self._ref = WorkloadRef(deploy.workload_kind, deploy.workload_name, shared.namespace)
        self._last: Mapping[str, Any] | None = None
        self._warned = False
        chosen = deploy.replace
        self._wants_in_place = chosen == "in-place" or (
            chosen == "auto" and shared.in_place_by_default
        )
        self._fast = chosen == "fast" and deploy.workload_kind == "deployment"
        # What takes the strategy of `fast` back, once there is something to take back.
        self._take_back: Callable[[], object] | None = None
        self._how = ""
        self._alone = False
        # Whether something that the pods may read only when they start was applied since they did.
        self._outdated = ""
        # Images that this session wrote and never saw served, and the last that it did see.
        self._unproven: set[str] = set()
        self._proven: dict[str, str] = {}

    def deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        reporter.started(Step.DEPLOY)
        self._how, self._alone = "", False
        with self._shared.lock(self._ref):
            cancel.check()
            if self._rendering is not None:
                deployed = self._apply(self._rendering, image, reporter, cancel)
            else:
                live = self._live(self._ref)
                deployed = self._patch(image, reporter, self._ref, live, cancel)
            self._shared.remember(self._service.name, image)
            if deployed.changed:
                self._unproven.add(image.pinned)
        detail = "nothing to change"
        if deployed.changed:
            detail = f"{deployed.workload} -> {image.short}{self._how}"
        outcome = StepOutcome.DONE if deployed.changed else StepOutcome.SKIPPED
        reporter.finished(Step.DEPLOY, outcome, detail)
        return deployed

    def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        reporter.started(Step.ROLLOUT)
        in_place = self._in_place(deployed.workload)
        rollout = Rollout(
            self._connection,
            self._shared.view,
            deployed,
            timeout=self._service.deploy.timeout,
            in_place=in_place,
            hurry=self._fast,
            clock=self._shared.clock,
        )
        try:
            served, detail = rollout.follow(reporter, cancel)
        except Cancelled:
            if in_place is not None:
                in_place.settle_later()
            raise
        except BaseException:
            if in_place is not None:
                in_place.settle()
            raise
        if in_place is not None:
            in_place.served()
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
        with self._shared.lock(self._ref):
            cancel.check()
            live = read(self._connection, workload_path(ref))
            detail = "nothing to put back"
            if live is not None and uid_of(live) == deployed.uid:
                now = images_of(live)
                back = {
                    name: before
                    for name, before in deployed.previous.items()
                    if now.get(name) == deployed.image.pinned
                }
                patch = image_patch(live, back)
                if patch is not None:
                    with contextlib.suppress(Recreated):
                        self._last = patch_images(self._connection, ref, patch, uid=deployed.uid)
                        if (in_place := self._in_place(ref)) is not None:
                            in_place.sweep(self._last, back)
                    detail = f"{ref} -> {', '.join(sorted({_short(i) for i in back.values()}))}"
        reporter.finished(Step.DEPLOY, StepOutcome.DONE, detail)

    # --- manifests -----------------------------------------------------------------------------

    def _apply(
        self, rendering: Rendering, image: ImageRef, reporter: Reporter, cancel: Cancel
    ) -> Deployed:
        plan = self._plan(rendering, image, cancel)
        if self._fast:
            plan = self._made_fast(plan)
        for planned in plan.objects:
            guard.check_namespace(planned.namespace)
        ref = plan.workload
        live = self._live(ref)
        if plan.own is not None:
            self._refuse_paused(live, plan.own.object, ref)
        written = False
        result: Mapping[str, Any] | None = None
        created = False
        for planned in self._in_order(plan):
            cancel.check()
            own = planned is plan.own
            if own and live is not None:
                result = self._apply_in_place(planned, live, image, reporter, cancel, plan=plan)
                if result is not None:
                    written = True
                    continue
            applied = self._shared.applier.apply(
                planned,
                reporter.diagnostic,
                cancel,
                live=live if own else None,
                before=self._record if planned.resource.api_version == "apps/v1" else None,
            )
            written = written or applied.written
            if own:
                result, created = applied.object, applied.created
                if applied.written:
                    result = self._let_go(result)
                    self._outdated = ""
            elif applied.written and not applied.created:
                self._outdated = f"{planned} changed"
        if result is None:
            cancel.check()
            deployed = self._patch(image, reporter, ref, live, cancel)
            return replace(deployed, changed=True) if written else deployed
        self._last = result
        return self._deployed(
            ref,
            image,
            plan.containers,
            result,
            before=None if created else live,
            changed=written,
        )

    def _in_order(self, plan: DeployPlan) -> tuple[PlannedObject, ...]:
        """What to apply, in order: the workload first if it alone can have changed, since nothing
        it needs is looked at anew then but to see that it is still there."""
        own = plan.own
        rest = tuple(p for p in plan.objects if p is not own)
        if own is None or not all(map(self._shared.applier.believes, rest)):
            return plan.objects
        return (own, *rest)

    # --- fast ----------------------------------------------------------------------------------

    def _made_fast(self, plan: DeployPlan) -> DeployPlan:
        """The plan with another strategy for the workload; in the end it gets the manifest's."""
        own = plan.own
        if own is None:
            return plan
        fast = replace(own, object=with_fast_strategy(own.object))
        self._take_back = partial(self._apply_plain, own)
        return replace(plan, objects=tuple(fast if p is own else p for p in plan.objects))

    def _apply_plain(self, own: PlannedObject) -> None:
        live = read(self._connection, own.path)
        if live is not None and is_fast(live):
            self._shared.applier.apply(own, lambda _: None, Cancel(), live=live)

    def _patched_fast(self, live: Mapping[str, Any], ref: WorkloadRef) -> dict[str, Any]:
        """The strategy to patch with; what was there is written down first."""
        wanted = with_fast_strategy(live)
        if not self._fast or is_fast(live) or wanted == live:
            return {}
        entry = RecoveryEntry(
            context=self._connection.context,
            namespace=ref.namespace,
            name=ref.name,
            uid=uid_of(live),
            strategy=dig(live, "spec", "strategy") or {},
        )
        self._shared.journal.write(entry)
        self._take_back = partial(take_back, self._connection, self._shared.journal, entry)
        return {"strategy": wanted["spec"]["strategy"]}

    def close(self) -> None:
        """The end of the session: the strategy is what it was. What cannot be reached stays in the
        journal, or differs from the manifest, and is put right by the next start."""
        with self._shared.lock(self._ref):
            back, self._take_back = self._take_back, None
            if back is not None:
                with contextlib.suppress(DevloopError, Cancelled):
                    back()

    # --- in place ------------------------------------------------------------------------------

    def _in_place(self, ref: WorkloadRef) -> InPlace | None:
        if ref.kind != "deployment" or not self._wants_in_place:
            return None
        return self._shared.in_place(ref)

    def adopt(self, image: ImageRef, cancel: Cancel) -> str | None:
        """Bring Deployment and ReplicaSet to the image and leave the pods as they run; None when
        it is so, else why it cannot be."""
        if not self._wants_in_place:
            return f"deploy.replace is {self._service.deploy.replace}"
        with self._shared.lock(self._ref):
            cancel.check()
            if self._rendering is None:
                return self._adopt(image, cancel, self._live(self._ref), None)
            plan = self._plan(self._rendering, image, cancel)
            return self._adopt(image, cancel, self._live(plan.workload), plan)

    def _adopt(
        self,
        image: ImageRef,
        cancel: Cancel,
        live: Mapping[str, Any] | None,
        plan: DeployPlan | None,
    ) -> str | None:
        ref = plan.workload if plan is not None else self._ref
        in_place = self._in_place(ref)
        own = plan.own if plan is not None else None
        if live is None or in_place is None:
            return f"{ref} is not there" if live is None else f"a {ref.kind}"
        if dig(live, "spec", "paused") is True and not held(live):
            return f"{ref} is paused"
        containers = plan.containers if own is not None and plan is not None else ()
        containers = containers or pick_container(
            {"kind": WORKLOAD_KINDS[ref.kind], **live},
            image=self._service.image,
            container=self._service.deploy.container,
            where=str(ref),
        )
        patch = image_patch(live, dict.fromkeys(containers, image.pinned))
        if patch is None and not held(live):
            return None
        reason = in_place.why_not(live, containers, image, cancel, restart=False)
        if own is not None and not same_manifest(
            own.object, live, containers, self._shared.project.name
        ):
            reason = reason or "its manifest changed"
        if reason is not None:
            return reason
        self._record(live)

        def hold() -> Mapping[str, Any]:
            if own is not None:
                return self._shared.applier.hold(own, live, lambda _: None, cancel)
            return patch_images(self._connection, ref, with_hold(patch or {}), uid=uid_of(live))

        try:
            self._last, reason = in_place.adopt(live, containers, image, hold)
        except Recreated:
            return f"{ref} was made anew"
        self._shared.remember(self._service.name, image)
        self._unproven.add(image.pinned)
        return reason

    def _apply_in_place(
        self,
        planned: PlannedObject,
        live: Mapping[str, Any],
        image: ImageRef,
        reporter: Reporter,
        cancel: Cancel,
        *,
        plan: DeployPlan,
    ) -> Mapping[str, Any] | None:
        """Roll out in place; None where nothing is to change, or where it is to be rolled."""
        project = self._shared.project.name
        in_place = self._ready_for(
            plan.workload,
            live,
            plan.containers,
            image,
            cancel,
            unchanged=lambda: same_manifest(planned.object, live, plan.containers, project),
        )
        if in_place is None:
            return None
        cancel.check()
        if not created_by(live):
            self._record(live)
        applier = self._shared.applier
        return self._begin(
            in_place,
            live,
            plan.containers,
            image,
            lambda: applier.hold(planned, live, reporter.diagnostic, cancel),
        )

    def _ready_for(
        self,
        ref: WorkloadRef,
        live: Mapping[str, Any],
        containers: tuple[str, ...],
        image: ImageRef,
        cancel: Cancel,
        *,
        unchanged: Callable[[], bool] = lambda: True,
    ) -> InPlace | None:
        """The in-place rollout if there is one to make, else None; `_how` says why it is not.

        `unchanged` tells whether nothing but the image differs."""
        if not self._wants_in_place:
            return None
        in_place = self._in_place(ref)
        if not self._differs(in_place, live, containers, image):
            return None
        if in_place is None:
            reason: str | None = f"a {ref.kind}"
        else:
            reason = self._outdated or in_place.why_not(live, containers, image, cancel)
            if not reason and not unchanged():
                reason = "its manifest changed"
        if reason:
            self._how = f", rolling: {reason}"
            return None
        return in_place

    def _begin(
        self,
        in_place: InPlace,
        live: Mapping[str, Any],
        containers: tuple[str, ...],
        image: ImageRef,
        hold: Callable[[], Mapping[str, Any]],
    ) -> Mapping[str, Any]:
        result, reason = in_place.begin(live, containers, image, hold)
        self._last = result
        self._how = ", in place" if reason is None else f", rolling: {reason}"
        self._alone = reason is None and number(dig(live, "spec", "replicas"), 1) == 1
        return result

    def _differs(
        self,
        in_place: InPlace | None,
        live: Mapping[str, Any],
        containers: tuple[str, ...],
        image: ImageRef,
    ) -> bool:
        now = images_of(live)
        if any(now.get(c) not in {None, image.pinned} for c in containers):
            return True
        return in_place is not None and (held(live) or in_place.behind(live, containers, image))

    def _let_go(self, written: Mapping[str, Any]) -> Mapping[str, Any]:
        """A workload that was to be rolled is not left paused by an in-place rollout before."""
        if not held(written):
            return written
        return release(self._connection, self._ref, uid_of(written)) or written

    def _plan(self, rendering: Rendering, image: ImageRef, cancel: Cancel) -> DeployPlan:

        def resource_of(api_version: str, kind: str, location: Location) -> Resource:
            return self._shared.discovery.resource(api_version, kind, location=location)

        return plan_objects(
            rendering.objects(cancel),
            self._service,
            image,
            namespace=self._shared.namespace,
            services=self._shared.project.services,
            pinned=self._shared.pinned(),
            resource_of=resource_of,
            live_image=self._live_image,
        )

    def _live_image(self, kind: str, namespace: str, name: str, container: str) -> str | None:
        for lower, known in WORKLOAD_KINDS.items():
            if known == kind:
                live = read(self._connection, workload_path(WorkloadRef(lower, name, namespace)))
                return images_of(live or {}).get(container)
        return None

    # --- patch only ----------------------------------------------------------------------------

    def _patch(
        self,
        image: ImageRef,
        reporter: Reporter,
        ref: WorkloadRef,
        live: Mapping[str, Any] | None,
        cancel: Cancel,
    ) -> Deployed:
        if live is None:
            raise missing_workload(self._connection, ref)
        self._refuse_paused(live, {}, ref)
        containers = pick_container(
            {"kind": WORKLOAD_KINDS[ref.kind], **live},
            image=self._service.image,
            container=self._service.deploy.container,
            where=str(ref),
        )
        patch = image_patch(
            live, dict.fromkeys(containers, image.pinned), present_on_node=not image.digest
        )
        result = live
        in_place = self._ready_for(ref, live, containers, image, cancel)
        strategy = self._patched_fast(live, ref)
        if patch is not None or in_place is not None or strategy:
            self._warn_gitops(live, ref, reporter)
            self._record(live)
            changes = patch or {}
            if strategy:
                changes = {"spec": {**changes.get("spec", {}), **strategy}}
            try:
                if in_place is not None:
                    hold = partial(
                        patch_images, self._connection, ref, with_hold(changes), uid=uid_of(live)
                    )
                    result = self._begin(in_place, live, containers, image, hold)
                else:
                    result = patch_images(self._connection, ref, changes, uid=uid_of(live))
                    result = self._let_go(result)
                    self._outdated = ""
            except Recreated:
                live = read(self._connection, workload_path(ref))
                return self._patch(image, reporter, ref, live, cancel)
            self._last = result
        return self._deployed(
            ref,
            image,
            containers,
            result,
            before=live,
            changed=patch is not None or in_place is not None,
        )

    def _warn_gitops(self, live: Mapping[str, Any], ref: WorkloadRef, reporter: Reporter) -> None:
        manager = gitops_manager(live)
        if manager is None or self._warned:
            return
        self._warned = True
        reporter.diagnostic(
            Diagnosis(
                code=Code.CLUSTER_CONFLICT,
                severity="warning",
                message=f"{manager} manages {ref} and may put its own image back",
                suggestions=(f"pause {manager} for it while you work",),
            )
        )

    # --- what both need ------------------------------------------------------------------------

    def _live(self, ref: WorkloadRef) -> Mapping[str, Any] | None:
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
        return read(self._connection, workload_path(ref))

    def _record(self, live: Mapping[str, Any]) -> None:
        kinds = WORKLOAD_KINDS.values()
        if live.get("kind") in kinds and not created_by(live):
            write_before(self._shared.project.state_dir, self._connection.context, live)

    def _refuse_paused(
        self, live: Mapping[str, Any] | None, wanted: Mapping[str, Any], ref: WorkloadRef
    ) -> None:
        """A paused Deployment takes a new image and rolls nothing out."""
        paused = (
            dig(live, "spec", "paused") is True
            and dig(wanted, "spec", "paused") is None
            and not held(live)
        )
        if paused or dig(wanted, "spec", "paused") is True:
            raise DevloopError.of(
                Code.CLUSTER_PAUSED,
                f"{ref} is paused: it would not roll anything out",
                cause="spec.paused is true",
                suggestions=(f"kubectl -n {ref.namespace} rollout resume {ref}",),
            )

    def _deployed(
        self,
        ref: WorkloadRef,
        image: ImageRef,
        containers: tuple[str, ...],
        result: Mapping[str, Any],
        *,
        before: Mapping[str, Any] | None,
        changed: bool,
    ) -> Deployed:
        had = images_of(before) if before is not None else {}
        previous = {
            name: self._proven.get(name, had[name]) if had[name] in self._unproven else had[name]
            for name in containers
            if had.get(name) not in {None, image.pinned}
        }
        return Deployed(
            workload=ref,
            uid=uid_of(result),
            generation=_generation(result),
            image=image,
            containers=containers,
            changed=changed,
            alone=self._alone,
            previous=MappingProxyType(previous),
        )


def _generation(thing: Mapping[str, Any]) -> int:
    return number(metadata(thing).get("generation"))


def _short(image: str) -> str:
    """As `ImageRef.short` shows it; an image without a digest as it is."""
    _, _, digest = image.rpartition("@sha256:")
    return digest[:6] if digest != image else image
