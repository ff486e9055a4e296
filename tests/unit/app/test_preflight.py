"""What a session asks at its start: all of it side by side, and its faults in one order."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Literal

import pytest

from devloop.app import preflight as module
from devloop.app.preflight import Environment, preflight_environment
from devloop.base.cancel import Cancel
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError
from devloop.model import PushTarget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class World:
    """All that is asked. Each question waits until all `together` are under way."""

    date = "Mon, 30 Nov 2026 14:00:00 GMT"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, together: int = 1) -> None:
        self.barrier = threading.Barrier(together, timeout=30)
        self.faults: dict[str, Code] = {}
        self.pinged: list[str] = []
        self.waits = {"docker", "registry", "nodes", "described"} if together > 1 else set[str]()
        for name, what in {
            "preflight": self._docker,
            "find_registry": self._find_registry,
            "node_platforms": self._platforms,
            "check_registry": self._check_registry,
        }.items():
            monkeypatch.setattr(module, name, what)

    def _asked(self, what: str) -> None:
        if what in self.waits:
            self.barrier.wait()
        if what in self.faults:
            raise DevloopError.of(self.faults[what], what)

    def _docker(self, _services: object) -> None:
        self._asked("docker")

    def _find_registry(self, project: Any, _connection: object) -> PushTarget:
        self._asked("described")
        return PushTarget(push=project.registry or "localhost:5001", source="cluster")

    def _platforms(self, _connection: object) -> tuple[str, ...]:
        self._asked("nodes")
        return ("linux/amd64",)

    def _check_registry(self, target: PushTarget, client: object, _cancel: Cancel) -> None:
        if client is not None:
            self.pinged.append(target.push)
            self._asked("registry")


def ask(
    world: World,
    directory: Path,
    registry: str = "",
    *,
    patient: bool = False,
    images: Literal["built", "pushed", "given"] = "built",
    meanwhile: Callable[[], str] = lambda: "read",
) -> tuple[Environment, str]:
    text = f"version: 1\nname: web\nservices: {{web: {{build: .}}}}\n{registry}\n"
    (directory / "devloop.yaml").write_text(text)
    project = load_project(cwd=directory, env={}).project
    with contextlib.ExitStack() as stack:
        return preflight_environment(
            project,
            project.services,
            world,  # type: ignore[arg-type]
            Cancel(),
            stack,
            meanwhile=meanwhile,
            patient=patient,
            images=images,
        )


def test_all_that_is_independent_is_asked_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, together=5)

    def meanwhile() -> str:
        world.barrier.wait()
        return "read"

    found, read = ask(world, tmp_path, "registry: localhost:5005", meanwhile=meanwhile)
    assert read == "read"
    assert found.target.push == "localhost:5005"
    assert found.platforms == ("linux/amd64",)
    assert found.began == "2026-11-30T14:00:00Z"
    assert world.pinged == ["localhost:5005"]


def test_a_registry_that_the_cluster_names_is_asked_once_it_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch)
    found, _ = ask(world, tmp_path)
    assert world.pinged == ["localhost:5001"]
    assert found.registry is not None
    assert found.registry.host == "localhost:5001"


@pytest.mark.parametrize(
    ("faults", "first"),
    [
        (("described", "registry", "docker", "nodes"), "described"),
        (("registry", "docker", "nodes"), "registry"),
        (("docker", "nodes"), "docker"),
        (("nodes",), "nodes"),
    ],
)
@pytest.mark.parametrize("registry", ["", "registry: localhost:5005"])
def test_of_several_faults_the_same_one_is_reported_each_time(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    faults: tuple[str, ...],
    first: str,
    registry: str,
) -> None:
    world = World(monkeypatch)
    world.faults = dict.fromkeys(faults, Code.REGISTRY_UNREACHABLE)
    with pytest.raises(DevloopError, match=first):
        ask(world, tmp_path, registry)


@pytest.mark.parametrize("code", [Code.REGISTRY_UNREACHABLE, Code.REGISTRY_UNAUTHORIZED])
@pytest.mark.parametrize("registry", ["", "registry: localhost:5005"])
def test_who_is_patient_begins_without_the_registry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: str, code: Code
) -> None:
    world = World(monkeypatch)
    world.faults = {"registry": code}
    found, _ = ask(world, tmp_path, registry, patient=True)
    assert found.registry is not None
    # Why it is away a hold says soon enough.
    refused = found.refused.code if found.refused else None
    assert refused == (code if code is Code.REGISTRY_UNAUTHORIZED else None)


def test_images_that_are_there_need_neither_docker_nor_a_registry_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch)
    world.faults = {"described": Code.REGISTRY_UNREACHABLE, "registry": Code.REGISTRY_UNREACHABLE}
    asked: list[object] = []
    monkeypatch.setattr(module, "preflight", asked.extend)
    found, _ = ask(world, tmp_path, "registry: localhost:5005", images="given")
    assert (found.target, found.registry) == (PushTarget(), None)
    world.faults = {}
    found, _ = ask(world, tmp_path, images="pushed")
    assert found.registry is not None
    assert not asked
