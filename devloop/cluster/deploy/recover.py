"""Recover what a killed session left half done in Deployments: the pause, the update strategy.

What is to be recovered stands in the recovery log before it is changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import uid_of
from devloop.cluster.api.writes import patch_as_devloop
from devloop.cluster.replace.fast import is_fast, strategy_patch
from devloop.cluster.replace.pause import paused_by_devloop, resume
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.replace.recovery_log import RecoveryEntry, RecoveryLog


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
            found.append(Diagnosis(code=Code.CLUSTER_PAUSED, severity="info", message=message))
    return tuple(found)


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
    if paused_by_devloop(live) and resume(connection, entry.ref, entry.uid) is not None:
        return f"{entry.ref} was left paused by a session that was killed: resumed"
    return ""


def restore_strategy(connection: Connection, log: RecoveryLog, entry: RecoveryEntry) -> None:
    """Give a Deployment back the update strategy that `fast` took away."""
    strategy = strategy_patch(entry.update_strategy)
    body = {"metadata": {"uid": entry.uid}, "spec": {"strategy": strategy}}
    patch_as_devloop(connection, workload_path(entry.ref), body)
    log.remove(entry)
