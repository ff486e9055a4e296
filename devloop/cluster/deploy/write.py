"""What is written to get an image served: a manifest that is applied, or a patch of the image.

How pods come to run it is `replace`'s, which calls these; which containers get the image is
`objects`'. The patch is a strategic merge patch, which names containers, so that it neither resets
nor reorders anything else.
"""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.base.supervisor import is_debugged, under
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import (
    Json,
    dig,
    items,
    metadata,
    name_of,
    template_path,
    text,
    uid_of,
)
from devloop.cluster.api.writes import patch_as_devloop
from devloop.cluster.deploy.config_reads import READS, changed_reads, reads_in
from devloop.cluster.deploy.missing import MissingObject
from devloop.cluster.deploy.ownership import same_but_images
from devloop.cluster.deploy.probes import impatient, patient
from devloop.cluster.replace.pause import with_pause
from devloop.cluster.replace.recovery_log import RecoveryEntry
from devloop.cluster.replace.rolling import is_fast, restore_strategy, with_fast_strategy
from devloop.cluster.replace.strategy import Written
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.apply import Applier
    from devloop.cluster.deploy.objects import PlannedObject
    from devloop.cluster.replace.recovery_log import RecoveryLog
    from devloop.model import WorkloadRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestApply:
    """The workload's manifest `own`, with its images, is applied. `before` is called with the live
    object before the first write to one that devloop did not create."""

    applier: Applier
    own: PlannedObject
    live: Json | None
    containers: tuple[str, ...]
    notify: Callable[[Diagnosis], None]
    cancel: Cancel
    before: Callable[[Json], None]

    def other_changes(self) -> str:
        same = self.live is None or same_but_images(
            self.own.object, self.live, self.containers, self.applier.project
        )
        changed = changed_reads(self.live, reads_in(self.own.object))
        return "" if same else f"{changed or 'its manifest'} changed"

    def plain(self) -> Written:
        return self._apply(self.own)

    def fast(self) -> Written:
        return self._apply(replace(self.own, object=with_fast_strategy(self.own.object)))

    def restore_strategy(self) -> Callable[[], None] | None:
        return partial(_apply_plain, self.applier, self.own)

    def paused(self) -> Json:
        live = self.live or {}
        self.before(live)
        return self.applier.apply_paused(self.own, live, self.notify, self.cancel)

    def _apply(self, planned: PlannedObject) -> Written:
        return self.applier.apply(
            planned, self.notify, self.cancel, live=self.live, before=self.before
        )


def _apply_plain(applier: Applier, own: PlannedObject) -> None:
    live = applier.connection.find(own.path)
    if live is not None and is_fast(live):
        applier.apply(own, lambda _: None, Cancel(), live=live)


