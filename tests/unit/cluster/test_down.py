from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.cluster.deploy.down import delete, find_created
from devloop.cluster.deploy.ownership import desired
from devloop.cluster.deploy.status import read_status
from devloop.model import WorkloadRef
from tests.support.cluster_objects import deployment, pod, running

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection
    from tests.support.fake_api import FakeApi

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"


def named(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}}


def test_only_what_the_project_created_in_the_reverse_order(
    api: FakeApi, connection: Connection
) -> None:
    api.put("/api/v1/namespaces/dev/configmaps/c", desired(named("ConfigMap", "c"), None, "shop"))
    api.put("/api/v1/namespaces/dev/configmaps/x", desired(named("ConfigMap", "x"), None, "other"))
    api.put("/api/v1/namespaces/dev/services/s", named("Service", "s"))
    api.put("/api/v1/namespaces/two/services/s", desired(named("Service", "s"), None, "shop"))
    api.put(WEB, desired(deployment(), None, "shop"))
    copied = desired(named("Pod", "p"), None, "shop")
    copied["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "controller": True}]
    api.put("/api/v1/namespaces/dev/pods/p", copied)
    found = find_created(connection, "shop")
    assert [str(c) for c in found] == [
        "Deployment web in dev",
        "Service s in two",
        "ConfigMap c in dev",
    ]
    assert [delete(connection, c) for c in found] == [True, True, True]
    assert [delete(connection, c) for c in found] == [False, False, False]
    assert len(api.objects) == 3


def test_a_recreated_object_is_not_deleted(api: FakeApi, connection: Connection) -> None:
    api.put(WEB, desired(deployment(), None, "shop"))
    (found,) = find_created(connection, "shop")
    api.objects[WEB]["metadata"]["uid"] = "another"
    assert not delete(connection, found)
    assert WEB in api.objects


def test_a_namespace_with_something_else_in_it_stays(api: FakeApi, connection: Connection) -> None:
    api.put("/api/v1/namespaces/two", desired(named("Namespace", "two"), None, "shop"))
    api.put("/api/v1/namespaces/two/services/s", desired(named("Service", "s"), None, "shop"))
    api.put(
        "/api/v1/namespaces/two/configmaps/kube-root-ca.crt", named("ConfigMap", "kube-root-ca.crt")
    )
    assert [str(c) for c in find_created(connection, "shop")] == [
        "Service s in two",
        "Namespace two",
    ]
    api.put("/api/v1/namespaces/two/secrets/theirs", named("Secret", "theirs"))
    assert [str(c) for c in find_created(connection, "shop")] == ["Service s in two"]


def test_status(api: FakeApi, connection: Connection) -> None:
    api.put(WEB, deployment() | {"status": {"readyReplicas": 1}})
    api.put("/api/v1/namespaces/dev/pods/web-new-x", pod(running()))
    api.put("/api/v1/namespaces/dev/pods/other", pod(running(), name="other", owner_uid="rs-no"))
    refs = [WorkloadRef("deployment", "web", "dev"), WorkloadRef("daemonset", "no", "dev")]
    web, missing = read_status(connection, refs)
    assert (web.found, web.wanted, web.ready) == (True, 1, 1)
    assert [p.name for p in web.pods] == ["web-new-x"]
    assert list(web.images) == ["web"]
    assert not missing.found
