"""A workload as it was before devloop: what is written, and what is waited for."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.deploy.original import keep_original, original_of
from devloop.cluster.deploy.ownership import desired
from devloop.cluster.deploy.restore import restore, rollout_state
from devloop.errors import Code, DevloopError
from devloop.model import WorkloadRef
from tests.support.cluster_objects import deployment
from tests.support.deploy_stage import WEB

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from tests.support.fake_api import FakeApi

REF = WorkloadRef("deployment", "web", "dev")


@pytest.fixture
def before(api: FakeApi, connection: Connection, tmp_path: Path) -> dict[str, Any]:
    """A Deployment of somebody's that devloop has changed since."""
    thing = deployment("nginx:1.27")
    thing["metadata"] |= {"labels": {"team": "a"}}
    thing["spec"]["template"]["spec"]["containers"][0]["command"] = ["nginx"]
    found = api.put(WEB, thing)
    assert keep_original(tmp_path, connection.context, found)
    changed = desired(copy.deepcopy(found), found, "shop")
    container = changed["spec"]["template"]["spec"]["containers"][0]
    container |= {"image": "r/web@sha256:1", "command": ["/devloop", "nginx"]}
    changed["spec"]["template"]["metadata"]["annotations"] = {"devloop.dev/reads": "x"}
    changed["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "7"
    api.put(WEB, {**changed, "status": found["status"]})
    return found


def test_the_spec_is_that_of_before_and_devloop_has_left_no_mark(
    api: FakeApi, connection: Connection, tmp_path: Path, before: dict[str, Any]
) -> None:
    assert restore(connection, tmp_path, REF, dry_run=True).what == "would"
    done = restore(connection, tmp_path, REF)
    assert (done.what, done.images) == ("restored", {"web": "nginx:1.27"})
    now = api.objects[WEB]
    assert now["spec"] == before["spec"]
    assert now["metadata"]["labels"] == {"team": "a"}
    # The controllers' own is theirs.
    assert now["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "7"}
    # What is found from now on is somebody's again.
    assert original_of(tmp_path, connection.context, now) is None
    assert restore(connection, tmp_path, REF).what == "untouched"


@pytest.mark.usefixtures("before")
def test_somebody_who_writes_meanwhile_is_not_overwritten_unseen(
    api: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    tries = 0
    find = connection.find

    def written_meanwhile(path: str) -> Any:
        nonlocal tries
        tries += 1
        found = find(path)
        thing = copy.deepcopy(api.objects[WEB])
        thing["spec"]["replicas"] = tries + 1
        api.put(WEB, thing)
        return found

    connection.find = written_meanwhile  # type: ignore[method-assign, assignment]
    with pytest.raises(DevloopError) as caught:
        restore(connection, tmp_path, REF)
    assert caught.value.code is Code.SAFETY_CHANGED_OUTSIDE
    assert tries > 1


def test_what_is_not_devloops_to_restore_is_left(
    api: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    assert restore(connection, tmp_path, REF).what == "gone"
    api.put(WEB, deployment())
    assert restore(connection, tmp_path, REF).what == "untouched"
    api.put(WEB, desired(deployment(), None, "shop"))
    assert restore(connection, tmp_path, REF).what == "created"
    assert not api.said("PUT")


@pytest.mark.parametrize(
    ("kind", "spec", "status", "waits", "detail"),
    [
        ("deployment", {}, {"observedGeneration": 1}, "not seen", "0/1 ready"),
        ("deployment", {}, {"updatedReplicas": 0}, "0 of 1 new", "0/1 ready"),
        ("deployment", {}, {"updatedReplicas": 1, "replicas": 2}, "old pods", "0/1 ready"),
        ("deployment", {}, {"updatedReplicas": 1, "replicas": 1}, "0 of 1 pods", "0/1 ready"),
        (
            "deployment",
            {},
            {"updatedReplicas": 1, "replicas": 1, "readyReplicas": 1},
            "",
            "1/1 ready",
        ),
        ("deployment", {"replicas": 0}, {}, "", "0/0 ready"),
        ("deployment", {"paused": True}, {}, "", "paused, as before"),
        ("statefulset", {"updateStrategy": {"type": "OnDelete"}}, {}, "", "OnDelete"),
        ("daemonset", {}, {"desiredNumberScheduled": 2}, "0 of 2 new", "0/2 ready"),
        ("cronjob", {}, {}, "", "nothing to roll out"),
    ],
)
def test_it_is_waited_for_what_kubectl_waits_for(
    kind: str, spec: dict[str, Any], status: dict[str, Any], waits: str, detail: str
) -> None:
    live = {
        "metadata": {"generation": 2},
        "spec": spec,
        "status": {"observedGeneration": 2} | status,
    }
    found, words = rollout_state(kind, live)
    assert waits in found
    assert bool(waits) == bool(found)
    assert detail in words