class Recreated(Exception):  # noqa: N818 - not an error: look again
    """The workload was deleted, and maybe recreated, between the look and the patch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePatch:
    """`images` (container -> image) are patched, and nothing else but their command, if they have
    one, which is under `supervisor` then, and how long their probes wait while they are debugged;
    after that it is as in `original`, the containers of before devloop by name. `present_on_node`:
    they are in no registry. `reads` is the template's annotation, see `config_reads`, "" for none.
    `before` is called with the live object before each write. Raises `Recreated` when `live` is not
    the workload any more."""

    connection: Connection
    recovery_log: RecoveryLog
    ref: WorkloadRef
    live: Json
    images: Mapping[str, str]
    supervisor: Sequence[str] = ()
    original: Mapping[str, Json] = field(default_factory=dict)
    present_on_node: bool = False
    reads: str = ""
    before: Callable[[Json], None] = lambda _: None

    def other_changes(self) -> str:
        template = dig(self._patch(), *template_path(self.live)[:-1]) or {}
        if "metadata" in template:
            return f"{changed_reads(self.live, self.reads) or 'what its pods read'} changed"
        changes = [change for found in template.get("spec", {}).values() for change in found]
        if any("command" in change for change in changes):
            return "its command comes under another supervisor"
        probes = any(key.endswith("Probe") for change in changes for key in change)
        return "its probes wait for a debugger, or no longer do" if probes else ""

    def plain(self) -> Written:
        if not (patch := self._patch()):
            return Written(object=self.live, changed=False)
        return Written(object=self._send(patch))

    def fast(self) -> Written:
        if not self._slower:
            return self.plain()
        patch = self._patch()
        strategy = with_fast_strategy(self.live)["spec"]["strategy"]
        body = {"spec": {**(dig(patch, "spec") or {}), "strategy": strategy}}
        return Written(object=self._send(body), changed=bool(patch))

    def restore_strategy(self) -> Callable[[], None] | None:
        if not self._slower:
            return None
        entry = RecoveryEntry(
            strategy="fast",
            context=self.connection.context,
            namespace=self.ref.namespace,
            name=self.ref.name,
            uid=uid_of(self.live),
            update_strategy=dig(self.live, "spec", "strategy") or {},
        )
        self.recovery_log.write(entry)
        return partial(restore_strategy, self.connection, self.recovery_log, entry)

    def paused(self) -> Json:
        return self._send(with_pause(self._patch()))

    @property
    def _slower(self) -> bool:
        """Whether there is an update strategy to change for `fast`."""
        return not is_fast(self.live) and with_fast_strategy(self.live) != self.live

    def _patch(self) -> dict[str, Any]:
        """What gives the containers their images; empty when they have them."""
        spec: dict[str, list[dict[str, Any]]] = {}
        for key in ("initContainers", "containers"):
            for container in items(dig(self.live, *template_path(self.live), key)):
                name = text(container.get("name"))
                if name not in self.images:
                    continue
                change: dict[str, Any] = {}
                if container.get("image") != self.images[name]:
                    change["image"] = self.images[name]
                # `Always` would look for it in a registry, `Never` would not.
                wrong = "Always" if self.present_on_node else "Never"
                if container.get("imagePullPolicy") == wrong:
                    change["imagePullPolicy"] = "IfNotPresent"
                command = container.get("command") or []
                if (wanted := under(command, self.supervisor)) != command:
                    change["command"] = wanted
                if is_debugged(self.supervisor):
                    change |= patient(container)
                else:
                    change |= impatient(container, self.original.get(name, {}))
                if change:
                    spec.setdefault(key, []).append({"name": name, **change})
        template: dict[str, Any] = {"spec": spec} if spec else {}
        if self.reads and self.reads != reads_in(self.live):
            template["metadata"] = {"annotations": {READS: self.reads}}
        patch = template
        for part in reversed(template_path(self.live)[:-1]):
            patch = {part: patch}
        return patch if template else {}

    def _send(self, patch: Json) -> Json:
        self.before(self.live)
        body = {**patch, "metadata": {**metadata(patch), "uid": uid_of(self.live)}}
        result = patch_as_devloop(self.connection, workload_path(self.ref), body)
        if result is None:
            raise Recreated
        return result


def missing_workload(connection: Connection, ref: WorkloadRef) -> MissingObject:
    """cluster/not-found that names what there is of that kind in the namespace."""
    names: list[str] = []
    with contextlib.suppress(DevloopError):  # the answer is a help only
        listing = connection.request("GET", workload_path(ref).rpartition("/")[0])
        names = sorted(name_of(item) for item in items(listing.get("items")))
    near = difflib.get_close_matches(ref.name, names, n=1)
    diagnosis = Diagnosis(
        code=Code.CLUSTER_NOT_FOUND,
        message=f"{ref} does not exist in namespace {ref.namespace!r}",
        cause=f"there: {', '.join(names[:10])}" if names else f"there is no {ref.kind} at all",
        suggestions=(
            *(f"did you mean {ref.kind}/{name}?" for name in near),
            "give the manifests that make it: `deploy.manifests` in devloop.yaml",
        ),
    )
    return MissingObject(diagnosis, path=workload_path(ref), what=str(ref))
