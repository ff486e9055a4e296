"""Owners of Flux and Argo CD that devloop suspends for a session, and how they go on afterwards.

What is changed is written down twice before it is: in `.devloop/suspended/<context>/<namespace>/`,
from which the next command of this project resumes after a kill, and on the owner itself, with the
sessions that need it suspended: it goes on when the last of them ends, whichever that is. An owner
that somebody else has suspended or resumed since is left as it is.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.process import is_alive
from devloop.base.state_file import StateFile
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.pod_view import Json, annotation, dig, metadata, text, uid_of
from devloop.cluster.api.writes import MANAGER, is_another
from devloop.cluster.deploy.gitops_owners import GitopsOwner, OwnerState
from devloop.cluster.deploy.lease import Holder
from devloop.cluster.deploy.let_go import let_go
from devloop.cluster.replace.recovery_log import object_file, write_first
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devloop.cluster.api.connection import Connection


SUSPENDED_BY = "devloop.dev/suspended-by"  # the sessions, as their Leases name them
WAS = "devloop.dev/suspended-was"  # what the field had, as JSON; {} for nothing

_MERGE = "application/merge-patch+json"
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """One owner that one session has suspended; `was` is what the field had."""

    context: str
    path: str
    uid: str
    session: str
    group: str
    kind: str
    namespace: str
    name: str
    was: Mapping[str, Any]

    @property
    def owner(self) -> GitopsOwner:
        return GitopsOwner(
            group=self.group, kind=self.kind, namespace=self.namespace, name=self.name
        )


class SuspensionLog:
    """The files of one project."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "suspended"

    def write(self, entry: Suspension) -> None:
        """Raises env/disk-full or env/file-unreadable: what cannot be written down is not begun."""
        otherwise = f"cannot write down that {entry.owner} is suspended, so devloop does not do it"
        write_first(self._file(entry), asdict(entry), otherwise)

    def remove(self, entry: Suspension) -> None:
        with contextlib.suppress(OSError):
            self._file(entry).path.unlink()

    def entries(self) -> tuple[Suspension, ...]:
        """What was left suspended, by path; files that cannot be read are set aside."""
        found = []
        for path in sorted(self._root.glob("*/*/*.json")):
            if value := StateFile(path).read():
                with contextlib.suppress(TypeError):
                    found.append(Suspension(**{k: v for k, v in value.items() if k != "v"}))
        return tuple(found)

    def _file(self, entry: Suspension) -> StateFile:
        name = f"{entry.kind.lower()}-{entry.name}"
        return object_file(self._root, entry.context, entry.namespace, name, durable=True)


def suspend(
    connection: Connection, log: SuspensionLog, state: OwnerState, session: str
) -> Suspension | None:
    """Suspend an owner, or join those who have; None where it is gone or quiet by itself. Errors:
    safety/gitops-owned where that is forbidden, cluster/*, env/*."""
    owner = state.owner
    for _ in range(_TRIES):
        live = connection.find(state.path)
        if live is None:
            return None
        others = _sessions(live)
        if _is_suspended(owner, live) and not others:
            return None
        was = _was(live) if others and _is_suspended(owner, live) else _field(owner, live)
        entry = Suspension(
            context=connection.context,
            path=state.path,
            uid=uid_of(live),
            session=session,
            group=owner.group,
            kind=owner.kind,
            namespace=owner.namespace,
            name=owner.name,
            was=was,
        )
        log.write(entry)
        by = ",".join(dict.fromkeys((*others, session)))
        marks = {SUSPENDED_BY: by, WAS: json.dumps(was, separators=(",", ":"))}
        try:
            written = _patch(connection, entry, live, marks, _suspended(owner))
        except ApiError as error:
            log.remove(entry)
            if error.status == 403:
                raise _forbidden(owner, error) from error
            raise
        if written:
            return entry
    raise DevloopError.of(
        Code.CLUSTER_CONFLICT, f"{owner} is being written by somebody else all the time"
    )


