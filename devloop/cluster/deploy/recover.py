"""What a rollout changes for a while, and how it is put back: the pause, the strategy.

Called when a session ends, and at the next start for one that was killed; what is to be put back
stands in the journal before it is changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.connection import STRATEGIC
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import uid_of
from devloop.cluster.deploy.ownership import MANAGER
from devloop.cluster.replace.fast import is_fast, strategy_patch
from devloop.cluster.replace.in_place_rules import HOLD, held
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.recovery_log import RecoveryEntry, RecoveryLog
    from devloop.model import WorkloadRef

__all__ = ["heal", "patch_as_devloop", "release", "take_back"]


def release(connection: Connection, ref: WorkloadRef, uid: str) -> dict[str, Any] | None:
    """Unpause a Deployment that devloop paused; None when it is gone. Only takes fields away, so
    that it leaves no ownership behind."""
    body = {"metadata": {"uid": uid, "labels": {HOLD: None}}, "spec": {"paused": None}}
    return patch_as_devloop(connection, workload_path(ref), body)


def heal(connection: Connection, journal: RecoveryLog) -> tuple[Diagnosis, ...]:
    """Put right what a killed session left half done in this context; returns what to tell. What
    cannot be reached now stays in the journal.

    A Deployment that its owner paused carries no mark of devloop's and stays paused."""
    told = []
    for entry in journal.entries():
        if entry.context != connection.context:
            continue
        try:
            message = _heal(connection, entry)
        except DevloopError as error:
            told.append(replace(error.diagnosis, severity="warning"))
            continue
        journal.remove(entry)
        if message:
            told.append(Diagnosis(code=Code.CLUSTER_PAUSED, severity="info", message=message))
    return tuple(told)


def _heal(connection: Connection, entry: RecoveryEntry) -> str:
    """What was put right, in words; "" when there was nothing."""
    try:
        live = connection.request("GET", workload_path(entry.ref))
    except ApiError as error:
        if error.status == 404:
            return ""
        raise
    if uid_of(live) != entry.uid:
        return ""
    if entry.strategy is not None and is_fast(live):
        _put_back(connection, entry)
        return f"{entry.ref} kept the strategy of a session that was killed: put back"
    if held(live) and release(connection, entry.ref, entry.uid) is not None:
        return f"{entry.ref} was left paused by a session that was killed: resumed"
    return ""


def take_back(connection: Connection, journal: RecoveryLog, entry: RecoveryEntry) -> None:
    """Give a Deployment its strategy back."""
    _put_back(connection, entry)
    journal.remove(entry)


def _put_back(connection: Connection, entry: RecoveryEntry) -> None:
    strategy = strategy_patch(entry.strategy or {})
    body = {"metadata": {"uid": entry.uid}, "spec": {"strategy": strategy}}
    patch_as_devloop(connection, workload_path(entry.ref), body)


def patch_as_devloop(
    connection: Connection, path: str, body: Mapping[str, Any]
) -> dict[str, Any] | None:
    """A strategic merge patch as devloop; None when the object is gone or is another one."""
    try:
        return connection.request(
            "PATCH", path, body, query={"fieldManager": MANAGER}, content_type=STRATEGIC
        )
    except ApiError as error:
        other = error.status == 409 and "UID" in error.text
        if (
            error.status == 404
            or other
            or any(c.get("field") == "metadata.uid" for c in error.causes)
        ):
            return None
        raise
