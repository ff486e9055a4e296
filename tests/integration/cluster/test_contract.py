"""What devloop relies on of an API server: the fake and the real one must agree."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.connection import APPLY, STRATEGIC, Connection
from tests.support.fake_api import fake_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["fake", pytest.param("kind", marks=pytest.mark.kind)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    if request.param == "kind":
        yield request.getfixturevalue("connection")
        return
    with fake_api() as api:
        env = {"KUBECONFIG": str(api.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
        opened = Connection.open(None, "dev", env=env)
        api.namespaces = {"dev"}
        yield opened
        opened.close()


def path(server: Connection, name: str = "/web", kind: str = "deployments") -> str:
    group = "/apis/apps/v1" if kind == "deployments" else "/api/v1"
    return f"{group}/namespaces/{server.namespace}/{kind}{name}"


def manifest(image: str = "a:1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        }
        | spec,
    }


def apply(
    server: Connection, body: dict[str, Any], *, force: bool = False, by: str = "devloop"
) -> Any:
    query = {"fieldManager": by} | ({"force": "true"} if force else {})
    return server.request("PATCH", path(server), body, query=query, content_type=APPLY)


def refusal(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


def image(thing: dict[str, Any]) -> str:
    return str(thing["spec"]["template"]["spec"]["containers"][0]["image"])


def test_missing(server: Connection) -> None:
    error = refusal(lambda: server.request("GET", path(server)))
    assert (error.status, error.reason, error.details["name"]) == (404, "NotFound", "web")


def test_apply_creates_then_does_nothing_then_changes(server: Connection) -> None:
    made = apply(server, manifest())
    assert made["metadata"]["generation"] == 1
    again = apply(server, manifest())
    assert again["metadata"]["generation"] == 1
    changed = apply(server, manifest("a:2"))
    assert changed["metadata"]["generation"] == 2
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    assert image(changed) == "a:2"


def test_a_deployments_annotations_count_as_a_new_generation(server: Connection) -> None:
    apply(server, manifest())
    labelled = {"metadata": {"labels": {"x": "y"}}}
    changed = server.request(
        "PATCH", path(server), labelled, content_type="application/merge-patch+json"
    )
    assert changed["metadata"]["generation"] == 1
    annotated = {"metadata": {"annotations": {"x": "y"}}}
    changed = server.request(
        "PATCH", path(server), annotated, content_type="application/merge-patch+json"
    )
    assert changed["metadata"]["generation"] == 2


def test_conflicts_name_manager_and_field(server: Connection) -> None:
    apply(server, manifest(), by="kubectl-edit")
    apply(server, manifest())
    error = refusal(lambda: apply(server, manifest("a:2")))
    assert (error.status, error.reason) == (409, "Conflict")
    (cause,) = error.causes
    assert cause["reason"] == "FieldManagerConflict"
    assert cause["message"].startswith('conflict with "kubectl-edit"')
    assert cause["field"] == '.spec.template.spec.containers[name="web"].image'
    assert image(apply(server, manifest("a:2"), force=True)) == "a:2"


def test_strategic_merge_goes_by_the_containers_name(server: Connection) -> None:
    apply(server, manifest())
    spec = {"containers": [{"name": "web", "image": "b:1"}]}
    body: dict[str, Any] = {"spec": {"template": {"spec": spec}}}
    changed = server.request("PATCH", path(server), body, content_type=STRATEGIC)
    assert len(changed["spec"]["template"]["spec"]["containers"]) == 1
    assert image(changed) == "b:1"
    assert changed["spec"]["selector"]


def test_a_patch_for_another_uid_is_refused(server: Connection) -> None:
    apply(server, manifest())
    body = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}, "spec": {"replicas": 0}}
    error = refusal(lambda: server.request("PATCH", path(server), body, content_type=STRATEGIC))
    assert error.status == 422
    assert error.causes[0]["field"] == "metadata.uid"


def test_a_delete_of_another_uid_is_refused(server: Connection) -> None:
    made = apply(server, manifest())
    wrong = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    assert refusal(lambda: server.request("DELETE", path(server), wrong)).status == 409
    right = {"preconditions": {"uid": made["metadata"]["uid"]}}
    server.request("DELETE", path(server), right)
    assert refusal(lambda: server.request("GET", path(server))).status == 404


def test_a_missing_namespace_is_named(server: Connection) -> None:
    where = f"/apis/apps/v1/namespaces/{server.namespace}-no/deployments/web"
    error = refusal(
        lambda: server.request(
            "PATCH", where, manifest(), content_type=APPLY, query={"fieldManager": "x"}
        )
    )
    assert (error.status, error.details["kind"]) == (404, "namespaces")


def test_lists_select_by_label_and_leave_the_kind_out(server: Connection) -> None:
    apply(server, manifest())
    found = server.request("GET", path(server, ""), query={"labelSelector": "app=web"})
    assert found["kind"] == "DeploymentList"
    assert [i["metadata"]["name"] for i in found["items"]] == ["web"]
    assert "kind" not in found["items"][0]
    assert found["metadata"]["resourceVersion"]
    none = server.request("GET", path(server, ""), query={"labelSelector": "app=api"})
    assert not none["items"]


def test_a_watch_tells_what_came_after_the_list(server: Connection) -> None:
    version = server.request("GET", path(server, ""))["metadata"]["resourceVersion"]
    apply(server, manifest())
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "20"}
    seen: list[tuple[str, str]] = []
    with server.stream(path(server, ""), query, idle=10) as stream:
        changer = threading.Timer(0.2, lambda: server.request("DELETE", path(server)))
        changer.start()
        for line in stream.lines():
            event = json.loads(line)
            seen.append((event["type"], event["object"]["kind"]))
            if event["type"] == "DELETED":
                break
        changer.join()
    assert seen[0] == ("ADDED", "Deployment")
    assert seen[-1] == ("DELETED", "Deployment")


def test_a_log_of_nothing_is_refused(server: Connection) -> None:
    error = refusal(lambda: server.stream(path(server, "/no/log", "pods"), {"container": "c"}))
    assert error.status in {400, 404}
