from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devloop.cluster.api import kubeconfig
from devloop.cluster.api.connection import Connection
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, **parts: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(parts))
    return path


def context(name: str, cluster: str = "c", **more: str) -> dict[str, Any]:
    return {"name": name, "context": {"cluster": cluster, "user": "u"} | more}


def cluster(name: str = "c", **entry: Any) -> dict[str, Any]:
    return {"name": name, "cluster": {"server": f"https://{name}:6443"} | entry}


def test_the_first_file_wins(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one",
        **{"current-context": "a", "contexts": [context("a", namespace="n")]},
        clusters=[cluster(server="https://first:1/")],
    )
    two = write(
        tmp_path / "two",
        **{"current-context": "b", "contexts": [context("a"), context("b")]},
        clusters=[cluster(server="https://second:1")],
    )
    value = os.pathsep.join([str(tmp_path / "missing"), str(one), str(two)])
    read = kubeconfig.read({"KUBECONFIG": value})
    found = read.resolve(None)
    assert (found.name, found.namespace) == ("a", "n")
    assert found.cluster.server == "https://first:1"
    assert read.resolve("b").namespace == "default"


def test_home_is_the_default(tmp_path: Path) -> None:
    write(tmp_path / ".kube" / "config", contexts=[context("x")], clusters=[cluster()])
    assert kubeconfig.read({"HOME": str(tmp_path)}).resolve("x").name == "x"


def test_unknown_contexts_name_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "k", contexts=[context("kind-dev"), context("prod")])
    with pytest.raises(DevloopError) as caught:
        kubeconfig.read({"KUBECONFIG": str(file)}).resolve("kind-dve")
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "cluster/context-not-found"
    assert diagnosis.cause == "contexts: kind-dev, prod"
    assert diagnosis.suggestions == ("did you mean --context kind-dev?",)


def test_no_kubeconfig_at_all(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        Connection.open(env={"HOME": str(tmp_path)})
    assert caught.value.code == "cluster/context-not-found"
    assert "devloop cluster up" in caught.value.diagnosis.suggestions[0]


def test_a_broken_file_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("contexts: [\n")
    with pytest.raises(DevloopError) as caught:
        kubeconfig.read({"KUBECONFIG": str(tmp_path / "k")})
    assert caught.value.code == "config/parse"
    assert str(caught.value.diagnosis.location).endswith("k:2:1")


def test_a_pinned_connection_does_not_follow_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "k",
        **{"current-context": "a", "contexts": [context("a"), context("b", "d")]},
        clusters=[cluster(server="http://127.0.0.1:1"), cluster("d", server="http://127.0.0.1:2")],
    )
    connection = Connection.open(env={"KUBECONFIG": str(file)})
    file.write_text(file.read_text().replace("current-context: a", "current-context: b"))
    assert (connection.context, connection.server) == ("a", "http://127.0.0.1:1")


def test_a_proxy_is_not_used_for_loopback_or_no_proxy(tmp_path: Path) -> None:
    def proxy(server: str, **env: str) -> str:
        file = write(
            tmp_path / "k",
            **{"current-context": "x", "contexts": [context("x")]},
            clusters=[
                {"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
            ],
        )
        return Connection.open(env={"KUBECONFIG": str(file), **env}).proxy

    given = {"HTTPS_PROXY": "http://proxy:3128"}
    assert proxy("https://k8s.corp:6443", **given) == "http://proxy:3128"
    assert proxy("https://127.0.0.1:6443", **given) == ""
    assert proxy("https://k8s.corp:6443", **given, NO_PROXY=".corp") == ""
