from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.connection import Connection
from devloop.cluster.api.websocket import open_websocket
from devloop.errors import DevloopError
from tests.support.fake_api import FakeApi, Fault, status
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

PODS = "/api/v1/namespaces/dev/pods"


def opened(api: FakeApi, tmp_path: Path, user: dict[str, Any] | None = None) -> Connection:
    env = {"KUBECONFIG": str(api.kubeconfig(tmp_path, user)), "HOME": str(tmp_path)}
    return Connection.open(env=env)


def test_keeps_the_connection_and_speaks_plain_dicts(api: FakeApi, connection: Connection) -> None:
    assert connection.context == "kind-fake"
    assert connection.namespace == "dev"
    for _ in range(3):
        assert connection.request("GET", "/version")["gitVersion"].startswith("v1.")
    assert api.calls[0].headers["user-agent"].startswith("devloop/")


def test_every_answer_tells_the_servers_clock(connection: Connection) -> None:
    assert connection.date == ""
    assert connection.find(f"{PODS}/web") is None
    assert connection.date.endswith("GMT")


def test_missing_object_is_not_found(connection: Connection) -> None:
    with pytest.raises(ApiError) as caught:
        connection.request("GET", f"{PODS}/web")
    assert caught.value.code == "cluster/not-found"
    assert caught.value.status == 404
    assert "pods 'web' in namespace 'dev'" in caught.value.diagnosis.message


def test_busy_server_is_tried_again(api: FakeApi, connection: Connection) -> None:
    api.faults.append(Fault(code=429, headers={"Retry-After": "0.01"}))
    api.faults.append(Fault(code=503, headers={"Retry-After": "0.01"}))
    assert connection.request("GET", "/version")
    assert len(api.calls) == 3


def test_a_server_that_stays_broken_is_unreachable(api: FakeApi, connection: Connection) -> None:
    api.faults.append(Fault(code=500, times=9, headers={"Retry-After": "0"}))
    with pytest.raises(DevloopError) as caught:
        connection.request("GET", "/version")
    assert caught.value.code == "cluster/unreachable"
    assert len(api.calls) == 4


def test_post_is_not_repeated_after_an_internal_error(api: FakeApi, connection: Connection) -> None:
    api.faults.append(Fault(code=500))
    with pytest.raises(DevloopError):
        connection.request("POST", PODS, {})
    assert len(api.calls) == 1


def test_a_dropped_kept_alive_connection_is_replaced(api: FakeApi, connection: Connection) -> None:
    connection.request("GET", "/version")
    api.faults.append(Fault(drop=True))
    assert connection.request("GET", "/version")


def test_a_drop_on_a_fresh_connection_is_told(api: FakeApi, connection: Connection) -> None:
    api.faults.append(Fault(drop=True))
    with pytest.raises(DevloopError) as caught:
        connection.request("GET", "/version")
    assert caught.value.code == "cluster/unreachable"


def test_nobody_listens(tmp_path: Path) -> None:
    api = FakeApi()
    api.url = "http://127.0.0.1:1"
    connection = opened(api, tmp_path)
    with pytest.raises(DevloopError) as caught:
        connection.request("GET", "/version")
    assert caught.value.code == "cluster/unreachable"
    assert caught.value.diagnosis.cause == "connection refused: nothing listens there"
    assert "http://127.0.0.1:1" in caught.value.diagnosis.message


def test_unknown_host(tmp_path: Path) -> None:
    api = FakeApi()
    api.url = "http://no-such-host.invalid:1"
    with pytest.raises(DevloopError) as caught:
        opened(api, tmp_path).request("GET", "/version")
    assert str(caught.value.diagnosis.cause).startswith("DNS")


def test_silence_is_unreachable(api: FakeApi, connection: Connection) -> None:
    api.scripts.append(["hang"])
    with pytest.raises(DevloopError) as caught:
        list(connection.stream(PODS, {"watch": "1"}, idle=0.05))
    assert caught.value.diagnosis.cause == "no answer in time"


