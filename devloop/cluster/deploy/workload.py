"""One workload of one service: written and handed to how it is replaced; what is known of it from
iteration to iteration.

The thin shell around the decisions, which live in `objects`, `ownership` and `replace`. Which
workloads a service has is `service`'s; waiting is `rollout`'s.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.base.supervisor import is_debugged
from devloop.cluster.api.kinds import WORKLOADS, workload_path
from devloop.cluster.api.pod_view import (
    Json,
    dig,
    generation_of,
    images_of,
    items,
    template_path,
    text,
    uid_of,
)
from devloop.cluster.deploy.config_reads import changed_reads, reads_in, reads_of
from devloop.cluster.deploy.objects import pick_container
from devloop.cluster.deploy.original import keep_original, original_of
from devloop.cluster.deploy.ownership import created_by, gitops_manager
from devloop.cluster.deploy.probes import waits
from devloop.cluster.deploy.standing import standing_pods
from devloop.cluster.deploy.write import ImagePatch, ManifestApply, Recreated, missing_workload
from devloop.cluster.replace.live_objects import LiveObjects
from devloop.cluster.replace.pause import paused_by_devloop
from devloop.cluster.replace.policy import order_for
from devloop.cluster.replace.strategy import Change
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import DeployedWorkload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.base.cancel import Cancel
    from devloop.cluster.deploy.deployments import Deployments
    from devloop.cluster.deploy.objects import PlannedWorkload
    from devloop.cluster.replace.policy import ReplacementPolicy
    from devloop.cluster.replace.strategy import Replaced, Replacement, Write
    from devloop.config.schema import Service
    from devloop.engine.ports import Reporter
    from devloop.model import ImageRef, ReplacedBy, WorkloadRef


class WorkloadDeployer:
    """Gets a service's image into `ref`. `wanted` is how, where nothing speaks against it.

    `deploy` and `adopt` are called with the workload's lock held, `rollback` without."""

    def __init__(
        self, service: Service, shared: Deployments, ref: WorkloadRef, wanted: ReplacedBy
    ) -> None:
        self.ref = ref
        self._service = service
        self._shared = shared
        self._connection = shared.connection
        self._lock = shared.lock(ref)
        self._policy: ReplacementPolicy = order_for(
            wanted,
            ref,
            connection=shared.connection,
            view=shared.view,
            lock=self._lock,
            in_place=shared.in_place,
        )
        self._last: Json | None = None
        self._warned = False
        # Images that this session wrote and never saw served, and the last that it did see.
        self._unproven: set[str] = set()
        self._proven: dict[str, str] = {}

    @property
    def hooks(self) -> Replacement:
        """What goes along with its rollouts."""
        return self._policy.hooks

    def deploy(
        self,
        planned: PlannedWorkload,
        live: Json | None,
        image: ImageRef,
        reporter: Reporter,
        cancel: Cancel,
        *,
        new_pods: bool = False,
    ) -> tuple[DeployedWorkload, str]:
        """Write it and return at once, with a few words on how pods come to run the image. `live`
        is the workload as it is; `new_pods`: none is to get the image in place. Errors: cluster/*,
        config/*."""
        replaced: tuple[Change, Replaced, str] | None = None
        while replaced is None:
            cancel.check()
            change = self._change(planned, live, image, reporter, cancel)
            try:
                replaced = (change, *self._policy.replace(change, cancel, new_pods=new_pods))
            except Recreated:
                live = self._connection.find(workload_path(self.ref))
        change, done, how = replaced
        self._left_as(done.written.object)
        if done.written.changed and (
            changed := changed_reads(change.live, reads_in(done.written.object))
        ):
            how = f", {changed} changed: new pods"
        deployed = self._deployed(change, done)
        if deployed.changed:
            self._unproven.add(image.pinned)
        return deployed, how

    def served(self, deployed: DeployedWorkload) -> None:
        """Its rollout came to its end."""
        self.hooks.ready(deployed)
        pinned = deployed.image.pinned
        self._unproven.discard(pinned)
        self._proven.update(dict.fromkeys(deployed.containers, pinned))

    def rollback(
        self,
        deployed: DeployedWorkload,
        supervisors: Mapping[str, tuple[str, ...]],
        cancel: Cancel,
    ) -> str:
        """Put `deployed.previous` back, unless the workload has moved on since; `supervisors` are
        by image. Returns what was put back, "" for nothing."""
        with self._lock.acquired(cancel):
            live = self._connection.find(workload_path(self.ref))
            if live is None or uid_of(live) != deployed.uid:
                return ""
            now = images_of(live)
            back = {
                name: before
                for name, before in deployed.previous.items()
                if now.get(name) == deployed.image.pinned
            }
            if not back:
                return ""
            found = {supervisors.get(image, ()) for image in back.values()}
            supervisor = found.pop() if len(found) == 1 else ()
            write = replace(self._image_patch(live, back), supervisor=supervisor)
            with contextlib.suppress(Recreated):
                left = write.plain().object
                self._left_as(left)
                self.hooks.rolled_back(left, back)
            return f"{self.ref} -> {', '.join(sorted({_short(i) for i in back.values()}))}"

    def adopt(
        self, planned: PlannedWorkload, image: ImageRef, cancel: Cancel
    ) -> tuple[bool, str | None]:
        """Bring Deployment and ReplicaSet to the image and leave the pods as they run. Whether
        anything was written, and why it is not so; None when it is."""
        ref, live = self.ref, self.live()
        if ref.kind == "job":
            return False, None  # the next deploy makes it again
        if ref.kind == "cronjob" and live is not None:
            deployed, _ = self.deploy(planned, live, image, SilentReporter(), cancel)
            return deployed.changed, None
        if live is None or ref.kind != "deployment":
            return False, f"{ref} is not there" if live is None else f"a {ref.kind}"
        if dig(live, "spec", "paused") is True and not paused_by_devloop(live):
            return False, f"{ref} is paused"
        change = self._change(planned, live, image, SilentReporter(), cancel)
        if not change.image_differs and not paused_by_devloop(live):
            return False, None
        try:
            result, blocker = self._shared.in_place(ref).adopt(change, cancel)
        except Recreated:
            return False, f"{ref} was recreated"
        if result is not None:
            self._left_as(result)
            self._unproven.add(image.pinned)
        return result is not None, blocker

    def standing(
        self, planned: PlannedWorkload, image: ImageRef, cancel: Cancel
    ) -> tuple[str, ...] | str:
        """The pods, where a deploy of `image` would write nothing and all of them are ready; else
        why not, in words for the user."""
        ref, live = self.ref, self.live()
        if live is None or ref.kind != "deployment":
            return f"{ref} is not there" if live is None else f"{ref}: it is no Deployment"
        change = self._change(planned, live, image, SilentReporter(), cancel)
        if change.image_differs:
            return f"{ref} has more than one image"
        if reason := change.write.other_changes():
            return reason
        if planned.own is not None and not self._shared.applier.has(planned.own, live):
            return f"{ref} changed"
        objects = LiveObjects(self._shared.view, ref)
        objects.wait_synced(cancel)
        pods = standing_pods(live, objects.replicasets(), objects.pods(), change.containers)
        if not isinstance(pods, str):
            self._left_as(live)
            self._proven.update(dict.fromkeys(change.containers, image.pinned))
        return pods

    def close(self, cancel: Cancel) -> None:
        """Nothing is left half done, as far as the cluster is reached."""
        self._policy.close(cancel)

    # --- what is written -----------------------------------------------------------------------

    def _change(
        self,
        planned: PlannedWorkload,
        live: Json | None,
        image: ImageRef,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Change:
        """Raises cluster/not-found when there is no workload to patch."""
        ref, containers = self.ref, planned.containers
        write: Write
        if planned.own is not None:
            write = ManifestApply(
                applier=self._shared.applier,
                own=planned.own,
                live=live,
                containers=containers,
                notify=reporter.diagnostic,
                cancel=cancel,
                before=self.keep_original,
            )
        elif live is None:
            raise missing_workload(self._connection, ref)
        else:
            containers = pick_container(
                {"kind": WORKLOADS[ref.kind].kind, **live},
                image=self._service.image,
                container=self._service.deploy.container,
                where=str(ref),
            )
            write = replace(
                self._image_patch(live, dict.fromkeys(containers, image.pinned)),
                supervisor=image.supervisor,
                original=self._original_probes(live, image),
                present_on_node=not image.digest,
                reads=reads_of(dig(live, "spec", "template"), ref.namespace, planned.configs),
                before=partial(self._before_patch, reporter),
            )
        return Change(
            ref=ref,
            live=live,
            containers=containers,
            image=image,
            write=write,
            insists=self._service.deploy.replace == "in-place",
        )

    def _image_patch(self, live: Json, images: Mapping[str, str]) -> ImagePatch:
        return ImagePatch(
            connection=self._connection,
            recovery_log=self._shared.recovery_log,
            ref=self.ref,
            live=live,
            images=images,
        )

    def _original_probes(self, live: Json, image: ImageRef) -> dict[str, Json]:
        """The containers as they were before devloop, where their probes may wait for a debugger
        that `image` does not have; nothing else of them is put back here."""
        spec = dig(live, *template_path(live))
        if is_debugged(image.supervisor) or not any(map(waits, items(dig(spec, "containers")))):
            return {}
        state_dir = self._shared.project.state_dir
        before = original_of(state_dir, self._connection.context, live) or {}
        found = items(dig(before, *template_path(live), "containers"))
        return {text(container.get("name")): container for container in found}

    def _before_patch(self, reporter: Reporter, live: Json) -> None:
        manager = gitops_manager(live)
        said = self._shared.gitops.knows(live)
        if manager is not None and not said and not self._warned:
            self._warned = True
            warning = Diagnosis(
                code=Code.CLUSTER_CONFLICT,
                severity="warning",
                message=f"{manager} manages {self.ref} and may put its own image back",
                suggestions=(f"pause {manager} for it while you work",),
            )
            reporter.diagnostic(warning)
        self.keep_original(live)

    def keep_original(self, live: Json) -> None:
        """Before the first write to a workload that devloop did not create."""
        if not self.ref.api:
            keep_workload(self._shared, live)
        elif not created_by(live):
            keep_original(self._shared.project.state_dir, self._connection.context, live)

    # --- what is known -------------------------------------------------------------------------

    def _left_as(self, written: Json) -> None:
        self._last = written
        if self.ref.serves:  # a Job may be removed as soon as it has ended
            self._shared.outside.wrote(self.ref, self._service.name, written)

    def live(self) -> Json | None:
        """The workload as it is: from the watch where that is up to date, else asked for."""
        view = self._shared.view.workload(self.ref)
        if view.synced.is_set() and view.error is None:
            seen = view.get(self.ref.name)
            last = self._last
            made_again = self.ref.kind in {"job", "pod"}  # by devloop itself, maybe a moment ago
            if seen is not None and (
                last is None
                or (uid_of(last) != uid_of(seen) and not made_again)
                or (uid_of(last) == uid_of(seen) and generation_of(seen) >= generation_of(last))
            ):
                return seen
        return self._connection.find(workload_path(self.ref))

    def _deployed(self, change: Change, done: Replaced) -> DeployedWorkload:
        written = done.written
        before = change.live if change.live is not None and not written.created else {}
        had = images_of(before)
        previous = {
            name: self._proven.get(name, had[name]) if had[name] in self._unproven else had[name]
            for name in change.containers
            if had.get(name) not in {None, change.image.pinned} and _goes_back(change.ref)
        }
        return DeployedWorkload(
            workload=change.ref,
            uid=uid_of(written.object),
            generation=generation_of(written.object),
            image=change.image,
            containers=change.containers,
            changed=written.changed,
            how=done.how,
            alone=done.alone,
            previous=MappingProxyType(previous),
        )


def keep_workload(shared: Deployments, live: Json) -> None:
    """Keep the original of a workload that devloop did not create."""
    if str(live.get("kind")).lower() in WORKLOADS and not created_by(live):
        keep_original(shared.project.state_dir, shared.connection.context, live)


def refuse_paused(live: Json | None, wanted: Json, ref: WorkloadRef) -> None:
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


def _goes_back(ref: WorkloadRef) -> bool:
    """Whether an image can be put back by a patch, and what runs is another then: no Job runs
    again, and only a controller knows what a custom resource's pods are made from."""
    return ref.kind != "job" and not ref.api


def _short(image: str) -> str:
    """As `ImageRef.short` shows it; an image without a digest as it is."""
    _, _, digest = image.rpartition("@sha256:")
    return digest[:6] if digest != image else image
