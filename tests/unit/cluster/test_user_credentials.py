from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api import kubeconfig, user_credentials
from devloop.cluster.api.connection import Connection
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.cluster.api.user_credentials import UserCredentials
    from tests.support.fake_api import FakeApi

V1, BETA = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"


def context(tmp_path: Path, user: dict[str, Any], **cluster: Any) -> kubeconfig.Context:
    document = {
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://k8s:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path = tmp_path / "k"
    path.write_text(json.dumps(document))
    return kubeconfig.read({"KUBECONFIG": str(path)}).resolve("x")


def obtain(
    tmp_path: Path, user: dict[str, Any], cancel: Cancel | None = None, **cluster: Any
) -> UserCredentials:
    found = context(tmp_path, user, **cluster)
    return user_credentials.obtain(found, cancel=cancel or Cancel(), interactive=True)


def test_what_stands_in_the_file(tmp_path: Path) -> None:
    assert obtain(tmp_path, {"token": "t"}).authorization == "Bearer t"
    basic = obtain(tmp_path, {"username": "a", "password": "b"}).authorization
    assert basic == "Basic " + base64.b64encode(b"a:b").decode()
    (tmp_path / "cert").write_text("FILE")
    data = base64.b64encode(b"DATA").decode()
    assert obtain(tmp_path, {"client-certificate": "cert"}).cert == "FILE"
    both = {"client-certificate": "cert", "client-certificate-data": data}
    assert obtain(tmp_path, both).cert == "DATA"
    assert obtain(tmp_path, {}).source == "none"
    with pytest.raises(DevloopError) as caught:
        obtain(tmp_path, {"tokenFile": "gone"})
    assert caught.value.code == "env/file-unreadable"


def test_impersonation_needs_a_user(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        user_credentials.impersonation(context(tmp_path, {"as-groups": ["dev"]}))
    assert caught.value.code == "config/value"
    assert user_credentials.impersonation(context(tmp_path, {"token": "t"})) == ()


def test_an_auth_provider_is_refused_with_what_to_use_instead(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        obtain(tmp_path, {"auth-provider": {"name": "oidc"}})
    assert caught.value.code == "config/not-supported"
    assert "kubelogin" in caught.value.diagnosis.suggestions[0]


# Within a connection.


def test_who_logs_in_again_meanwhile_needs_no_new_session(api: FakeApi, tmp_path: Path) -> None:
    env = {"KUBECONFIG": str(api.kubeconfig(tmp_path, {"token": "t1"}))}
    api.token = "t1"
    connection = Connection.open(None, env=env)
    assert connection.request("GET", "/version")
    api.token = "t2"
    for text in (None, "{", ""):  # as it was, half written, gone
        if text is not None:
            (tmp_path / "kubeconfig").write_text(text)
        with pytest.raises(DevloopError) as caught:
            connection.request("GET", "/version")
        assert caught.value.code == "cluster/unauthorized"
    api.kubeconfig(tmp_path, {"token": "t2"})
    assert connection.request("GET", "/version")
    connection.close()
