from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.deploy.lease import Holder, holder_of, judge, lease_name, lease_path
from devloop.cluster.deploy.session_lease import SessionLeases
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.model import WorkloadRef
from tests.support.fake_api import FakeApi, Fault, status
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.api.connection import Connection

WEB = WorkloadRef("deployment", "web", "dev")
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
ME = Holder(user="me", host="here", pid=1, token="a1")
OTHER = Holder(user="anna", host="there", pid=7, token="b2")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Session:
    """A session's leases, with what it was told."""

    def __init__(self, connection: Connection, me: Holder = ME, **more: Any) -> None:
        self.clock = Clock()
        self.lost: list[DevloopError] = []
        self.said: list[str] = []
        self.leases = SessionLeases(
            connection,
            more.pop("refs", [WEB]),
            project="shop",
            on_lost=self.lost.append,
            report=lambda d: self.said.append(d.message),
            clock=self.clock,
            me=me,
            **{"renew": 0.01, "look": 0.01, **more},
        )


@contextlib.contextmanager
def acquired(session: Session) -> Iterator[Session]:
    try:
        session.leases.acquire(Cancel())
        yield session
    finally:
        session.leases.close()


def lease(by: Holder = OTHER, *, age: float = 1.0, **more: Any) -> dict[str, Any]:
    renewed = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": by.identity, "renewTime": renewed, "leaseDurationSeconds": 15}
    return {"kind": "Lease", "metadata": {"name": "devloop-web", **more}, "spec": spec}


# --- whose it is ---------------------------------------------------------------------------------


def test_a_holder_is_read_back_from_its_identity() -> None:
    odd = Holder(user="anna@corp", host="pc-1.lan", pid=9, token="c3")
    assert Holder.read(odd.identity) == odd
    assert Holder.read("kube-controller-manager_1234") is None
    assert Holder.read("") is None


def test_a_lease_that_is_renewed_is_its_holders() -> None:
    held = judge(lease(), ME, now=NOW)
    assert held is not None
    assert held.by == "anna@there, pid 7"
    assert not held.late


@pytest.mark.parametrize("age", [8.0, -8.0])
def test_one_that_was_not_renewed_in_time_may_be_nobodys_soon(age: float) -> None:
    held = judge(lease(age=age), ME, now=NOW)
    assert held is not None
    assert held.late


@pytest.mark.parametrize(
    "free",
    [
        lease(age=16.0),
        lease(ME),
        {"spec": {"holderIdentity": "", "renewTime": "2026-01-01T12:00:00.000000Z"}},
        {"spec": {"holderIdentity": OTHER.identity, "renewTime": "soon"}},
        {},
    ],
)
def test_a_lease_is_free(free: dict[str, Any]) -> None:
    assert judge(free, ME, now=NOW) is None


def test_a_process_of_this_computer_that_is_gone_holds_nothing() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    here = Holder(user="me", host="here", pid=ended.pid, token="x")
    assert judge(lease(here), ME, now=NOW) is None
    alive = Holder(user="me", host="here", pid=os.getpid(), token="x")
    assert judge(lease(alive), ME, now=NOW) is not None


def test_a_name_tells_kinds_apart() -> None:
    assert lease_name(WEB) == "devloop-web"
    assert lease_name(WorkloadRef("statefulset", "web", "dev")) == "devloop-statefulset-web"


# --- having one ----------------------------------------------------------------------------------


def test_one_is_made_renewed_and_given_back(api: FakeApi, connection: Connection) -> None:
    session = Session(connection)
    with acquired(session):
        made = api.objects[lease_path(WEB)]
        assert made["spec"]["holderIdentity"] == ME.identity
        assert made["spec"]["renewTime"] == "2026-01-01T12:00:00.000000Z"
        assert made["metadata"]["annotations"] == {"devloop.dev/project": "shop"}
        session.clock.now += timedelta(seconds=5)
        until(lambda: "12:00:05" in api.objects[lease_path(WEB)]["spec"]["renewTime"])
    assert lease_path(WEB) not in api.objects
    assert session.lost == []


