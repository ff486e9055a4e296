"""Write objects by server-side apply: only when something is to change, never against a controller,
and marked so that `devloop down` later knows what devloop itself made.

Shared by all services of a project. Must not know about images or services.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.connection import APPLY
from devloop.cluster.api.pod_view import (
    Json,
    annotation,
    condition,
    dig,
    images_of,
    metadata,
    number,
    uid_of,
)
from devloop.cluster.api.writes import MANAGER
from devloop.cluster.deploy.missing import MissingObject
from devloop.cluster.deploy.objects import KEPT_KINDS
from devloop.cluster.deploy.ownership import (
    APPLIED,
    covers,
    created_by,
    desired,
    gitops_manager,
    judge_conflict,
    scale_note,
    scaled_by,
)
from devloop.cluster.replace.pause import with_pause
from devloop.cluster.replace.strategy import Written
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.gitops import GitopsGuard
    from devloop.cluster.deploy.objects import PlannedObject


_CRD_SECONDS = 10.0
_GONE_SECONDS = 10.0
_VERSION = ("metadata", "resourceVersion")
# How long an applied object is believed to be there without a look: a burst of saves costs no
# reads, and what somebody deleted by hand is back within the next minute's deploy.
_BELIEVED_SECONDS = 60.0


class Applier:
    """Applies objects for `project`. Thread-safe."""

    def __init__(
        self, connection: Connection, *, project: str, gitops: GitopsGuard | None = None
    ) -> None:
        self.connection = connection
        self._gitops = gitops
        self.project = project
        self._lock = threading.Lock()
        # path -> what was applied last and came back: spares a look in later iterations.
        self._known: dict[str, tuple[str, Json, float]] = {}
        # The paths of what somebody else scales, as was said.
        self._scaled: set[str] = set()

    def apply(
        self,
        planned: PlannedObject,
        notify: Callable[[Diagnosis], None],
        cancel: Cancel,
        *,
        live: Json | None = None,
        before: Callable[[Json], None] | None = None,
    ) -> Written:
        """Make the cluster have `planned`; at most one write.

        `live` is the object as it is, for a caller that knows; None looks. `before` is called with
        the live object before the first write to one that existed. `notify` gets the fields
        taken over. Raises cluster/*."""
        if live is None:
            known = self._remembered(planned)
            if known is not None:
                return Written(object=known, changed=False)
            live = self.connection.find(planned.path)
        if live is not None:
            self._note_replicas(planned, live, notify)
            if self.has(planned, live):
                return Written(object=live, changed=False)
            if before is not None and not created_by(live):
                before(live)
        body = desired(planned.object, live, self.project)
        mark = metadata(body)["annotations"][APPLIED]
        if live is not None and _is_over(planned, live, body):
            self._delete(planned, live, cancel)
        result = self._write(planned, body, notify, cancel, live)
        if planned.resource.kind == "CustomResourceDefinition":
            result = self._established(planned, result, cancel)
        self._remember(planned, mark, result)
        same = live is not None and dig(live, *_VERSION) == dig(result, *_VERSION)
        return Written(object=result, changed=not same, created=live is None)

    def believes(self, planned: PlannedObject) -> bool:
        """Whether this is what was applied last, however long ago; looks at nothing."""
        return self._remembered(planned, lately=False) is not None

    def forget(self, path: str) -> None:
        """What was there is not any more."""
        with self._lock:
            self._known.pop(path, None)

    def has(self, planned: PlannedObject, live: Json | None = None) -> bool:
        """Whether the cluster has it, so that `apply` would write nothing. `live` as there."""
        if live is None:
            live = self.connection.find(planned.path)
        if live is None:
            return False
        body = desired(planned.object, live, self.project)
        mark = metadata(body)["annotations"][APPLIED]
        same = annotation(live, APPLIED) == mark and covers(live, body)
        if not same or _is_over(planned, live, body):
            return False
        self._remember(planned, mark, live)
        return True

    def apply_paused(
        self,
        planned: PlannedObject,
        live: Json,
        notify: Callable[[Diagnosis], None],
        cancel: Cancel,
    ) -> Json:
        """Apply a Deployment that is paused and marked so (see `replace.pause`), by the same
        manager: who owns which field stays as it was. To resume it is left to the caller."""
        self._note_replicas(planned, live, notify)
        body = with_pause(desired(planned.object, live, self.project))
        return self._write(planned, body, notify, cancel, live)

    def _note_replicas(
        self, planned: PlannedObject, live: Json, notify: Callable[[Diagnosis], None]
    ) -> None:
        wanted = dig(planned.object, "spec", "replicas")
        differs = wanted is not None and wanted != dig(live, "spec", "replicas")
        if differs and (manager := scaled_by(live)):
            self._leave_replicas(planned, manager, notify)

    def _leave_replicas(
        self, planned: PlannedObject, manager: str, notify: Callable[[Diagnosis], None]
    ) -> None:
        """They are not devloop's, which is said once."""
        with self._lock:
            known = planned.path in self._scaled
            self._scaled.add(planned.path)
        if not known:
            notify(scale_note(str(planned), manager))

    def _remembered(self, planned: PlannedObject, *, lately: bool = True) -> Json | None:
        with self._lock:
            known = self._known.get(planned.path)
        if known is None or (lately and time.monotonic() - known[2] > _BELIEVED_SECONDS):
            return None
        mark, live, _ = known
        body = desired(planned.object, live, self.project)
        return live if metadata(body)["annotations"][APPLIED] == mark else None

    def _remember(self, planned: PlannedObject, mark: str, live: Json) -> None:
        with self._lock:
            self._known[planned.path] = (mark, live, time.monotonic())

    def _write(
        self,
        planned: PlannedObject,
        body: dict[str, Any],
        notify: Callable[[Diagnosis], None],
        cancel: Cancel,
        live: Json | None,
    ) -> dict[str, Any]:
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        for _ in range(4):
            try:
                return self.connection.request(
                    "PATCH", planned.path, body, query=query, content_type=APPLY
                )
            except ApiError as error:
                if error.status == 404 and error.details.get("kind") == "namespaces":
                    raise _namespace_missing(planned) from error
                mine = planned.recreate and is_for_good(error) and created_by(live)
                if live is not None and (_immutable(planned, error) or mine):
                    self._delete(planned, live, cancel)
                    continue
                if is_for_good(error):
                    raise cannot_change(planned, error, live, self.project) from error
                if error.status != 409:
                    raise error.at(planned.location) from error
                causes = [c for c in error.causes if c.get("reason") == "FieldManagerConflict"]
                if not causes:
                    continue  # two writes met: the same request again is right
                decision = judge_conflict(causes, str(planned))
                if decision.error is not None and not self._is_quiet(live, notify):
                    raise decision.error.at(planned.location) from error
                if decision.info is not None:
                    notify(decision.info)
                if decision.scaled_by:
                    self._leave_replicas(planned, decision.scaled_by, notify)
                    body["spec"] = {k: v for k, v in body["spec"].items() if k != "replicas"}
                query["force"] = "true"
        raise DevloopError.of(
            Code.CLUSTER_CONFLICT,
            f"{planned} is being written by somebody else all the time",
            location=planned.location,
        )

    def _is_quiet(self, live: Json | None, notify: Callable[[Diagnosis], None]) -> bool:
        """Whether what owns fields of the object puts nothing back: then they are taken over, and
        its own once it goes on. Raises safety/gitops-owned for an owner that does."""
        return self._gitops is not None and self._gitops.check([live], notify)

    def _delete(self, planned: PlannedObject, live: Json, cancel: Cancel) -> None:
        """Delete a Job or a Pod that is made again, and wait until it is gone. Raises
        cluster/conflict for one that a controller would make again as it was."""
        if (manager := gitops_manager(live)) is not None:
            raise DevloopError.of(
                Code.CLUSTER_CONFLICT,
                f"{manager} owns {planned}, which would have to be made again",
                location=planned.location,
                suggestions=(f"pause {manager} for it, or take it out of deploy.manifests",),
            )
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid_of(live)}}
        try:
            self.connection.request("DELETE", planned.path, body)
        except ApiError as error:
            if error.status not in {404, 409}:  # it is gone, or another one already
                raise error.at(planned.location) from error
        grace = number(dig(live, "spec", "terminationGracePeriodSeconds"))
        deadline = time.monotonic() + _GONE_SECONDS + grace
        while (still := self.connection.find(planned.path)) is not None:
            if uid_of(still) != uid_of(live):
                return
            if time.monotonic() >= deadline:
                raise DevloopError.of(
                    Code.CLUSTER_REJECTED,
                    f"the old {planned} is still there",
                    location=planned.location,
                    cause="it was deleted to be recreated; a finalizer may keep it",
                )
            cancel.wait(0.05)
            cancel.check()

    def _established(
        self, planned: PlannedObject, result: dict[str, Any], cancel: Cancel
    ) -> dict[str, Any]:
        """Objects of a new kind are refused until its definition is established: some 100 ms."""
        deadline = time.monotonic() + _CRD_SECONDS
        while condition(result, "Established").get("status") != "True":
            if time.monotonic() >= deadline:
                raise DevloopError.of(
                    Code.CLUSTER_REJECTED,
                    f"the cluster does not serve {planned.name}",
                    location=planned.location,
                    cause=str(condition(result, "NamesAccepted").get("message") or "not yet"),
                )
            cancel.wait(0.1)
            cancel.check()
            result = self.connection.request("GET", planned.path)
        return result


# How the API server refuses the change of a field that is for good: a selector, a StatefulSet's
# templates, a claim's size, a Service's address, a binding's role, a Secret's type.
_FOR_GOOD = re.compile(
    r"field is immutable|is immutable after|may not be changed|cannot change roleRef|"
    r"updates to \w+ spec for fields other than|may not change once set|"
    r"can not be less than",
    re.IGNORECASE,
)


def is_for_good(error: ApiError) -> bool:
    """Whether the server refuses to change a field that an object has for good."""
    return error.status == 422 and _FOR_GOOD.search(error.text) is not None


def cannot_change(
    planned: PlannedObject, error: ApiError, live: Json | None, project: str
) -> DevloopError:
    """cluster/rejected with the fields, and how to have the object made anew."""
    fields = list(dict.fromkeys(str(cause.get("field") or "") for cause in error.causes))
    fields = [field for field in fields if field]
    what = " and ".join(fields) or "what the manifest has now"
    scope = f"-n {planned.namespace} " if planned.namespace else ""
    delete = f"kubectl {scope}delete {planned.resource.kind.lower()}/{planned.name}"
    group = planned.resource.api_version.rpartition("/")[0]
    if group:
        kind = f"{planned.resource.plural}.{group}"
        delete = f"kubectl {scope}delete {kind} {planned.name}"
    hints = [f"{delete}, then save again: it is made as the manifest has it"]
    if created_by(live) == project and planned.resource.kind not in KEPT_KINDS:
        hints.append("or let devloop do so with what it created: `deploy: {recreate: true}`")
    return DevloopError.of(
        Code.CLUSTER_REJECTED,
        f"{what} of {planned} cannot be changed while it exists",
        location=planned.location,
        cause="; ".join(f"{c.get('field')}: {c.get('message')}" for c in error.causes)[:300]
        or error.text[:300],
        suggestions=tuple(hints),
    )


# What ends, or whose pod is itself: it is made again when what it runs changes.
_MADE_AGAIN = {("batch/v1", "Job"), ("v1", "Pod")}


def _made_again(planned: PlannedObject) -> bool:
    return (planned.resource.api_version, planned.resource.kind) in _MADE_AGAIN


def _immutable(planned: PlannedObject, error: ApiError) -> bool:
    """A Job's template cannot change (a migration with the new image, say), nor most of a Pod."""
    refused = "immutable" in error.text or "may not change" in error.text
    return _made_again(planned) and error.status == 422 and refused


def _is_over(planned: PlannedObject, live: Json, wanted: Json) -> bool:
    """Whether what is there is of no use any more: a Job that failed, a Pod that ended, or one with
    another image, which would only restart in its place."""
    if not _made_again(planned):
        return False
    ended = dig(live, "status", "phase") in {"Succeeded", "Failed"}
    failed = condition(live, "Failed").get("status") == "True"
    return failed or ended or (planned.resource.kind == "Pod" and _other_images(live, wanted))


def _other_images(live: Json, wanted: Json) -> bool:
    return not images_of(wanted).items() <= images_of(live).items()


def _namespace_missing(planned: PlannedObject) -> MissingObject:
    name = planned.namespace
    diagnosis = Diagnosis(
        code=Code.CLUSTER_NOT_FOUND,
        message=f"the namespace {name!r} does not exist",
        location=planned.location,
        suggestions=(
            f"kubectl create namespace {name}",
            "or put a Namespace into the manifests",
        ),
    )
    return MissingObject(
        diagnosis, path=f"/api/v1/namespaces/{name}", what=f"the namespace {name!r}"
    )