def resume(connection: Connection, log: SuspensionLog, entry: Suspension) -> str:
    """Let an owner go on, unless another session still needs it suspended; what was done, in words,
    "" for nothing. What was written meanwhile of what it has is its own again. Errors: cluster/*;
    the log then keeps it."""
    said = ""
    for _ in range(_TRIES):
        live = connection.find(entry.path)
        if live is None or uid_of(live) != entry.uid or entry.session not in _sessions(live):
            break
        rest = [s for s in _sessions(live) if s != entry.session and _may_live(s)]
        marks: dict[str, str | None] = {SUSPENDED_BY: ",".join(rest)}
        change: dict[str, Any] = {}
        if rest:
            names = ", ".join(str(Holder.read(each) or each) for each in rest)
            said = f"{entry.owner} stays suspended: {names}, works with what it owns"
        else:
            marks = {SUSPENDED_BY: None, WAS: None}
            said = f"{entry.owner} was resumed by somebody else already"
            if _is_suspended(entry.owner, live):
                change, said = _as_it_was(entry.owner, _was(live)), f"{entry.owner} resumed"
        if _patch(connection, entry, live, marks, change):
            if not rest:
                # The owner goes on already, whatever becomes of this.
                with contextlib.suppress(DevloopError):
                    let_go(connection, live)
            break
    else:
        raise DevloopError.of(
            Code.CLUSTER_CONFLICT, f"{entry.owner} is being written by somebody else all the time"
        )
    log.remove(entry)
    return said


def _patch(
    connection: Connection,
    entry: Suspension,
    live: Json,
    marks: Mapping[str, str | None],
    spec: Mapping[str, Any],
) -> bool:
    """False when somebody wrote the owner since `live` was read."""
    version = text(metadata(live).get("resourceVersion"))
    meta = {"annotations": dict(marks), "uid": entry.uid, "resourceVersion": version}
    body: dict[str, Any] = {"metadata": meta, **({"spec": dict(spec)} if spec else {})}
    query = {"fieldManager": MANAGER}
    try:
        connection.request("PATCH", entry.path, body, query=query, content_type=_MERGE)
    except ApiError as error:
        if error.status in {404, 409} or is_another(error):
            return False
        raise
    return True


# --- the field of each kind ----------------------------------------------------------------------


def _is_argo(owner: GitopsOwner) -> bool:
    return owner.kind == "Application"


def _field(owner: GitopsOwner, live: Json) -> dict[str, Any]:
    """What there is of the field, {} for nothing."""
    if _is_argo(owner):
        policy = dig(live, "spec", "syncPolicy") or {}
        return {"automated": policy["automated"]} if "automated" in policy else {}
    spec = dig(live, "spec") or {}
    return {"suspend": spec["suspend"]} if "suspend" in spec else {}


def _is_suspended(owner: GitopsOwner, live: Json) -> bool:
    if _is_argo(owner):
        return dig(live, "spec", "syncPolicy", "automated") is None
    return dig(live, "spec", "suspend") is True


def _suspended(owner: GitopsOwner) -> dict[str, Any]:
    return {"syncPolicy": {"automated": None}} if _is_argo(owner) else {"suspend": True}


def _as_it_was(owner: GitopsOwner, was: Mapping[str, Any]) -> dict[str, Any]:
    if _is_argo(owner):
        return {"syncPolicy": {"automated": was.get("automated")}}
    return {"suspend": was.get("suspend")}


def _was(live: Json) -> dict[str, Any]:
    try:
        found = json.loads(annotation(live, WAS) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sessions(live: Json) -> list[str]:
    return [each for each in annotation(live, SUSPENDED_BY).split(",") if each]


def _may_live(session: str) -> bool:
    """False for a session of this computer whose process is gone."""
    holder, me = Holder.read(session), Holder.own()
    return holder is None or holder.host != me.host or is_alive(holder.pid) is not False


def _forbidden(owner: GitopsOwner, error: ApiError) -> DevloopError:
    return DevloopError.of(
        Code.CLUSTER_FORBIDDEN,
        f"{owner} cannot be suspended: you may not patch it",
        cause=error.diagnosis.cause or error.diagnosis.message,
        suggestions=(
            f"ask somebody who may: {owner.suspend_command}",
            "or work in another namespace: --namespace NAME",
        ),
    )
