"""What a session does where Flux or Argo CD owns what it would write: it holds, or suspends the
owner for as long as it works (`--suspend-gitops`).

Asked before each deploy, with the objects as they are; asks the cluster only where they carry the
marks of one of these tools.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import annotation, name_of, text
from devloop.cluster.deploy.gitops_owners import GitopsOwners, named_owners, put_back_by
from devloop.cluster.deploy.lease import Holder
from devloop.cluster.deploy.suspensions import SUSPENDED_BY, SuspensionLog, resume, suspend
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.pod_view import Json
    from devloop.cluster.deploy.gitops_owners import GitopsOwner, OwnerState
    from devloop.cluster.deploy.suspensions import Suspension


class GitopsGuard:
    """One session's. `suspends`: owners are suspended until `close`. Thread-safe. `report` gets
    what happens at the end."""

    def __init__(
        self,
        connection: Connection,
        state_dir: Path,
        *,
        suspends: bool = False,
        report: Callable[[Diagnosis], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._owners = GitopsOwners(connection)
        self._log = SuspensionLog(state_dir)
        self._suspends = suspends
        self._report = report
        self._me = Holder.own().identity
        self._lock = threading.Lock()
        self._suspended: dict[str, Suspension] = {}
        self._told: set[tuple[str, str, str]] = set()

    def check(self, things: Iterable[Json | None], notify: Callable[[Diagnosis], None]) -> bool:
        """Raise safety/gitops-owned where an owner of one of `things` would put back what is
        written, after suspending it if that is wanted; True when one of them has an owner that is
        quiet. `notify` gets what is said once. Errors: cluster/*, env/*."""
        owned = False
        with self._lock:
            for thing in things:
                if thing is None or not named_owners(thing):
                    continue
                for state in self._owners.of(thing):
                    owned = True
                    self._one(state, thing, notify)
        return owned

    def knows(self, thing: Json) -> bool:
        """Whether `check` has something to say of it. Asks nobody."""
        return any(owner.sure for owner in named_owners(thing))

    def close(self) -> None:
        """Resume what was suspended, as far as the cluster is reached: the log keeps the rest."""
        with self._lock:
            entries, self._suspended = tuple(self._suspended.values()), {}
        for diagnosis in _resume(self._connection, self._log, entries):
            self._report(diagnosis)

    def _one(self, state: OwnerState, thing: Json, notify: Callable[[Diagnosis], None]) -> None:
        owner, what = state.owner, _named(thing)
        # One that another session suspended is to stay so until this one ends, too.
        joins = self._suspends and bool(annotation(state.live or {}, SUSPENDED_BY))
        if state.quiet and (not joins or state.path in self._suspended):
            if state.path not in self._suspended:
                self._once(
                    notify, owner, what, _note(f"{owner} owns {what} and leaves it: {state.quiet}")
                )
            return
        if not self._suspends or state.path in self._suspended:
            again = state.path in self._suspended
            raise _owned(owner, what, again=again)
        entry = suspend(self._connection, self._log, state, self._me)
        if entry is None:
            return
        self._suspended[state.path] = entry
        notify(_note(f"{owner} is suspended until this session ends: it owns {what}"))
        by = put_back_by(owner, state.live or {})
        if by:
            notify(
                Diagnosis(
                    code=Code.SAFETY_GITOPS_OWNED,
                    severity="warning",
                    message=f"{owner} will not stay suspended",
                    cause=f"it is put back by {by}",
                    suggestions=("suspend that one as well while you work",),
                )
            )

    def _once(
        self, notify: Callable[[Diagnosis], None], owner: GitopsOwner, what: str, note: Diagnosis
    ) -> None:
        key = (str(owner), what, note.message)
        if key not in self._told:
            self._told.add(key)
            notify(note)


def resume_left(connection: Connection, state_dir: Path) -> tuple[Diagnosis, ...]:
    """Resume what sessions of this project left suspended that were killed; what to report. What
    cannot be reached now stays in the log."""
    log = SuspensionLog(state_dir)
    entries = [entry for entry in log.entries() if entry.context == connection.context]
    return tuple(_resume(connection, log, entries, by="a session that was killed"))


def _resume(
    connection: Connection, log: SuspensionLog, entries: Iterable[Suspension], *, by: str = ""
) -> Iterator[Diagnosis]:
    """Resume each; what to report. `by` says who had suspended them, where it was not this
    session."""
    for entry in entries:
        try:
            said = resume(connection, log, entry)
        except DevloopError as error:
            yield Diagnosis(
                code=Code.SAFETY_GITOPS_OWNED,
                severity="warning",
                message=f"{entry.owner} is still suspended{by and f' by {by}'}",
                cause=error.diagnosis.message,
                suggestions=(
                    "the next devloop command here resumes it, `devloop status` say",
                    f"or by hand: {entry.owner.resume_command}",
                ),
            )
            continue
        if said:
            yield _note(f"{said}{by and f': {by} had suspended it'}")


def _owned(owner: GitopsOwner, what: str, *, again: bool) -> DevloopError:
    cause = "it was resumed while this session works" if again else f"by the mark {owner.by} on it"
    # The live view shows no more of a warning than this.
    ways = f"{owner.suspend_command}, or start with --suspend-gitops"
    flag = "add --suspend-gitops to `dev` or `run`: it is suspended until the session ends"
    return DevloopError.of(
        Code.SAFETY_GITOPS_OWNED,
        f"{owner} owns {what} and would put back what devloop writes",
        cause=f"{cause}; ways out: {ways}, or another --namespace",
        suggestions=(
            flag,
            f"or suspend it yourself: {owner.suspend_command}",
            "or work in another namespace: --namespace NAME",
        ),
    )


def _note(message: str) -> Diagnosis:
    return Diagnosis(code=Code.SAFETY_GITOPS_OWNED, severity="info", message=message)


def _named(thing: Json) -> str:
    kind = text(thing.get("kind")).lower()
    return f"{kind}/{name_of(thing)}"
