"""Putting a workload back as it was before devloop first wrote to it.

What is written is the original's spec as it is, labels and annotations as they were; what the
controllers keep in annotations stays theirs. Whose turn it is, and what else the user should know,
is `app.restore`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import (
    Json,
    dig,
    generation_of,
    images_of,
    labels,
    metadata,
    number,
)
from devloop.cluster.api.writes import MANAGER
from devloop.cluster.deploy.original import original_file, original_of
from devloop.cluster.deploy.ownership import created_by
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.model import WorkloadRef


_TRIES = 5
_LOOK = 0.25  # seconds between two looks at a rollout
_CONTROLLERS = "deployment.kubernetes.io/"
# What can be written to these once they are there is next to nothing.
_FIXED = frozenset({"job", "pod"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of one workload. `what`: it is `restored`, or `would` be; was `as-before`
    already, is devloop's own (`created`), was never written by devloop (`untouched`), is not there
    (`gone`), or cannot be written (`fixed`). `images` are those that it was given, by container."""

    workload: WorkloadRef
    what: Literal["restored", "would", "as-before", "created", "untouched", "gone", "fixed"]
    images: dict[str, str]


def restored(live: Json, before: Json) -> dict[str, Any]:
    """The object to write over `live`. Pure."""
    kept = metadata(live)
    was = metadata(before)
    theirs = {
        key: value
        for key, value in (kept.get("annotations") or {}).items()
        if key.startswith(_CONTROLLERS)
    }
    own = {
        k: v for k, v in (was.get("annotations") or {}).items() if not k.startswith(_CONTROLLERS)
    }
    return {
        **live,
        "metadata": {**kept, "labels": dict(labels(before)), "annotations": {**own, **theirs}},
        "spec": before.get("spec"),
    }


def restore(
    connection: Connection, state_dir: Path, ref: WorkloadRef, *, dry_run: bool = False
) -> Restored:
    """Write the original of a workload, and forget it: what devloop then finds is the next one.
    Does not wait for its pods. Errors: cluster/*."""
    for _ in range(_TRIES):
        live = connection.find(workload_path(ref))
        if live is None:
            return Restored(workload=ref, what="gone", images={})
        before = original_of(state_dir, connection.context, live)
        if before is None:
            what: Literal["created", "untouched"] = "created" if created_by(live) else "untouched"
            return Restored(workload=ref, what=what, images={})
        images = images_of(before)
        body = restored(live, before)
        same = body["spec"] == live.get("spec") and _marks(body) == _marks(live)
        if ref.kind in _FIXED and not same:
            return Restored(workload=ref, what="fixed", images=images)
        if dry_run:
            return Restored(workload=ref, what="as-before" if same else "would", images=images)
        if not same and not _written(connection, ref, body):
            continue
        original_file(state_dir, connection.context, live).path.unlink(missing_ok=True)
        return Restored(workload=ref, what="as-before" if same else "restored", images=images)
    raise DevloopError.of(
        Code.SAFETY_CHANGED_OUTSIDE,
        f"{ref} is written again and again by somebody else",
        suggestions=("stop what writes there, then try again",),
    )


def _written(connection: Connection, ref: WorkloadRef, body: Json) -> bool:
    """False where somebody wrote it since it was read."""
    try:
        connection.request("PUT", workload_path(ref), body, query={"fieldManager": MANAGER})
    except ApiError as error:
        if error.status == 409:
            return False
        raise
    return True


def _marks(thing: Json) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(labels(thing)), dict(metadata(thing).get("annotations") or {})


def wait_for_rollout(
    connection: Connection, ref: WorkloadRef, timeout: float, cancel: Cancel
) -> str:
    """Wait until the controllers are through, as `kubectl rollout status` does; a few words on what
    there is then. Errors: pod/deadline, cluster/*."""
    deadline = time.monotonic() + timeout
    while True:
        live = connection.find(workload_path(ref)) or {}
        waits, detail = rollout_state(ref.kind, live)
        if not waits:
            return detail
        if time.monotonic() >= deadline:
            raise DevloopError.of(
                Code.POD_DEADLINE,
                f"{ref} is as it was, but its pods are not ready after {timeout:g} s",
                cause=waits,
                suggestions=(
                    f"kubectl -n {ref.namespace} rollout status {ref}",
                    f"kubectl -n {ref.namespace} describe {ref}",
                ),
            )
        cancel.wait(_LOOK)
        cancel.check()


def rollout_state(kind: str, live: Json) -> tuple[str, str]:
    """What is waited for, "" for nothing, and how far it is. Pure; by the fields that `kubectl
    rollout status` goes by."""
    status: Any = dig(live, "status") or {}
    if kind not in {"deployment", "statefulset", "daemonset", "replicaset"}:
        return "", "nothing to roll out"
    if dig(live, "spec", "paused") is True:
        return "", "paused, as before"
    daemon = kind == "daemonset"
    wanted = number(
        dig(status, "desiredNumberScheduled") if daemon else dig(live, "spec", "replicas"),
        0 if daemon else 1,
    )
    updated = number(dig(status, "updatedNumberScheduled" if daemon else "updatedReplicas"))
    ready = number(dig(status, "numberReady" if daemon else "readyReplicas"))
    there = number(dig(status, "currentNumberScheduled" if daemon else "replicas"))
    if kind == "replicaset":
        updated = there
    strategy = dig(live, "spec", "updateStrategy", "type")
    if strategy == "OnDelete":
        return "", "its pods change when they are deleted (OnDelete)"
    detail = f"{min(updated, ready)}/{wanted} ready"
    if number(dig(status, "observedGeneration")) < generation_of(live):
        return "its controller has not seen it yet", detail
    if updated < wanted:
        return f"{updated} of {wanted} new pods are there", detail
    if kind == "deployment" and there > updated:
        return f"{there - updated} old pods are to end yet", detail
    return (f"{ready} of {wanted} pods are ready" if ready < wanted else ""), detail
