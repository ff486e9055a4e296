"""What killed sessions left paused, and who resumes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.kinds import workload_path
from devloop.cluster.deploy.lease import Holder, lease_path
from devloop.cluster.deploy.recovery import recover_abandoned
from devloop.cluster.replace.pause import with_pause
from devloop.model import WorkloadRef
from tests.support.cluster_objects import deployment
from tests.support.fake_api import FakeApi, Fault, status

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection

WEB = WorkloadRef("deployment", "web", "dev")
ANNA = Holder(user="anna", host="there", pid=7, token="b2")


def _lease(age: float) -> dict[str, Any]:
    renewed = datetime.now(UTC) - timedelta(seconds=age)
    return {
        "metadata": {"name": "devloop-web"},
        "spec": {
            "holderIdentity": ANNA.identity,
            "leaseDurationSeconds": 15,
            "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }


def _paused(api: FakeApi) -> bool:
    return bool(api.objects[workload_path(WEB)]["spec"].get("paused"))


@pytest.fixture
def paused(api: FakeApi) -> FakeApi:
    api.put(workload_path(WEB), with_pause(deployment()))
    return api


@pytest.mark.parametrize("age", [None, 20.0])
def test_a_pause_without_a_session_is_ended(
    paused: FakeApi, connection: Connection, age: float | None
) -> None:
    if age is not None:
        paused.put(lease_path(WEB), _lease(age))
    (report,) = recover_abandoned(connection, [WEB])
    assert report.message.endswith("was left paused by a session that was killed: resumed")
    assert not _paused(paused)


def test_a_pause_that_a_session_works_at_is_told_and_left(
    paused: FakeApi, connection: Connection
) -> None:
    paused.put(lease_path(WEB), _lease(1.0))
    (report,) = recover_abandoned(connection, [WEB])
    assert report.message == "deployment/web is paused: anna@there, pid 7, is replacing its pods"
    assert _paused(paused)


def test_where_leases_may_not_be_read_nothing_is_ended(
    paused: FakeApi, connection: Connection
) -> None:
    forbidden = status(403, "Forbidden", 'leases is forbidden: User "u" cannot get resource')
    paused.faults.append(Fault(method="GET", path="leases", code=403, body=forbidden))
    (report,) = recover_abandoned(connection, [WEB])
    assert "or was killed at it" in report.message
    assert _paused(paused)


def test_whoever_has_the_lease_now_ends_it(paused: FakeApi, connection: Connection) -> None:
    paused.put(lease_path(WEB), _lease(1.0))
    assert len(recover_abandoned(connection, [WEB], own=True)) == 1
    assert not _paused(paused)


def test_an_owners_pause_is_the_owners(api: FakeApi, connection: Connection) -> None:
    own = deployment()
    own["spec"]["paused"] = True
    api.put(workload_path(WEB), own)
    others = [WEB, WorkloadRef("statefulset", "web", "dev")]
    assert recover_abandoned(connection, others) == ()
    assert _paused(api)
