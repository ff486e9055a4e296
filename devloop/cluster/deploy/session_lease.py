"""One session a workload: its Lease is had, renewed and given back.

The local lock keeps two sessions of one folder apart; this keeps apart those of two folders, two
computers, two people. Whose a Lease is, `lease` decides; what a session does that loses one is the
session's affair: it is told.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel
from devloop.base.threads import supervised
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.connection import STRATEGIC
from devloop.cluster.api.pod_view import Json, annotation, dig, metadata, number, text, uid_of
from devloop.cluster.api.writes import MANAGER
from devloop.cluster.deploy.lease import (
    DURATION,
    RENEW,
    Holder,
    judge,
    lease_collection,
    lease_name,
    lease_path,
    this_very,
)
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.lease import Held
    from devloop.model import WorkloadRef


# Who asks the holder to give it up.
_TAKEOVER = "devloop.dev/takeover"
_LOOK = 0.5
_PARALLEL = 8


class SessionLeases:
    """The leases of one session, one a workload. `acquire` once, then `close`.

    `on_lost` is told, from the renewing thread, that another session has taken one over; `report`
    gets what the user should know. With `takeover` the present holders are asked to go."""

    def __init__(
        self,
        connection: Connection,
        refs: Iterable[WorkloadRef],
        *,
        project: str,
        takeover: bool = False,
        on_lost: Callable[[DevloopError], None],
        report: Callable[[Diagnosis], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        me: Holder | None = None,
        renew: float = RENEW,
        look: float = _LOOK,
    ) -> None:
        self.me = me or Holder.own()
        self._connection = connection
        self._refs = tuple(dict.fromkeys(refs))
        self._project = project
        self._takeover = takeover
        self._on_lost = on_lost
        self._report = report
        self._clock = clock
        self._interval = renew
        self._look = look
        self._lock = threading.Lock()
        self._held: dict[WorkloadRef, Json] = {}
        self._without: set[WorkloadRef] = set()
        self._left: set[WorkloadRef] = set()
        self._warned = False
        self._ending = Cancel()
        self._thread = supervised("leases", self._keep)

    def acquire(self, cancel: Cancel) -> None:
        """Have every lease, or raise safety/lease. A namespace that is not there yet, and a cluster
        that does not let us have leases, stop nobody: see `report`. Errors: cluster/*."""
        self._acquire_all(self._refs, cancel)

    def extend(self, refs: Iterable[WorkloadRef], cancel: Cancel) -> None:
        """Have those of more workloads as well, or, raising safety/lease, none of them. Errors:
        cluster/*."""
        more = tuple(ref for ref in dict.fromkeys(refs) if ref not in self._refs)
        try:
            self._acquire_all(more, cancel)
        except BaseException:
            self._let_go(more)
            raise
        self._refs += more

    def release(self, refs: Iterable[WorkloadRef]) -> None:
        """Give those of some workloads back; quick, and silent where the cluster is."""
        gone = set(refs)
        self._refs = tuple(ref for ref in self._refs if ref not in gone)
        self._let_go(gone)

    def _acquire_all(self, refs: tuple[WorkloadRef, ...], cancel: Cancel) -> None:
        if not refs:
            return
        with ThreadPoolExecutor(
            min(_PARALLEL, len(refs)), thread_name_prefix="devloop-leases"
        ) as pool:
            for done in [pool.submit(self._acquire, ref, cancel) for ref in refs]:
                done.result()
        if not self._ending.is_set() and not self._thread.is_alive():
            self._thread.start()

    def _let_go(self, refs: Iterable[WorkloadRef]) -> None:
        with self._lock:
            mine = [(ref, self._held.pop(ref)) for ref in refs if ref in self._held]
            self._without.difference_update(refs)
        for each in mine:
            self._give_back(each)

    @property
    def left_behind(self) -> frozenset[WorkloadRef]:
        """The workloads whose lease a session had that did not give it back."""
        with self._lock:
            return frozenset(self._left)

    def close(self) -> None:
        """Give back what is held; quick, and silent where the cluster is."""
        self._ending.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        with self._lock:
            held, self._held = self._held, {}
        if not held:
            return
        with ThreadPoolExecutor(
            min(_PARALLEL, len(held)), thread_name_prefix="devloop-leases"
        ) as pool:
            list(pool.map(self._give_back, held.items()))

    # --- having one ------------------------------------------------------------------------------

    def _acquire(self, ref: WorkloadRef, cancel: Cancel) -> None:
        began = since = self._clock()
        seen, asked = "", False
        while not self._created(ref) and ref not in self._without:
            cancel.check()
            lease = self._connection.find(lease_path(ref))
            if lease is None:
                continue
            now = self._clock()
            held = judge(lease, self.me, now=now)
            if held is not None and held.renewed != seen:
                if not self._takeover and (seen or not held.late):
                    raise self._refused(ref, held)
                seen, since = held.renewed, now
            # Not renewed all the while that we looked: whatever the clocks say, nobody is there.
            silent = (now - since).total_seconds() > DURATION
            # One that was asked to go and stays is no session of this version.
            patient = not asked or (now - began).total_seconds() < DURATION + RENEW
            if held is None or silent or not patient:
                if self._taken(ref, lease):
                    return
                continue
            if self._takeover and not asked:
                asked = self._ask_to_go(ref, lease)
            cancel.wait(self._look)

    def _created(self, ref: WorkloadRef) -> bool:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": lease_name(ref),
                "annotations": {"devloop.dev/project": self._project},
            },
            "spec": {**self._spec(), "acquireTime": _micro_time(self._clock())},
        }
        try:
            made = self._connection.request(
                "POST", lease_collection(ref), body, query={"fieldManager": MANAGER}
            )
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return False
            if error.status in {403, 404, 405}:
                self._go_without(ref, error)
                return False
            raise
        self._have(ref, made)
        return True

    def _taken(self, ref: WorkloadRef, lease: Json) -> bool:
        """Whether a lease that is free is mine now: of two that try only one succeeds."""
        turns = int(number(dig(lease, "spec", "leaseTransitions"))) + 1
        now = _micro_time(self._clock())
        spec = {**self._spec(), "acquireTime": now, "leaseTransitions": turns}
        changed = self._patch(ref, lease, {"annotations": {_TAKEOVER: None}}, spec)
        if changed is not None:
            self._have(ref, changed)
            with self._lock:
                self._left.add(ref)
        return changed is not None

    def _ask_to_go(self, ref: WorkloadRef, lease: Json) -> bool:
        mark = {"annotations": {_TAKEOVER: self.me.identity}}
        return self._patch(ref, lease, mark, {}) is not None

    def _have(self, ref: WorkloadRef, lease: Json) -> None:
        with self._lock:
            self._without.discard(ref)
            self._held[ref] = lease

    def _go_without(self, ref: WorkloadRef, error: ApiError) -> None:
        self._without.add(ref)
        # A namespace may come with the manifests: the renewing thread tries again.
        if error.status == 404 and error.details.get("kind") == "namespaces":
            return
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            self._report(
                Diagnosis(
                    code=Code.SAFETY_LEASE,
                    severity="info",
                    message="another session on the same workloads would not be noticed",
                    cause=f"no Lease can be kept beside them: {error.diagnosis.message}",
                )
            )

    def _refused(self, ref: WorkloadRef, held: Held) -> DevloopError:
        return DevloopError.of(
            Code.SAFETY_LEASE,
            f"another devloop session works with {ref} in {ref.namespace}",
            cause=f"{held.by}, renewed its lease at {held.renewed}",
            suggestions=(
                "end that session (Ctrl-C there)",
                "or take the workload over from it: add --takeover",
                f"look at it: kubectl -n {ref.namespace} get lease {lease_name(ref)}",
            ),
        )

    # --- keeping it ------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._ending.wait(self._interval):
            with self._lock:
                held = dict(self._held)
            for ref in self._refs:
                if self._ending.is_set():
                    return
                if ref not in self._refs:
                    continue  # given back meanwhile
                try:
                    self._renew(ref, held.get(ref))
                except ApiError as error:
                    if error.status in {403, 404, 405}:
                        self._go_without(ref, error)
                except DevloopError as error:
                    if error.code is Code.SAFETY_LEASE:
                        self._on_lost(error)
                        return
                    # The cluster does not answer: when it does again, the lease tells whose it is.

    def _renew(self, ref: WorkloadRef, lease: Json | None) -> None:
        if lease is None:
            if ref not in self._without or not self._created(ref):
                self._look_again(ref)
            return
        changed = self._patch(ref, lease, {}, self._spec())
        if changed is not None:
            self._have(ref, changed)
        else:
            self._look_again(ref)

    def _look_again(self, ref: WorkloadRef) -> None:
        """Somebody wrote the lease. Raises safety/lease when that was another session."""
        lease = self._connection.find(lease_path(ref), absent=(403, 404, 405))
        if lease is None:
            self._created(ref)
            return
        identity = text(dig(lease, "spec", "holderIdentity"))
        asker = annotation(lease, _TAKEOVER)
        held = judge(lease, self.me, now=self._clock())
        if identity == self.me.identity and not asker:
            self._have(ref, lease)
        elif identity != self.me.identity and held is None:
            self._taken(ref, lease)
        else:
            holder = Holder.read(asker or identity)
            with self._lock:
                if identity != self.me.identity:
                    self._held.pop(ref, None)
                else:
                    self._held[ref] = lease
            raise DevloopError.of(
                Code.SAFETY_LEASE,
                f"another devloop session took over {ref} in {ref.namespace}",
                cause=str(holder or asker or identity),
                suggestions=("start again with --takeover to take it back",),
            )

    def _give_back(self, item: tuple[WorkloadRef, Json]) -> None:
        ref, lease = item
        try:
            self._connection.request("DELETE", lease_path(ref), this_very(lease), timeout=1.0)
        except ApiError as error:
            if error.status != 409:
                return
        except DevloopError:
            return  # it ends by itself
        else:
            return
        with_now = self._still_mine(ref)
        if with_now is not None:
            self._give_back((ref, with_now))

    def _still_mine(self, ref: WorkloadRef) -> Json | None:
        try:
            lease = self._connection.find(lease_path(ref))
        except DevloopError:
            return None
        mine = text(dig(lease, "spec", "holderIdentity")) == self.me.identity
        return lease if mine else None

    def _spec(self) -> dict[str, Any]:
        return {
            "holderIdentity": self.me.identity,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": _micro_time(self._clock()),
        }

    def _patch(
        self, ref: WorkloadRef, lease: Json, meta: dict[str, Any], spec: dict[str, Any]
    ) -> Json | None:
        """The lease as it is then; None when somebody wrote it since `lease` was read."""
        version = text(metadata(lease).get("resourceVersion"))
        body = {
            "metadata": {**meta, "uid": uid_of(lease), "resourceVersion": version},
            "spec": spec,
        }
        try:
            return self._connection.request(
                "PATCH",
                lease_path(ref),
                body,
                query={"fieldManager": MANAGER},
                content_type=STRATEGIC,
                timeout=RENEW,
            )
        except ApiError as error:
            if error.status in {404, 409, 422}:
                return None
            raise


def _micro_time(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
