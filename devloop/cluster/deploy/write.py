"""What is written to get an image served: a manifest that is applied, or a patch of the image.

How pods come to run it is `replace`'s, which calls these.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.cluster.api.pod_view import Json, dig, uid_of
from devloop.cluster.deploy.apply import read
from devloop.cluster.deploy.ownership import same_but_images
from devloop.cluster.deploy.patch import image_patch, patch_images
from devloop.cluster.deploy.recover import restore_strategy
from devloop.cluster.replace.fast import is_fast, with_fast_strategy
from devloop.cluster.replace.pause import with_pause
from devloop.cluster.replace.recovery_log import RecoveryEntry
from devloop.cluster.replace.strategy import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.apply import Applier
    from devloop.cluster.deploy.objects import PlannedObject
    from devloop.cluster.replace.recovery_log import RecoveryLog
    from devloop.errors import Diagnosis
    from devloop.model import WorkloadRef


class ManifestApply:
    """The workload's manifest `own`, with its images, is applied. `before` is called with the live
    object before the first write to one that devloop did not create."""

    def __init__(
        self,
        applier: Applier,
        own: PlannedObject,
        live: Json | None,
        containers: tuple[str, ...],
        *,
        notify: Callable[[Diagnosis], None],
        cancel: Cancel,
        before: Callable[[Json], None],
    ) -> None:
        self._applier = applier
        self._own = own
        self._live = live
        self._containers = containers
        self._notify = notify
        self._cancel = cancel
        self._before = before

    def other_changes(self) -> str:
        project = self._applier.project
        same = self._live is None or same_but_images(
            self._own.object, self._live, self._containers, project
        )
        return "" if same else "its manifest changed"

    def plain(self) -> Written:
        return self._apply(self._own)

    def fast(self) -> Written:
        return self._apply(replace(self._own, object=with_fast_strategy(self._own.object)))

    def restore_strategy(self) -> Callable[[], None] | None:
        return partial(_apply_plain, self._applier, self._own)

    def paused(self) -> Json:
        live = self._live or {}
        self._before(live)
        return self._applier.apply_paused(self._own, live, self._notify, self._cancel)

    def _apply(self, planned: PlannedObject) -> Written:
        done = self._applier.apply(
            planned, self._notify, self._cancel, live=self._live, before=self._before
        )
        return Written(object=done.object, changed=done.written, created=done.created)


def _apply_plain(applier: Applier, own: PlannedObject) -> None:
    live = read(applier.connection, own.path)
    if live is not None and is_fast(live):
        applier.apply(own, lambda _: None, Cancel(), live=live)


class ImagePatch:
    """`images` (container -> image) are patched, and nothing else; `present_on_node`: they are in
    no registry. `before` is called with the live object before each write. Raises `Recreated` when
    `live` is not the workload any more."""

    def __init__(
        self,
        connection: Connection,
        recovery_log: RecoveryLog,
        ref: WorkloadRef,
        live: Json,
        images: Mapping[str, str],
        *,
        present_on_node: bool,
        before: Callable[[Json], None],
    ) -> None:
        self._connection = connection
        self._recovery_log = recovery_log
        self._ref = ref
        self._live = live
        self._before = before
        self._patch = image_patch(live, images, present_on_node=present_on_node)

    def other_changes(self) -> str:
        return ""

    def plain(self) -> Written:
        if self._patch is None:
            return Written(object=self._live, changed=False)
        return Written(object=self._send(self._patch))

    def fast(self) -> Written:
        if not self._slower:
            return self.plain()
        patch = self._patch or {}
        strategy = with_fast_strategy(self._live)["spec"]["strategy"]
        body = {**patch, "spec": {**patch.get("spec", {}), "strategy": strategy}}
        return Written(object=self._send(body), changed=self._patch is not None)

    def restore_strategy(self) -> Callable[[], None] | None:
        if not self._slower:
            return None
        entry = RecoveryEntry(
            strategy="fast",
            context=self._connection.context,
            namespace=self._ref.namespace,
            name=self._ref.name,
            uid=uid_of(self._live),
            update_strategy=dig(self._live, "spec", "strategy") or {},
        )
        self._recovery_log.write(entry)
        return partial(restore_strategy, self._connection, self._recovery_log, entry)

    def paused(self) -> Json:
        return self._send(with_pause(self._patch or {}))

    @property
    def _slower(self) -> bool:
        """Whether there is an update strategy to change for `fast`."""
        return not is_fast(self._live) and with_fast_strategy(self._live) != self._live

    def _send(self, body: Json) -> Json:
        self._before(self._live)
        return patch_images(self._connection, self._ref, body, uid=uid_of(self._live))
