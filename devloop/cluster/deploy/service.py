"""One service's `Deployer`: its manifests applied, its image brought into each of its workloads,
all of them followed together.

What is written of one workload, and how its pods are replaced, is `workload`'s; what services share
is handed in, see `deployments`.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.cluster.api.kinds import WORKLOADS, workload_path
from devloop.cluster.api.pod_view import generation_of, images_of
from devloop.cluster.deploy.chart_hooks import ChartHooks, hooks_for
from devloop.cluster.deploy.check import refuse_protected
from devloop.cluster.deploy.config_reads import config_hashes, mark_templates, merged, reads_more
from devloop.cluster.deploy.image_owners import containers_of
from devloop.cluster.deploy.missing import MissingObject, await_object
from devloop.cluster.deploy.objects import (
    DeployPlan,
    PlannedWorkload,
    defined_kinds,
    no_manifest_uses,
    plan_objects,
    workloads_of,
)
from devloop.cluster.deploy.own_workloads import own_workloads, patched
from devloop.cluster.deploy.recreate import recreate, staying, uids_of
from devloop.cluster.deploy.released import as_released, pins_of
from devloop.cluster.deploy.workload import WorkloadDeployer, keep_workload, refuse_paused
from devloop.cluster.rollout.handover import PodsReplaced
from devloop.cluster.rollout.rollout import Rollout
from devloop.cluster.rollout.run import Run
from devloop.cluster.rollout.together import await_recovery, follow_together
from devloop.engine.ports import ImagesMissing
from devloop.errors import Code, DevloopError
from devloop.model import Deployed, Served, Standing, Step, StepOutcome, WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.kinds import Resource
    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.deploy.deployments import Deployments
    from devloop.cluster.deploy.objects import PlannedHook, PlannedObject
    from devloop.config.schema import Service
    from devloop.engine.ports import Reporter
    from devloop.errors import Diagnosis
    from devloop.model import DeployedWorkload, ImageRef, ManifestObject, ReplacedBy


_LOG = logging.getLogger(__name__)


class ServiceDeployer:
    """One service's `Deployer` (see engine.ports). Made by `Deployments.deployer`."""

    def __init__(self, service: Service, shared: Deployments) -> None:
        self.name = service.name
        self._service = service
        self._shared = shared
        self._rendering = shared.renderings.get(service.name)
        deploy = service.deploy
        auto: ReplacedBy = "in-place" if shared.in_place_by_default else "rolling"
        # An image that is deployed has not gone hot.
        ways: dict[str, ReplacedBy] = {"in-place": "in-place", "rolling": "rolling", "fast": "fast"}
        self._wanted = ways.get(deploy.replace, auto)
        self._workloads: dict[WorkloadRef, WorkloadDeployer] = {}
        # Those of the last plan: what to lock before the next one is made.
        self._refs = patched(service, shared.namespace).refs
        # What stands before commands, by the image that it is in.
        self._supervisors: dict[str, tuple[str, ...]] = {}
        self._reported: set[Diagnosis] = set()
        self._releases = shared.releases(service)
        # What the releases were last upgraded with.
        self._upgraded: object = None
        # What the last deploy left alone, since it is a GitOps tool's.
        self._owned: tuple[WorkloadRef, ...] = ()
        # What the last deploy failed for the want of.
        self._missing: MissingObject | None = None
        if self._rendering is not None:
            shared.deploys(self.name, frozenset(self._refs))

    def image_built(self, image: ImageRef) -> None:
        """From now on the manifests of other services may use `image`."""
        self._shared.built(self.name, image)

    def deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        self._missing = None
        try:
            return self._deploy(image, reporter, cancel)
        except MissingObject as missing:
            self._missing = missing
            raise

    def await_cause(self, cancel: Cancel) -> str | None:
        """See engine.ports.Deployer."""
        missing = self._missing
        return await_object(self._shared.connection, missing, cancel) if missing else None

    def go_back(
        self,
        image: ImageRef,
        untouched: Collection[str] | None,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Deployed:
        """See engine.ports.Deployer. Where containers may have other files than their image has,
        all pods are new ones: in place, one that has the image already would keep them."""
        return self._deploy(image, reporter, cancel, untouched)

    def _deploy(
        self,
        image: ImageRef,
        reporter: Reporter,
        cancel: Cancel,
        untouched: Collection[str] | None = None,
    ) -> Deployed:
        # As often as somebody looks whether it may go on, no step begins.
        seen = {ref: self._of(ref).live() for ref in (*self._refs, *self._owned)}
        self._may_write(seen, reporter.diagnostic)
        reporter.started(Step.DEPLOY)
        with self._planned(image, cancel) as plan:
            self._report(plan.notes, reporter)
            if plan.missing:
                missing = ImagesMissing(sorted(plan.missing))
                reporter.finished(Step.DEPLOY, StepOutcome.SKIPPED, f"waits for {missing}")
                raise missing
            before, new_pods = frozenset[str](), untouched is not None
            if new_pods:
                before = uids_of(self._shared.view, [w.ref for w in plan.workloads], cancel)
            deployed, ways = self._written(plan, image, reporter, cancel, new_pods=new_pods)
            self._remember(image)
        detail, changed = _detail(deployed, ways), deployed.changed
        if untouched is not None and (old := self._touched(deployed, before, untouched)):
            self.recreate(deployed, old, cancel)
            said = f"new pods for {', '.join(old)}"
            detail, changed = (f"{detail}; {said}" if changed else said), True
        outcome = StepOutcome.DONE if changed else StepOutcome.SKIPPED
        reporter.finished(Step.DEPLOY, outcome, detail)
        return deployed

    def _touched(
        self, deployed: Deployed, before: Collection[str], untouched: Collection[str]
    ) -> tuple[str, ...]:
        """The pods of `before` that stay and may have other files than their image."""
        view, image = self._shared.view, deployed.image
        refs = [each.workload for each in deployed.workloads]
        stay = [staying(view, ref, self._of(ref).live(), image, before) for ref in refs]
        return tuple(name for names in stay for name in names if name not in untouched)

    def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        if not deployed.workloads:
            return Served(image=deployed.image, pods=())
        reporter.started(Step.ROLLOUT)
        try:
            served, detail = follow_together(
                list(map(self._rollout, deployed.workloads)), reporter, cancel
            )
        except Cancelled:
            for each in deployed.workloads:
                self._of(each.workload).hooks.superseded(each)
            raise
        except BaseException:
            for each in deployed.workloads:
                # What is wrong with the rollout is what counts; the recovery log keeps the rest.
                try:
                    self._of(each.workload).hooks.failed(each)
                except DevloopError as error:
                    _LOG.warning("%s is left as it is for now: %s", each.workload, error)
            raise
        for each in deployed.workloads:
            self._of(each.workload).served(each)
        reporter.finished(Step.ROLLOUT, StepOutcome.DONE, detail)
        if deployed.changed:
            refs = frozenset(e.workload for e in deployed.workloads if e.workload.serves)
            self._shared.replaced[self.name] = PodsReplaced(
                service=self.name, workloads=refs, pods=frozenset(served.pods)
            )
        if self._rendering is not None:
            runs = [each.workload for each in deployed.workloads]
            self._shared.left_overs.remove(self.name, runs, reporter.diagnostic, cancel)
        return served

    def await_recovery(self, deployed: Deployed, cancel: Cancel) -> Served:
        served = await_recovery(list(map(self._rollout, deployed.workloads)), cancel)
        for each in deployed.workloads:
            self._of(each.workload).served(each)
        return served

    def rollback(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> None:
        """Put back what the workloads had before, unless they have moved on since."""
        if not deployed.can_roll_back:
            return
        reporter.started(Step.DEPLOY)
        done = [
            self._of(each.workload).rollback(each, self._supervisors, cancel)
            for each in deployed.workloads
            if each.previous
        ]
        detail = ", ".join(filter(None, done)) or "nothing to put back"
        reporter.finished(Step.DEPLOY, StepOutcome.DONE, detail)

    def adopt(self, image: ImageRef, cancel: Cancel) -> str | None:
        """Bring Deployments and ReplicaSets to the image and leave the pods as they run; None when
        it is so, else why it cannot be."""
        if self._wanted != "in-place":
            return f"deploy.replace is {self._service.deploy.replace}"
        blockers: list[str] = []
        with self._planned(image, cancel) as plan:
            if (owned := self._blocker(w.ref for w in plan.workloads)) is not None:
                return owned
            for planned in plan.workloads:
                wrote, blocker = self._of(planned.ref).adopt(planned, image, cancel)
                if wrote:
                    self._remember(image)
                if blocker is not None:
                    one = len(plan.workloads) == 1
                    blockers.append(blocker if one else f"{planned.ref}: {blocker}")
        return ", ".join(blockers) or None

    def standing(self, images: Mapping[str, ImageRef], cancel: Cancel) -> Standing | str:
        """See engine.ports.Deployer."""
        known = {image.pinned: image for image in images.values()}
        live = self._of(self._refs[0]).live() if self._refs else None
        if live is None:
            return ""
        if (owned := self._blocker(self._refs)) is not None:
            return owned
        image = next((known[i] for i in images_of(live).values() if i in known), None)
        if image is None:
            return f"{self._refs[0]} has an image that is not of an earlier session"
        pods: list[str] = []
        with self._planned(image, cancel) as plan:
            if plan.missing or plan.uses or not plan.workloads:
                return "its manifests run the images of other services"
            own = {id(planned.own) for planned in plan.workloads}
            for planned in plan.workloads:
                found = self._of(planned.ref).standing(planned, image, cancel)
                if isinstance(found, str):
                    return found
                pods += found
            for other in plan.objects:
                if id(other) not in own and not self._shared.applier.has(other):
                    return f"{other} changed"
            self._shared.deploys(self.name, workloads_of(plan.objects))
            self._remember(image)
        return Standing(image=image, pods=tuple(pods))

    def _blocker(self, refs: Iterable[WorkloadRef]) -> str | None:
        """Why none of these is written now, where a GitOps tool owns one."""
        try:
            self._shared.gitops.check((self._of(r).live() for r in refs), self._shared.notify)
        except DevloopError as error:
            if error.code is not Code.SAFETY_GITOPS_OWNED:
                raise
            return error.diagnosis.message
        return None

    def recreate(self, deployed: Deployed, pods: Sequence[str], cancel: Cancel) -> None:
        """See engine.ports.Deployer."""
        for namespace in {each.workload.namespace for each in deployed.workloads}:
            recreate(self._shared.connection, self._shared.view, namespace, pods, cancel)

    def close(self, cancel: Cancel) -> None:
        """The end of the session: nothing is left half done, as far as the cluster is reached."""
        for workload in tuple(self._workloads.values()):
            workload.close(cancel)

    # --- what is written -----------------------------------------------------------------------

    def _written(
        self,
        plan: DeployPlan,
        image: ImageRef,
        reporter: Reporter,
        cancel: Cancel,
        *,
        new_pods: bool,
    ) -> tuple[Deployed, dict[WorkloadRef, str]]:
        """Returns, too, a few words for each workload on how its pods come to run the image."""
        for planned in (*plan.objects, *plan.released, *(each.planned for each in plan.hooks)):
            refuse_protected(planned, self._shared.project.allow_namespaces)
        self._shared.deploys(self.name, workloads_of(plan.objects))
        if self._rendering is not None:
            self._shared.applied.about_to_apply(self.name, plan.objects)
        live = {w.ref: self._of(w.ref).live() for w in plan.workloads}
        self._may_write(live, reporter.diagnostic)
        before = self._upgrade(plan, live, cancel) if plan.released else {}
        live |= {ref: self._shared.connection.find(workload_path(ref)) for ref in before}
        for each in plan.workloads:
            missing = each.own is None and live[each.ref] is None
            if missing and any(any(containers_of(p.object)) for p in plan.objects):
                raise no_manifest_uses(self._service, each.ref, plan.objects)
        for each in plan.workloads:
            refuse_paused(live[each.ref], each.own.object if each.own else {}, each.ref)
        hooks = ChartHooks(applier=self._shared.applier, timeout=self._service.deploy.timeout)
        due = self._hooks_due(plan)
        first = not any(live.values())
        hooks.run(hooks_for(due, "before", first=first), reporter, cancel)
        written = False
        done: dict[WorkloadRef, tuple[DeployedWorkload, str]] = {}
        for one in self._in_order(plan):
            cancel.check()
            if isinstance(one, PlannedWorkload):
                workload = self._of(one.ref)
                done[one.ref] = workload.deploy(
                    one, live[one.ref], image, reporter, cancel, new_pods=new_pods
                )
                written = written or done[one.ref][0].changed
            else:
                written = self._apply(one, reporter, cancel) or written
        hooks.run(hooks_for(due, "after", first=first), reporter, cancel)
        deployed = tuple(
            _since(before[each.ref], live[each.ref], done[each.ref][0])
            if each.ref in before
            else done[each.ref][0]
            for each in plan.workloads
        )
        written = written or any(each.changed for each in deployed)
        ways = {ref: how for ref, (_, how) in done.items()}
        whole = Deployed(image=image, workloads=deployed, changed=written, uses=plan.uses)
        return whole, ways

    def _may_write(
        self, live: Mapping[WorkloadRef, Json | None], notify: Callable[[Diagnosis], None]
    ) -> None:
        """Raises safety/gitops-owned where a GitOps tool owns one of them."""
        try:
            self._shared.gitops.check(live.values(), notify)
        except DevloopError as error:
            if error.code is Code.SAFETY_GITOPS_OWNED:
                self._owned = tuple(live)
            raise
        self._owned = ()

    def _upgrade(
        self, plan: DeployPlan, live: Mapping[WorkloadRef, Json | None], cancel: Cancel
    ) -> dict[WorkloadRef, Json | None]:
        """The workloads as they were before the releases were upgraded, where that was needed."""
        pins = pins_of(plan)
        wanted = (plan.released, pins)
        if wanted != self._upgraded or not all(live.values()):
            for thing in filter(None, live.values()):
                keep_workload(self._shared, thing)
            for release in self._releases:
                release.upgrade(pins, timeout=self._service.deploy.timeout, cancel=cancel)
            self._upgraded = wanted
            return dict(live)
        return {}

    def _hooks_due(self, plan: DeployPlan) -> tuple[PlannedHook, ...]:
        """The chart's hooks, unless nothing is to change, or another service with the same chart
        runs them."""
        renderings = self._shared.renderings
        same = (name for name, other in renderings.items() if other == self._rendering)
        if not plan.hooks or next(same, self.name) != self.name:
            return ()
        return () if all(map(self._shared.applier.has, plan.objects)) else plan.hooks

    def _in_order(self, plan: DeployPlan) -> Sequence[PlannedObject | PlannedWorkload]:
        """What to write, first to last: the plan's order, but the workloads first if they alone
        can have changed, since nothing they need is looked at again then but to see that it is
        still there."""
        own = {id(w.own): w for w in plan.workloads if w.own is not None}
        patched = [w for w in plan.workloads if w.own is None]
        rest = [planned for planned in plan.objects if id(planned) not in own]
        if own and all(map(self._shared.applier.believes, rest)):
            return [*own.values(), *patched, *rest]
        return [*(own.get(id(planned), planned) for planned in plan.objects), *patched]

    def _apply(self, planned: PlannedObject, reporter: Reporter, cancel: Cancel) -> bool:
        """Whether anything was written."""
        applies = planned.resource.kind.lower() in WORKLOADS
        applied = self._shared.applier.apply(
            planned,
            reporter.diagnostic,
            cancel,
            before=(lambda live: keep_workload(self._shared, live)) if applies else None,
        )
        return applied.changed

    @contextlib.contextmanager
    def _planned(self, image: ImageRef, cancel: Cancel) -> Iterator[DeployPlan]:
        """The plan, with the locks of all its workloads held since before it was made: what another
        service writes into one of them meanwhile would be lost."""
        while True:
            with contextlib.ExitStack() as stack:
                for lock in self._shared.locks(self._refs):
                    stack.enter_context(lock.acquired(cancel))
                plan = self._plan(image, cancel)
                found = tuple(planned.ref for planned in plan.workloads)
                known, self._refs = self._refs, found
                if set(found) <= set(known):
                    yield plan
                    return

    def _plan(self, image: ImageRef, cancel: Cancel) -> DeployPlan:
        shared = self._shared
        if self._rendering is None:
            refs = patched(self._service, shared.namespace).refs
            if self._only_in_others(refs[0]):
                refs = ()
            shared.runs(self.name, refs)
            return DeployPlan(objects=(), workloads=tuple(PlannedWorkload(ref=ref) for ref in refs))
        notes: list[Diagnosis] = []
        manifests = self._rendering.objects(cancel, notes.append)
        defined = defined_kinds(manifests)

        def resource_of(manifest: ManifestObject) -> Resource:
            version, kind = manifest.key[:2]
            known = defined.get((version, kind))
            return known or shared.discovery.resource(version, kind, manifest.at("kind"))

        own = own_workloads(
            manifests,
            self._service,
            shared.project.services,
            namespace=shared.namespace,
            registry=image.repository.removesuffix(self._service.image),
            holds=partial(shared.holds, self._rendering),
            resource_of=resource_of,
        )
        shared.runs(self.name, own.refs)
        plan = plan_objects(
            manifests,
            self._service,
            image,
            own=own,
            namespace=shared.namespace,
            services=shared.project.services,
            pinned=shared.pinned(),
            resource_of=shared.discovery.resource,
            live_image=self._live_image,
            awaited=shared.awaited(),
        )
        hashes = config_hashes(plan.objects)
        if reads_more(plan.objects, hashes):
            hashes = merged(shared.configs.beside(self.name), hashes)
        mark_templates(plan.objects, hashes)
        plan = replace(plan, notes=(*notes, *plan.notes))
        plan = as_released(plan) if self._releases else plan
        workloads = (w if w.own is not None else replace(w, configs=hashes) for w in plan.workloads)
        return replace(plan, workloads=tuple(workloads))

    def _only_in_others(self, ref: WorkloadRef) -> bool:
        """Whether the image runs in the workloads of other services only, or in none: it is there
        for their builds."""
        shared = self._shared
        default = self._service.deploy.workload_default
        elsewhere = default and (
            shared.project.only_built(self.name) or shared.runs_elsewhere(self.name)
        )
        return elsewhere and self._of(ref).live() is None

    def _report(self, notes: Iterable[Diagnosis], reporter: Reporter) -> None:
        """What the manifests have is said once, however often they are applied."""
        for note in notes:
            if note not in self._reported:
                self._reported.add(note)
                reporter.diagnostic(note)

    def _live_image(self, kind: str, namespace: str, name: str, container: str) -> str | None:
        if kind.lower() not in WORKLOADS:
            return None
        path = workload_path(WorkloadRef(kind.lower(), name, namespace))
        return images_of(self._shared.connection.find(path) or {}).get(container)

    # --- what is known -------------------------------------------------------------------------

    def _of(self, ref: WorkloadRef) -> WorkloadDeployer:
        if ref not in self._workloads:
            made = WorkloadDeployer(self._service, self._shared, ref, self._wanted)
            self._workloads[ref] = made
        return self._workloads[ref]

    def _rollout(self, deployed: DeployedWorkload) -> Rollout | Run:
        if deployed.workload.api or deployed.workload.kind in {"job", "cronjob", "pod"}:
            return Run(
                self._shared.connection,
                self._shared.view,
                deployed,
                timeout=self._service.deploy.timeout,
                project_paths=self._shared.project_paths.get(self.name),
            )
        return Rollout(
            self._shared.connection,
            self._shared.view,
            deployed,
            timeout=self._service.deploy.timeout,
            hooks=self._of(deployed.workload).hooks,
            project_paths=self._shared.project_paths.get(self.name),
            others=partial(self._shared.others, deployed.workload),
            halted=partial(self._shared.attached, self.name),
        )

    def _remember(self, image: ImageRef) -> None:
        self._shared.remember(self.name, image)
        self._supervisors[image.pinned] = image.supervisor


def _since(before: Json | None, live: Json | None, done: DeployedWorkload) -> DeployedWorkload:
    """What came of a workload that a release wrote: `before` is it as it was."""
    had = images_of(before or {})
    same = before is not None and generation_of(before) == done.generation
    if same or live is None:
        return done
    previous = {
        name: had[name]
        for name in done.containers
        if had.get(name) not in {None, done.image.pinned}
    }
    return replace(done, changed=True, previous=previous)


def _detail(deployed: Deployed, ways: dict[WorkloadRef, str]) -> str:
    """`deployment/web -> 0a1b2c, in place`."""
    if not deployed.workloads and not deployed.changed:
        return "nothing of it runs by itself"
    if not deployed.changed:
        return "nothing to change"
    refs = [each.workload for each in deployed.workloads if each.changed]
    refs = refs or [deployed.picked.workload]
    groups = groupby(refs, key=ways.__getitem__)
    return "; ".join(
        f"{', '.join(map(str, same))} -> {deployed.image.short}{how}" for how, same in groups
    )
