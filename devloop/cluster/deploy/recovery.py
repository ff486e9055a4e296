"""What sessions that were killed left half done in the cluster, put right.

What this project's sessions began is in its recovery log; what another folder's did, only the
workload's own mark and its Lease tell. Never touches what a session still works at.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import uid_of
from devloop.cluster.deploy.lease import RENEW, Holder, holder_of, judge, lease_path, this_very
from devloop.cluster.replace.pause import paused_by_devloop, resume
from devloop.cluster.replace.rolling import is_fast, restore_strategy
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.replace.recovery_log import RecoveryEntry, RecoveryLog
    from devloop.model import WorkloadRef


def recover(connection: Connection, log: RecoveryLog) -> tuple[Diagnosis, ...]:
    """Recover what the log has of this context; returns what to report. What cannot be reached now
    stays in the log.

    A Deployment that its owner paused carries no mark of devloop's and stays paused."""
    found = []
    for entry in log.entries():
        if entry.context != connection.context:
            continue
        try:
            message = _recover(connection, log, entry)
        except DevloopError as error:
            found.append(replace(error.diagnosis, severity="warning"))
            continue
        log.remove(entry)
        if message:
            found.append(_report(message))
    return tuple(found)


def recover_abandoned(
    connection: Connection, refs: Iterable[WorkloadRef], *, own: bool = False
) -> tuple[Diagnosis, ...]:
    """Resume the Deployments that a session paused which works with them no more: its Lease is
    gone or has run out, or with `own` is the caller's now. Returns what to report, a pause that a
    session still works at as well. Errors: cluster/*."""
    found = []
    for ref in refs:
        live = connection.find(workload_path(ref)) if ref.kind == "deployment" else None
        if live is None or not paused_by_devloop(live):
            continue
        by = "" if own else holder_of(connection, ref)
        if by:
            message = f"{ref} is paused: {by}, is replacing its pods"
        elif by is None:
            message = f"{ref} is paused: a session replaces its pods, or was killed at it"
        else:
            message = _resumed(connection, ref, live)
        if message:
            found.append(_report(message))
    return tuple(found)


def remove_abandoned_leases(connection: Connection, refs: Iterable[WorkloadRef]) -> None:
    """Delete the Leases that sessions left which work with their workloads no more. Errors:
    cluster/*, but for those who may not delete them."""
    me, now = Holder.own(), datetime.now(UTC)
    for ref in refs:
        lease = connection.find(lease_path(ref), absent=(403, 404, 405))
        if lease is None or judge(lease, me, now=now) is not None:
            continue
        try:
            connection.request("DELETE", lease_path(ref), this_very(lease), timeout=RENEW)
        except ApiError as error:
            if error.status not in {403, 404, 405, 409}:
                raise


def _report(message: str) -> Diagnosis:
    return Diagnosis(code=Code.CLUSTER_PAUSED, severity="info", message=message)


def _recover(connection: Connection, log: RecoveryLog, entry: RecoveryEntry) -> str:
    """What was recovered, in words; "" when there was nothing."""
    live = connection.find(workload_path(entry.ref))
    if live is None or uid_of(live) != entry.uid:
        return ""
    if entry.strategy == "fast":
        if not is_fast(live):
            return ""
        restore_strategy(connection, log, entry)
        return f"{entry.ref} kept the strategy of a session that was killed: put back"
    return _resumed(connection, entry.ref, live) if paused_by_devloop(live) else ""


def _resumed(connection: Connection, ref: WorkloadRef, live: Json) -> str:
    if resume(connection, ref, uid_of(live)) is None:
        return ""
    return f"{ref} was left paused by a session that was killed: resumed"
