"""Programs that a kubeconfig names for credentials, run as kubectl runs them."""

from __future__ import annotations

import base64
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api import kubeconfig
from devloop.cluster.api.connection import Connection
from devloop.errors import DevloopError
from tests.support.fake_api import FakeApi, fake_api
from tests.support.waiting import until
from tests.unit.cluster.test_user_credentials import BETA, V1, obtain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as server:
        yield server


def plugin(tmp_path: Path, status: dict[str, Any], version: str = V1, **entry: Any) -> Any:
    """A user whose plugin answers `status`, in which N is how often it ran, and leaves what it was
    told in `told`."""
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    (tmp_path / "plugin.py").write_text(
        "import json, os, pathlib, sys\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))\n"
        f"told = pathlib.Path({str(tmp_path / 'told')!r})\n"
        "told.write_text(json.dumps([os.environ['KUBERNETES_EXEC_INFO'],"
        " os.environ.get('MORE'), sys.stdin.read()]))\n"
        f"print({json.dumps(answer)!r}.replace('N', count.read_text()))\n"
    )
    script = str(tmp_path / "plugin.py")
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": [script], **entry}}


@pytest.mark.parametrize("version", [V1, BETA])
def test_a_plugin_is_told_the_cluster_and_its_environment(tmp_path: Path, version: str) -> None:
    more: Any = {"provideClusterInfo": True, "env": [{"name": "MORE", "value": "m"}]}
    user = plugin(tmp_path, {"token": "tN"}, version, interactiveMode="IfAvailable", **more)
    (tmp_path / "ca").write_text("CA")
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    more = {"certificate-authority": "ca", "extensions": [extension]}
    found = obtain(tmp_path, user, **more)
    assert (found.authorization, found.source, found.expires) == ("Bearer t1", "plugin", None)
    info, env, stdin = json.loads((tmp_path / "told").read_text())
    assert json.loads(info) == {
        "kind": "ExecCredential",
        "apiVersion": version,
        "spec": {
            "interactive": False,
            "cluster": {
                "server": "https://k8s:6443",
                "certificate-authority-data": base64.b64encode(b"CA").decode(),
                "config": {"audience": "a"},
            },
        },
    }
    assert (env, stdin) == ("m", "")


def test_a_plugin_may_give_a_certificate(tmp_path: Path) -> None:
    status = {"clientCertificateData": "CERT", "clientKeyData": "KEY"}
    found = obtain(tmp_path, plugin(tmp_path, status))
    assert (found.cert, found.key, found.authorization) == ("CERT", "KEY", "")


@pytest.mark.parametrize(
    ("entry", "status", "cause"),
    [
        ({"command": "/no/such"}, {"token": "t"}, "No such file"),
        ({"command": "/bin/false"}, {"token": "t"}, "exit status 1"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, {"token": "t"}, "v1alpha1"),
        ({"interactiveMode": "Always"}, {"token": "t"}, "no terminal"),
        ({"apiVersion": BETA}, {"token": "t"}, "not ExecCredential of"),
        ({}, {}, "neither a token nor a certificate"),
        ({}, {"clientKeyData": "k"}, "without its key"),
        ({}, {"token": "t", "expirationTimestamp": "soon"}, "soon"),
    ],
)
def test_a_plugin_that_fails_is_named_with_what_it_said(
    tmp_path: Path, entry: dict[str, Any], status: dict[str, Any], cause: str
) -> None:
    user = plugin(tmp_path, status)
    user["exec"] |= {"installHint": "install it\nlike this", **entry}
    with pytest.raises(DevloopError) as caught:
        obtain(tmp_path, user)
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "cluster/unauthorized"
    assert str(user["exec"]["command"]) in diagnosis.message
    assert cause in str(diagnosis.cause)
    assert diagnosis.suggestions == ("install it",)


def test_a_plugin_that_hangs_can_be_cancelled(tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f"touch {started}; sleep 100"
    entry = {"apiVersion": V1, "command": "/bin/sh", "args": ["-c", script]}
    cancel = Cancel()

    def stop() -> None:
        until(started.exists)
        cancel.set()

    thread = threading.Thread(target=stop, name="devloop-stop")
    thread.start()
    with pytest.raises(Cancelled):
        obtain(tmp_path, {"exec": entry}, cancel)
    thread.join()


class Time:
    now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


def connected(api: FakeApi, tmp_path: Path, user: dict[str, Any], clock: Time) -> Connection:
    path = api.kubeconfig(tmp_path, user)
    resolved = kubeconfig.read({"KUBECONFIG": str(path)}).resolve(None)
    return Connection(resolved, env={}, clock=clock)


def test_a_plugin_runs_once_again_after_a_401(api: FakeApi, tmp_path: Path) -> None:
    connection = connected(api, tmp_path, plugin(tmp_path, {"token": "tN"}), Time())
    api.token = "t2"
    assert connection.request("GET", "/version")
    assert (tmp_path / "count").read_text() == "2"
    api.token = "other"
    with pytest.raises(DevloopError) as caught:
        connection.request("GET", "/version")
    assert caught.value.code == "cluster/unauthorized"
    assert (tmp_path / "count").read_text() == "3"
    connection.close()


def test_a_plugins_answer_is_kept_until_it_expires(api: FakeApi, tmp_path: Path) -> None:
    clock = Time()
    status = {"token": "tN", "expirationTimestamp": "2001-09-09T01:46:50Z"}
    connection = connected(api, tmp_path, plugin(tmp_path, status), clock)
    clock.now = 1_000_000_009
    connection.request("GET", "/version")
    connection.request("GET", "/version")
    clock.now = 1_000_000_010
    connection.request("GET", "/version")
    connection.close()
    sent = [call.headers["authorization"] for call in api.calls]
    assert sent == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_other_requests_go_on_while_a_plugin_runs(api: FakeApi, tmp_path: Path) -> None:
    """It is asked by one, and no lock is held meanwhile."""
    fifo = tmp_path / "answer"
    user = plugin(tmp_path, {"token": "tN"})
    connection = connected(api, tmp_path, user, Time())
    script = f"echo >> {tmp_path / 'asked'}; sleep 100; cat {fifo}"
    connection._resolved.user_entry["exec"].update(command="/bin/sh", args=["-c", script])
    cancel = Cancel()
    api.token = "t9"
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            connection.request("GET", "/version", cancel=cancel)
        except Cancelled as error:
            ended.append(error)

    threads = [threading.Thread(target=ask, name="devloop-ask") for _ in range(2)]
    for thread in threads:
        thread.start()
    asked = tmp_path / "asked"
    until(lambda: asked.exists() and asked.read_text() != "" and len(api.calls) == 2)
    api.token = "t1"
    assert connection.request("GET", "/version")
    cancel.set()
    for thread in threads:
        thread.join()
    connection.close()
    assert len(ended) == 2
    assert asked.read_text() == "\n"
