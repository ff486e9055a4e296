"""The Lease beside a workload, read: which session works with it. Decisions are pure but for the
look whether a process of this computer is there.
"""

from __future__ import annotations

import getpass
import os
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.process import is_alive
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.pod_view import Json, dig, metadata, number, text

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection
    from devloop.model import WorkloadRef


DURATION = 15.0  # seconds without a renewal after which a lease is anybody's
RENEW = 5.0

# Of a lease that its holder should have renewed by now, whoever comes waits for its end.
_LATE = RENEW + 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A session, as a Lease's `holderIdentity` names it: `USER@HOST/PID/TOKEN`."""

    user: str
    host: str
    pid: int
    token: str

    @classmethod
    def own(cls) -> Holder:
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a user id without a name, as in many containers
            user = str(os.getuid())
        host = os.uname().nodename or "unknown"
        return cls(user=user, host=host, pid=os.getpid(), token=secrets.token_hex(4))

    @classmethod
    def read(cls, identity: str) -> Holder | None:
        """None for one that no devloop wrote."""
        who, _, rest = identity.rpartition("/")[0].rpartition("/")
        user, at, host = who.rpartition("@")
        if not at or not rest.isdigit():
            return None
        return cls(user=user, host=host, pid=int(rest), token=identity.rpartition("/")[2])

    @property
    def identity(self) -> str:
        return f"{self.user}@{self.host}/{self.pid}/{self.token}"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, pid {self.pid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Somebody else has the lease: `by` in words. `late` says that its holder should have renewed
    it by now, or that its clock and ours differ too much to tell."""

    by: str
    renewed: str
    late: bool


def judge(lease: Json, me: Holder, *, now: datetime) -> Held | None:
    """Who else has this Lease; None when it is free or mine.

    A holder of this very computer whose process is gone has given it up."""
    identity = text(dig(lease, "spec", "holderIdentity"))
    holder = Holder.read(identity)
    if not identity or holder == me:
        return None
    if holder is not None and holder.host == me.host and is_alive(holder.pid) is False:
        return None
    renewed = text(dig(lease, "spec", "renewTime"))
    age = _seconds_since(renewed, now)
    if age is None:
        return None
    if age > (number(dig(lease, "spec", "leaseDurationSeconds")) or DURATION):
        return None
    late = age > _LATE or age < -_LATE
    return Held(by=str(holder) if holder else identity, renewed=renewed, late=late)


def lease_path(ref: WorkloadRef) -> str:
    return f"{lease_collection(ref)}/{lease_name(ref)}"


def lease_name(ref: WorkloadRef) -> str:
    kind = "" if ref.kind == "deployment" else f"{ref.kind}-"
    return f"devloop-{kind}{ref.name}"


def holder_of(connection: Connection, ref: WorkloadRef) -> str | None:
    """The session that works with a workload now, in words; "" when none does, None where leases
    may not be read. Errors: cluster/*."""
    try:
        lease = connection.find(lease_path(ref))
    except ApiError as error:
        if error.status == 403:
            return None
        raise
    held = judge(lease, Holder.own(), now=datetime.now(UTC)) if lease is not None else None
    return held.by if held is not None else ""


def this_very(lease: Json) -> dict[str, object]:
    """The body of a request that deletes the Lease as it was read, and none that came since."""
    meta = metadata(lease)
    return {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "preconditions": {
            "uid": text(meta.get("uid")),
            "resourceVersion": text(meta.get("resourceVersion")),
        },
    }


def lease_collection(ref: WorkloadRef) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{ref.namespace}/leases"


def _seconds_since(moment: str, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(moment)).total_seconds()
    except ValueError:
        return None
