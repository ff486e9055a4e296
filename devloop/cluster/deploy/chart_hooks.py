"""The hooks of a chart that devloop applies itself: run before and after the rest as Helm would,
see helm.sh/docs/topics/charts_hooks.

By weight, then kind, then name; each is waited for before the next. A deploy that finds nothing to
change runs none.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.log_stream import tail_log
from devloop.cluster.api.pod_view import condition, dig, items, name_of, uid_of
from devloop.cluster.deploy.down import Created, delete
from devloop.cluster.deploy.objects import apply_order
from devloop.errors import Code, DevloopError
from devloop.model import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.deploy.apply import Applier
    from devloop.cluster.deploy.objects import PlannedHook, PlannedObject
    from devloop.engine.ports import Reporter

When = Literal["before", "after"]

_GONE_SECONDS = 30.0
_EVENTS = {
    ("before", True): frozenset({"pre-install"}),
    ("before", False): frozenset({"pre-upgrade"}),
    ("after", True): frozenset({"post-install", "test", "test-success"}),
    ("after", False): frozenset({"post-upgrade", "test", "test-success"}),
}


def hooks_for(hooks: Iterable[PlannedHook], when: When, *, first: bool) -> tuple[PlannedHook, ...]:
    """Those to run, in order; `first`: it is the installation and no upgrade."""
    events = _EVENTS[when, first]

    def order(each: PlannedHook) -> tuple[int, int, str]:
        planned = each.planned
        return each.hook.weight, apply_order(planned.resource.kind), planned.name

    return tuple(sorted((h for h in hooks if h.hook.events & events), key=order))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartHooks:
    """Runs hooks. `timeout` is each one's, in seconds, `poll` how long a look is good for."""

    applier: Applier
    timeout: float
    clock: Callable[[], float] = time.monotonic
    poll: float = 0.25

    def run(self, hooks: Iterable[PlannedHook], reporter: Reporter, cancel: Cancel) -> None:
        """Raises pod/run-failed, pod/deadline, cluster/*."""
        done: list[PlannedHook] = []
        for each in hooks:
            planned, policies = each.planned, each.hook.delete
            reporter.progress(Step.DEPLOY, f"hook {planned}")
            if "before-hook-creation" in policies:
                self._delete(planned, cancel)
            applied = self.applier.apply(planned, reporter.diagnostic, cancel)
            try:
                self._wait(planned, uid_of(applied.object), cancel)
            except DevloopError as error:
                if "hook-failed" in policies and error.code is Code.POD_RUN_FAILED:
                    self._delete(planned, cancel)
                raise
            done.append(each)
        for each in done:
            if "hook-succeeded" in each.hook.delete:
                self._delete(each.planned, cancel)

    def _delete(self, planned: PlannedObject, cancel: Cancel) -> None:
        """And wait until it is gone."""
        connection = self.applier.connection
        live = connection.find(planned.path)
        self.applier.forget(planned.path)
        if live is None:
            return
        uid = uid_of(live)
        created = Created(
            resource=planned.resource, namespace=planned.namespace, name=planned.name, uid=uid
        )
        delete(connection, created)
        deadline = self.clock() + _GONE_SECONDS
        while (live := connection.find(planned.path)) is not None and uid_of(live) == uid:
            if self.clock() > deadline:
                raise self._late(planned, "it is being deleted, and stays")
            self._pause(cancel)

    def _wait(self, planned: PlannedObject, uid: str, cancel: Cancel) -> None:
        """Until a Job or a Pod came to its end; anything else is done once it is there."""
        kind = planned.resource.kind
        if kind not in ("Job", "Pod"):
            return
        deadline = self.clock() + self.timeout
        while True:
            cancel.check()
            live = self.applier.connection.find(planned.path)
            if live is None or uid_of(live) != uid:
                return  # a Job may be removed as soon as it has ended
            status = _ended(live, kind)
            if status == "succeeded":
                return
            if status == "failed":
                raise self._failed(planned, live)
            if self.clock() > deadline:
                raise self._late(planned, f"it has not ended after {self.timeout:g} s")
            self._pause(cancel)

    def _pause(self, cancel: Cancel) -> None:
        cancel.wait(self.poll)
        cancel.check()

    def _failed(self, planned: PlannedObject, live: Json) -> DevloopError:
        failed = condition(live, "Failed") or {}
        lines = self._log(planned)
        return DevloopError.of(
            Code.POD_RUN_FAILED,
            f"the hook {planned} failed" + (f": {lines[-1]}" if lines else ""),
            location=planned.location,
            cause=str(failed.get("message") or dig(live, "status", "message") or "") or None,
            suggestions=(f"kubectl -n {planned.namespace} describe {_typed(planned)}",),
            detail=lines[-20:],
        )

    def _late(self, planned: PlannedObject, cause: str) -> DevloopError:
        return DevloopError.of(
            Code.POD_DEADLINE,
            f"the hook {planned} did not come to its end",
            location=planned.location,
            cause=cause,
            suggestions=(
                f"kubectl -n {planned.namespace} describe {_typed(planned)}",
                "raise `deploy.timeout` if it needs longer",
            ),
            detail=self._log(planned)[-20:],
        )

    def _log(self, planned: PlannedObject) -> tuple[str, ...]:
        """The last lines of its pod that ended last."""
        connection, namespace = self.applier.connection, planned.namespace
        base = f"/api/v1/namespaces/{namespace}/pods"
        if planned.resource.kind == "Pod":
            pods = [live] if (live := connection.find(f"{base}/{planned.name}")) else []
        else:
            found = connection.find(f"{base}?labelSelector=job-name%3D{planned.name}") or {}
            pods = items(found.get("items"))
        pods.sort(key=lambda pod: str(dig(pod, "metadata", "creationTimestamp")))
        for pod in reversed(pods):
            for container in items(dig(pod, "spec", "containers")):
                if lines := tail_log(connection, namespace, name_of(pod), str(container["name"])):
                    return lines
        return ()


def _ended(live: Json, kind: str) -> Literal["", "succeeded", "failed"]:
    if kind == "Pod":
        phase = dig(live, "status", "phase")
        return "succeeded" if phase == "Succeeded" else "failed" if phase == "Failed" else ""
    for name, word in (("Complete", "succeeded"), ("Failed", "failed")):
        if (condition(live, name) or {}).get("status") == "True":
            return "succeeded" if word == "succeeded" else "failed"
    return ""


def _typed(planned: PlannedObject) -> str:
    return f"{planned.resource.kind.lower()} {planned.name}"
