"""`replace: fast`: all new pods at once, and old ones that are told to stop get a second.

Only the Deployment's strategy changes for it, never its pod template, so that taking it back at the
end of a session starts no rollout. The grace is cut short pod by pod instead. Decides and words
requests; sends only what `hurry` says.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.pod_view import dig, metadata, name_of, number, uid_of
from devloop.cluster.api.view import workload_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.model import WorkloadRef

__all__ = ["hurry", "is_fast", "strategy_patch", "with_fast_strategy"]

_SURGE = {"maxSurge": "100%", "maxUnavailable": 0}
_GRACE_SECONDS = 1


def is_fast(thing: Mapping[str, Any]) -> bool:
    return bool(dig(thing, "spec", "strategy", "rollingUpdate") == _SURGE)


def with_fast_strategy(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The Deployment (a manifest, or one from the cluster) with the strategy of `fast`. Recreate
    stays: it says that old and new pods must not run side by side."""
    spec = dict(deployment.get("spec") or {})
    if dig(spec, "strategy", "type") != "Recreate":
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": dict(_SURGE)}
    return {**deployment, "spec": spec}


def strategy_patch(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """For a strategic merge patch: puts back the surge and unavailability of `strategy`, or the
    server's defaults for what it leaves open."""
    rolling = dig(strategy, "rollingUpdate") or {}
    return {"rollingUpdate": {key: rolling.get(key) for key in _SURGE}}


def hurry(
    connection: Connection,
    ref: WorkloadRef,
    pods: Iterable[Mapping[str, Any]],
    done: set[str],
) -> None:
    """Cut the grace of the workload's pods that are told to stop. `done` remembers their uids."""
    for pod in pods:
        uid = uid_of(pod)
        left = number(metadata(pod).get("deletionGracePeriodSeconds"))
        if left <= _GRACE_SECONDS or uid in done or workload_of(pod) != (ref.kind, ref.name):
            continue
        done.add(uid)
        path = f"/api/v1/namespaces/{ref.namespace}/pods/{name_of(pod)}"
        body = {"gracePeriodSeconds": _GRACE_SECONDS, "preconditions": {"uid": uid}}
        with contextlib.suppress(ApiError):
            connection.request("DELETE", path, body)