def test_a_second_session_is_refused_at_once(api: FakeApi, connection: Connection) -> None:
    api.put(lease_path(WEB), lease())
    session = Session(connection)
    with pytest.raises(DevloopError) as refused, acquired(session):
        pass
    assert refused.value.code is Code.SAFETY_LEASE
    assert refused.value.exit_status is ExitStatus.REFUSED
    assert "anna@there, pid 7" in str(refused.value.diagnosis.cause)
    assert any("--takeover" in s for s in refused.value.diagnosis.suggestions)
    assert api.objects[lease_path(WEB)]["spec"]["holderIdentity"] == OTHER.identity


def test_one_that_ran_out_is_taken(api: FakeApi, connection: Connection) -> None:
    api.put(lease_path(WEB), lease(age=60.0))
    with acquired(Session(connection)):
        spec = api.objects[lease_path(WEB)]["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == (ME.identity, 1)


def test_one_whose_holder_is_late_is_waited_for(api: FakeApi, connection: Connection) -> None:
    api.put(lease_path(WEB), lease(age=9.0))
    session = Session(connection)
    taken = threading.Thread(target=session.leases.acquire, args=(Cancel(),))
    taken.start()
    until(lambda: len(api.said("GET", "leases")) > 2)
    assert api.objects[lease_path(WEB)]["spec"]["holderIdentity"] == OTHER.identity
    session.clock.now += timedelta(seconds=7)
    taken.join(5)
    assert api.objects[lease_path(WEB)]["spec"]["holderIdentity"] == ME.identity
    session.leases.close()


def test_a_late_holder_that_comes_back_keeps_it(api: FakeApi, connection: Connection) -> None:
    api.put(lease_path(WEB), lease(age=9.0))
    session = Session(connection)
    raised: list[Code] = []

    def acquire() -> None:
        try:
            session.leases.acquire(Cancel())
        except DevloopError as error:
            raised.append(error.code)

    waiting = threading.Thread(target=acquire)
    waiting.start()
    until(lambda: len(api.said("GET", "leases")) > 1)
    api.put(lease_path(WEB), lease(age=0.0))
    waiting.join(5)
    assert raised == [Code.SAFETY_LEASE]
    session.leases.close()


def test_of_two_that_take_a_free_one_only_one_has_it(api: FakeApi, connection: Connection) -> None:
    api.put(lease_path(WEB), lease(age=60.0))
    sessions = [
        Session(connection, Holder(user="u", host=f"h{n}", pid=n, token="t")) for n in (1, 2)
    ]
    refused: list[Session] = []

    def acquire(session: Session) -> None:
        try:
            session.leases.acquire(Cancel())
        except DevloopError:
            refused.append(session)

    threads = [threading.Thread(target=acquire, args=(s,)) for s in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(refused) == 1
    for session in sessions:
        session.leases.close()
    assert lease_path(WEB) not in api.objects


def test_a_takeover_asks_the_holder_who_gives_it_up(api: FakeApi, connection: Connection) -> None:
    first, second = Session(connection, OTHER), Session(connection, ME, takeover=True)
    first.leases.acquire(Cancel())
    taking = threading.Thread(target=second.leases.acquire, args=(Cancel(),))
    taking.start()
    until(lambda: bool(first.lost))
    assert taking.is_alive()
    assert "took over deployment/web" in first.lost[0].diagnosis.message
    assert first.lost[0].diagnosis.cause == "me@here, pid 1"
    first.leases.close()
    taking.join(5)
    assert api.objects[lease_path(WEB)]["spec"]["holderIdentity"] == ME.identity
    second.leases.close()
    assert lease_path(WEB) not in api.objects


def _looked_again(api: FakeApi, taking: threading.Thread, seen: int) -> bool:
    return len(api.said("GET", "leases")) > seen or not taking.is_alive()


def test_a_takeover_does_not_wait_for_one_that_never_goes(
    api: FakeApi, connection: Connection
) -> None:
    api.put(lease_path(WEB), lease())
    session = Session(connection, takeover=True)
    taking = threading.Thread(target=session.leases.acquire, args=(Cancel(),))
    taking.start()
    for second in range(30):
        if not taking.is_alive():
            break
        looked_again = functools.partial(_looked_again, api, taking, len(api.said("GET", "leases")))
        until(looked_again)
        with api.lock:
            found = api.objects[lease_path(WEB)]
            if found["spec"]["holderIdentity"] == OTHER.identity:
                api.put(
                    lease_path(WEB),
                    lease(age=-float(second), annotations=found["metadata"].get("annotations")),
                )
        session.clock.now += timedelta(seconds=1)
    taking.join(5)
    assert api.objects[lease_path(WEB)]["spec"]["holderIdentity"] == ME.identity
    session.leases.close()


def test_a_session_that_slept_and_lost_it_is_told(api: FakeApi, connection: Connection) -> None:
    session = Session(connection)
    with acquired(session):
        api.put(lease_path(WEB), lease(age=0.0))
        until(lambda: bool(session.lost))
        assert session.lost[0].code is Code.SAFETY_LEASE
    assert api.objects[lease_path(WEB)]["spec"]["holderIdentity"] == OTHER.identity


def test_one_that_somebody_deleted_is_made_again(api: FakeApi, connection: Connection) -> None:
    session = Session(connection)
    with acquired(session):
        api.remove(lease_path(WEB))
        until(lambda: lease_path(WEB) in api.objects)
    assert session.lost == []


def test_a_silent_cluster_loses_nothing(api: FakeApi, connection: Connection) -> None:
    session = Session(connection)
    with acquired(session):
        api.faults.append(Fault(method="PATCH", path="leases", times=2, drop=True))
        session.clock.now += timedelta(seconds=5)
        until(lambda: "12:00:05" in api.objects[lease_path(WEB)]["spec"]["renewTime"])
    assert session.lost == []


def test_without_the_right_to_leases_the_session_goes_on_and_says_so_once(
    api: FakeApi, connection: Connection
) -> None:
    forbidden = status(403, "Forbidden", 'leases is forbidden: User "u" cannot create')
    api.faults.append(Fault(method="POST", path="leases", times=99, code=403, body=forbidden))
    session = Session(connection, refs=[WEB, WorkloadRef("deployment", "api", "dev")])
    with acquired(session):
        assert len(session.said) == 1
        assert "would not be noticed" in session.said[0]


def test_in_a_namespace_that_comes_later_it_is_had_later(
    api: FakeApi, connection: Connection
) -> None:
    api.namespaces = set()
    session = Session(connection)
    with acquired(session):
        assert lease_path(WEB) not in api.objects
        api.namespaces = {"dev"}
        until(lambda: lease_path(WEB) in api.objects)
    assert session.said == []


def test_more_are_had_later_and_given_back_alone(api: FakeApi, connection: Connection) -> None:
    db, api_ref = WorkloadRef("deployment", "db", "dev"), WorkloadRef("deployment", "api", "dev")
    session = Session(connection, refs=[])
    with acquired(session):
        session.leases.extend([WEB], Cancel())
        session.clock.now += timedelta(seconds=5)
        until(lambda: "12:00:05" in api.objects[lease_path(WEB)]["spec"]["renewTime"])
        api.put(lease_path(db), lease())
        with pytest.raises(DevloopError) as refused:
            session.leases.extend([api_ref, db], Cancel())
        assert refused.value.code is Code.SAFETY_LEASE
        assert lease_path(api_ref) not in api.objects
        session.leases.release([WEB])
        assert lease_path(WEB) not in api.objects
    assert session.lost == []


def test_who_works_with_a_workload_is_told_in_words(api: FakeApi, connection: Connection) -> None:
    assert holder_of(connection, WEB) == ""
    fresh = lease()
    fresh["spec"]["renewTime"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    api.put(lease_path(WEB), fresh)
    assert holder_of(connection, WEB) == "anna@there, pid 7"


def test_what_a_killed_session_left_is_known_by_its_lease(
    api: FakeApi, connection: Connection
) -> None:
    api.put(lease_path(WEB), lease(age=60.0))
    other = WorkloadRef("deployment", "api", "dev")
    with acquired(Session(connection, refs=[WEB, other])) as session:
        assert session.leases.left_behind == {WEB}
