from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.base import process
from devloop.base.cancel import Cancel, Cancelled
from devloop.errors import Code, DevloopError
from devloop.model import PushTarget
from devloop.registry.discovery import Hosting, check, discover, parse_hosting
from devloop.registry.kindload import KindLoader
from tests.support.waiting import Overdue, runs, until

if TYPE_CHECKING:
    from pathlib import Path

FULL = """\
host: "localhost:5001"
hostFromContainerRuntime: "registry:5000"
hostFromClusterNetwork: "kind-registry:5000"
help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
"""


def found(
    config: str | None = None,
    hosting: str | None = None,
    kind: str | None = None,
) -> PushTarget:
    return discover(config=config, hosting=hosting, kind_cluster=kind)


def test_the_order() -> None:
    everything = {"config": "b:2", "hosting": FULL, "kind": "dev"}
    assert (found(**everything).push, found(**everything).source) == ("b:2", "config")
    del everything["config"]
    assert (found(**everything).push, found(**everything).source) == ("localhost:5001", "cluster")
    del everything["hosting"]
    assert found(**everything) == PushTarget(kind_cluster="dev", source="kind")


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
    target = PushTarget(kind_cluster="dev")
    assert target.repository("shop/web") == target.pull_repository("shop/web") == "shop/web"


@pytest.mark.parametrize("hosting", [None, "", "help: ask Bob\n", "host: ''\n"])
def test_nowhere_to_push(hosting: str | None) -> None:
    with pytest.raises(DevloopError) as caught:
        found(hosting=hosting)
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "registry/unreachable"
    assert "devloop cluster up" in diagnosis.suggestions[0]
    assert ("the cluster says: ask Bob" in diagnosis.suggestions) == ("Bob" in (hosting or ""))
    assert found(hosting=hosting, kind="dev").kind_cluster == "dev"


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
        check(PushTarget(kind_cluster="dev"), None)
    assert caught.value.code == "env/tool-missing"
    (tmp_path / "kind").write_text("#!/bin/sh\n")
    (tmp_path / "kind").chmod(0o755)
    check(PushTarget(kind_cluster="dev"), None)


# Loading into nodes.


def fake_kind(tmp_path: Path, script: str) -> str:
    program = tmp_path / "kind"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_kind_is_asked_to_load(tmp_path: Path) -> None:
    program = fake_kind(tmp_path, f'echo "$@" > {tmp_path}/args')
    said: list[str] = []
    KindLoader("dev", program=program).load("shop/web:t", Cancel(), said.append)
    assert (tmp_path / "args").read_text() == "load docker-image shop/web:t --name dev\n"
    assert said == ["loading shop/web:t into the nodes of dev"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('ERROR: no nodes found for cluster "dev"', "cluster/not-found"),
        ("ERROR: failed to load image: no space left on device", "env/disk-full"),
        ('ERROR: image: "x" not present locally', "registry/push-failed"),
        ("", "registry/push-failed"),
    ],
)
def test_kind_fails(tmp_path: Path, said: str, code: str) -> None:
    program = fake_kind(tmp_path, f"echo '{said}' >&2; exit 1")
    with pytest.raises(DevloopError) as caught:
        KindLoader("dev", program=program).load("x:t", Cancel(), print)
    assert caught.value.code == code


def test_kind_is_not_there() -> None:
    with pytest.raises(DevloopError) as caught:
        KindLoader("dev", program="no-such-kind").load("x:t", Cancel(), print)
    assert caught.value.code == "env/tool-missing"


def test_a_load_is_cancelled_with_all_its_children(tmp_path: Path) -> None:
    program = fake_kind(
        tmp_path, f"sleep 60 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait"
    )
    cancel = Cancel()

    def stop() -> None:
        until((tmp_path / "pid").exists)
        cancel.set()

    threading.Thread(target=stop, name="devloop-stop").start()
    with pytest.raises(Cancelled):
        KindLoader("dev", program=program).load("x:t", cancel, lambda _: None)
    until(lambda: not runs(int((tmp_path / "pid").read_text())))


def test_a_load_that_does_not_end_is_given_up_with_all_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, pid = tmp_path / "new", tmp_path / "pid"
    program = fake_kind(tmp_path, f"echo saving; sleep 600 & echo $! > {new}; mv {new} {pid}; wait")
    monkeypatch.setattr(process, "time", Overdue(pid.exists))
    with pytest.raises(DevloopError) as caught:
        KindLoader("dev", program=program, limit=90.0).load("x:t", Cancel(), lambda _: None)
    assert caught.value.code == Code.REGISTRY_PUSH_FAILED
    assert caught.value.diagnosis.cause == "error: kind did not end within 90 s"
    assert caught.value.diagnosis.detail[0] == "saving"
    until(lambda: not runs(int((tmp_path / "pid").read_text())))


def test_a_child_that_kind_leaves_behind_keeps_no_load_waiting(tmp_path: Path) -> None:
    program = fake_kind(tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid")
    try:
        KindLoader("dev", program=program).load("x:t", Cancel(), lambda _: None)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
