"""The hops that the doctor looks at by itself, against fakes of what is around."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.doctor import checks
from devloop.app.doctor.checks import Examination
from devloop.app.doctor.hops import HOPS
from devloop.base.cancel import Cancel
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError
from devloop.model import PushTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_800_000_000.0


class Cluster:
    """A connection that has namespaces and a clock."""

    context = "kind-a"
    server = "https://127.0.0.1:6443"
    local_tool = "kind"

    def __init__(self) -> None:
        self.date = formatdate(NOW, usegmt=True)
        self.asked: list[str] = []
        self.namespaces: list[dict[str, Any]] = []

    def request(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        self.asked.append(f"{method} {path}")
        if method == "POST":
            self.asked[-1] += f" {body['metadata']['name'].rpartition('-')[0]}"
        if path == "/version":
            return {"gitVersion": "v1.34.0"}
        return {"items": self.namespaces}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()

    @contextlib.contextmanager
    def connect(_: object) -> Iterator[Cluster]:
        yield made

    monkeypatch.setattr(checks, "connect", connect)
    monkeypatch.setattr("devloop.app.doctor.checks.time.time", lambda: NOW + 0.5)
    return made


@pytest.fixture
def examination(tmp_path: Path) -> Iterator[Examination]:
    text = "version: 1\nservices: {app: {build: .}}\n"
    project = load_project(cwd=tmp_path, env={}, text=text, shown="devloop.yaml").project
    with Examination(project, tmp_path / ".devloop") as made:
        yield made


def test_every_hop_has_a_check(examination: Examination) -> None:
    assert list(examination.checks()) == [hop.name for hop in HOPS]


def test_the_namespace_goes_with_the_examination(cluster: Cluster, tmp_path: Path) -> None:
    text = "version: 1\nservices: {app: {build: .}}\n"
    project = load_project(cwd=tmp_path, env={}, text=text, shown="devloop.yaml").project
    with Examination(project, tmp_path) as examination:
        assert examination.cluster(Cancel()).detail == "kind-a v1.34.0"
        assert not any(each.startswith("DELETE") for each in cluster.asked)
    made = [each for each in cluster.asked if each.startswith("POST")]
    assert made == ["POST /api/v1/namespaces devloop-doctor"]
    assert cluster.asked[-1].startswith("DELETE /api/v1/namespaces/devloop-doctor-")


def test_what_a_killed_doctor_left_is_removed(cluster: Cluster, examination: Examination) -> None:
    def namespace(name: str, made: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "creationTimestamp": made}}

    cluster.namespaces = [
        namespace("old", "2027-01-15T07:00:00Z"),
        namespace("young", "2027-01-15T07:59:00Z"),
    ]
    examination.cluster(Cancel())
    assert "DELETE /api/v1/namespaces/old" in cluster.asked
    assert "DELETE /api/v1/namespaces/young" not in cluster.asked


@pytest.mark.parametrize(
    ("offset", "said"), [(0, None), (-4, None), (30, "30 s ahead of"), (-90, "90 s behind")]
)
def test_clocks_that_are_apart_are_a_warning(
    cluster: Cluster, examination: Examination, offset: float, said: str | None
) -> None:
    examination.cluster(Cancel())
    cluster.date = formatdate(NOW + offset, usegmt=True)
    warning = examination.clock(Cancel()).warning
    assert (warning is None) == (said is None)
    if warning is not None and said is not None:
        assert said in warning.message


def test_the_registry_is_the_one_that_a_session_finds(
    cluster: Cluster, examination: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cluster
    target = PushTarget(push="localhost:1", pull="registry:5000")
    monkeypatch.setattr(checks, "find_registry", lambda *_: target)
    monkeypatch.setattr(checks, "check_registry", lambda *_: None)
    examination.cluster(Cancel())
    assert examination.registry(Cancel()).detail == "localhost:1, for the nodes registry:5000"


def test_the_classic_builder_is_a_warning(
    examination: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "buildx_problem", lambda _: "the buildx plugin is not installed")
    found = examination.builder(Cancel())
    assert found.warning is not None
    assert found.warning.cause == "the buildx plugin is not installed"
    monkeypatch.setattr(checks, "buildx_problem", lambda _: None)
    assert examination.builder(Cancel()).detail == "buildx"


def test_a_file_that_is_written_is_noticed(examination: Examination) -> None:
    assert examination.watch(Cancel()).detail


def test_a_file_system_that_tells_nothing_is_named(
    examination: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def __init__(self, *_: object, **__: object) -> None: ...

        def hints(self, cancel: Cancel) -> Iterator[None]:
            yield None
            cancel.wait(9)

    monkeypatch.setattr(checks, "WatchHints", Silent)
    monkeypatch.setattr(checks, "_EVENT", 0.01)
    with pytest.raises(DevloopError) as caught:
        examination.watch(Cancel())
    assert caught.value.code == Code.ENV_WATCH_POLLING


@pytest.mark.parametrize(("watches", "few"), [("8192", True), ("524288", False)])
def test_few_watches_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watches: str, few: bool
) -> None:
    (tmp_path / "max_user_watches").write_text(f"{watches}\n")
    (tmp_path / "max_user_instances").write_text("128\n")
    monkeypatch.setattr(checks, "_INOTIFY", tmp_path)
    detail, warning = checks._budget()
    assert detail.endswith("128 programs")
    assert (warning is not None) == few


def test_a_devloop_without_its_agent_is_said(
    cluster: Cluster, examination: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cluster
    monkeypatch.setattr(checks, "node_platforms", lambda _: ("linux/riscv64",))
    monkeypatch.setattr(checks, "program", lambda _: None)
    examination.cluster(Cancel())
    with pytest.raises(DevloopError) as caught:
        examination.build(Cancel())
    assert "linux/riscv64" in caught.value.diagnosis.message


def test_the_projects_folder_is_where_it_is_tried(tmp_path: Path) -> None:
    text = "version: 1\nservices: {app: {build: .}}\n"
    project = load_project(cwd=tmp_path, env={}, text=text, shown="devloop.yaml").project
    (tmp_path / ".devloop").mkdir()
    with Examination(replace(project), tmp_path / ".devloop") as examination:
        made = examination._own_folder()
        assert made.parent == (tmp_path / ".devloop").resolve()
    assert not made.exists()