def test_a_stream_may_be_silent_for_longer_than_connecting_may_take(
    api: FakeApi, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devloop.cluster.api.connection._CONNECT_SECONDS", 0.1)
    api.scripts.append([0.4, {"type": "BOOKMARK"}])
    assert list(connection.stream(PODS, {"watch": "1"}, idle=5).lines())


def test_a_rotated_token_file_is_read_again_once(api: FakeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    connection = opened(api, tmp_path, {"tokenFile": "token"})
    api.token = "new"
    token.write_text("new")
    assert connection.request("GET", "/version")
    api.token = "newer"
    with pytest.raises(DevloopError) as caught:
        connection.request("GET", "/version")
    assert caught.value.code == "cluster/unauthorized"
    assert "'me'" in caught.value.diagnosis.message
    assert len(api.calls) == 3  # the same credentials get the same answer
    connection.close()


def test_whoever_is_impersonated_is_named_on_every_kind_of_request(
    api: FakeApi, tmp_path: Path
) -> None:
    user = {
        "token": "t",
        "as": "readonly",
        "as-uid": "7",
        "as-groups": ["dev", "ops"],
        "as-user-extra": {"example.com/Team 1": ["a", "b"]},
    }
    connection = opened(api, tmp_path, user)
    connection.request("GET", "/version")
    list(connection.stream("/version"))
    with pytest.raises(ApiError):
        open_websocket(connection, f"{PODS}/web/exec", "v5.channel.k8s.io", Cancel())
    connection.close()
    assert len(api.calls) == 3
    for call in api.calls:
        assert call.headers["authorization"] == "Bearer t"
        assert {k: v for k, v in call.headers.items() if k.startswith("impersonate")} == {
            "impersonate-user": "readonly",
            "impersonate-uid": "7",
            "impersonate-group": "dev, ops",
            "impersonate-extra-example.com%2fteam%201": "a, b",
        }


def test_forbidden_brings_a_rule_to_apply(api: FakeApi, connection: Connection) -> None:
    message = (
        'deployments.apps "web" is forbidden: User "jane" cannot patch resource "deployments" '
        'in API group "apps" in the namespace "dev"'
    )
    api.faults.append(Fault(code=403, body=status(403, "Forbidden", message)))
    with pytest.raises(DevloopError) as caught:
        connection.request("PATCH", "/apis/apps/v1/namespaces/dev/deployments/web", {})
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "cluster/forbidden"
    assert diagnosis.message == "'jane' may not patch deployments in namespace 'dev'"
    assert '- apiGroups: ["apps"]' in diagnosis.detail


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (403, 'pods "x" is forbidden: exceeded quota: q, requested: pods=1'),
        (403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'),
        (400, 'admission webhook "v.example.com" denied the request: no'),
        (422, 'Deployment.apps "web" is invalid: spec.selector: field is immutable'),
    ],
)
def test_refusals_that_are_not_rbac(
    api: FakeApi, connection: Connection, code: int, message: str
) -> None:
    api.faults.append(Fault(code=code, body=status(code, "Invalid", message)))
    with pytest.raises(DevloopError) as caught:
        connection.request("PATCH", f"{PODS}/x", {})
    assert caught.value.code == "cluster/rejected"
    assert caught.value.diagnosis.cause == message
    assert caught.value.diagnosis.suggestions


def test_cancel_ends_a_blocked_stream_at_once(api: FakeApi, connection: Connection) -> None:
    api.scripts.append([{"type": "BOOKMARK"}, "hang"])
    cancel = Cancel()
    got: list[bytes] = []
    ended: list[BaseException] = []

    def read() -> None:
        try:
            got.extend(connection.stream(PODS, {"watch": "1"}, cancel=cancel).lines())
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: got)
    cancel.set()
    thread.join(30)
    assert ended
    assert json.loads(got[0]) == {"type": "BOOKMARK"}


def test_a_log_that_says_nothing_can_be_cancelled_before_its_headers(
    api: FakeApi, connection: Connection
) -> None:
    cancel = Cancel()
    api.logs["web", "c", False] = [None]
    thread = threading.Timer(0.05, cancel.set)
    thread.start()
    with pytest.raises(Cancelled):
        list(connection.stream(f"{PODS}/web/log", {"container": "c"}, cancel=cancel, idle=None))
    thread.join()
