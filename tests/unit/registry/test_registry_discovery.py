from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.errors import DevloopError
from devloop.model import NodeImages, PushTarget
from devloop.registry.discovery import Hosting, check, discover, parse_hosting

if TYPE_CHECKING:
    from pathlib import Path

FULL = """\
host: "localhost:5001"
hostFromContainerRuntime: "registry:5000"
hostFromClusterNetwork: "kind-registry:5000"
help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
"""

KIND = NodeImages("kind", "dev")


def found(
    config: str | None = None,
    hosting: str | None = None,
    kind: str | None = None,
) -> PushTarget:
    nodes = NodeImages("kind", kind) if kind else None
    return discover(config=config, hosting=hosting, nodes=lambda: nodes)


def test_the_order() -> None:
    everything = {"config": "b:2", "hosting": FULL, "kind": "dev"}
    assert (found(**everything).push, found(**everything).source) == ("b:2", "config")
    del everything["config"]
    assert (found(**everything).push, found(**everything).source) == ("localhost:5001", "cluster")
    del everything["hosting"]
    assert found(**everything) == PushTarget(nodes=KIND, source="nodes")


def test_the_clusters_names_are_kept() -> None:
    target = found(hosting=FULL)
    assert target.repository("shop/web") == "localhost:5001/shop/web"
    assert target.pull_repository("shop/web") == "registry:5000/shop/web"
    assert target.cluster == "kind-registry:5000"


def test_a_named_registry_that_the_cluster_describes_too() -> None:
    target = found(config="localhost:5001/team", hosting=FULL)
    assert target.repository("web") == "localhost:5001/team/web"
    assert target.pull_repository("web") == "registry:5000/team/web"
    assert target.cluster == "kind-registry:5000/team"
    other = found(config="localhost:5002", hosting=FULL)
    assert other.pull_repository("web") == "localhost:5002/web"
    assert found(config="localhost:5001", hosting="{").push == "localhost:5001"


def test_same_names_are_not_kept_twice() -> None:
    target = found(hosting="host: localhost:5001\nhostFromContainerRuntime: localhost:5001\n")
    assert target == PushTarget(push="localhost:5001", source="cluster")


def test_without_a_registry_an_image_has_its_own_name() -> None:
    target = PushTarget(nodes=KIND)
    assert target.repository("shop/web") == target.pull_repository("shop/web") == "shop/web"


@pytest.mark.parametrize("hosting", [None, "", "help: ask Bob\n", "host: ''\n"])
def test_nowhere_to_push(hosting: str | None) -> None:
    with pytest.raises(DevloopError) as caught:
        found(hosting=hosting)
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "registry/unreachable"
    assert "devloop cluster up" in diagnosis.suggestions[0]
    assert ("the cluster says: ask Bob" in diagnosis.suggestions) == ("Bob" in (hosting or ""))
    assert found(hosting=hosting, kind="dev").nodes == KIND


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "is not YAML"),
        ("- a", "is not a mapping"),
        ("hots: x:1", "no field 'hots'; did you mean host?"),
        ("1: x", "no field '1'"),
        ("host: 5000", "host is not a string"),
        ("host: http://x:1", "is not host:port"),
        ("host: 'a b'", "is not host:port"),
        ("hostFromContainerRuntime: '*'", "is not host:port"),
        ("help: !!python/object:os.system x", "is not YAML"),
        ("x" * 70_000, "longer than"),
    ],
)
def test_a_description_that_cannot_be_right(text: str, cause: str) -> None:
    with pytest.raises(DevloopError) as caught:
        found(hosting=text)
    assert caught.value.code == "registry/discovery"
    assert cause in (caught.value.diagnosis.cause or "")
    assert "kube-public/local-registry-hosting" in caught.value.diagnosis.message


@given(st.text())
def test_any_description_is_read_or_refused(text: str) -> None:
    code = "registry/discovery"
    try:
        parsed: Hosting | None = parse_hosting(text)
    except DevloopError as error:
        parsed, code = None, error.code
    assert code == "registry/discovery"
    assert parsed is None or isinstance(parsed, Hosting)


def test_check_wants_kind_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevloopError) as caught:
        check(PushTarget(nodes=KIND), None)
    assert caught.value.code == "env/tool-missing"
    (tmp_path / "kind").write_text("#!/bin/sh\n")
    (tmp_path / "kind").chmod(0o755)
    check(PushTarget(nodes=KIND), None)
