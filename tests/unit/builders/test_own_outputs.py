"""A build command that writes files below its context builds no more than it must."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.builders.command import Command
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.errors import Code, DevloopError
from devloop.watch.source import ServiceSource
from tests.unit.builders.kit import Notes, job, write

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.model import Scan

DIGEST = "sha256:" + "d" * 64


class AnyTag:
    """A registry that has every image."""

    def digest(self, repository: str, reference: str, cancel: object = None) -> str:
        return DIGEST


class Stage:
    """A project whose build command is `script`."""

    def __init__(self, root: Path, script: str) -> None:
        self.root = write(root, {"app.py": "one", "Dockerfile": "FROM scratch"})
        build = Build(
            context=root,
            dockerfile=root / "Dockerfile",
            builder="command",
            command=("sh", "-c", script),
        )
        service = Service(
            name="web", image="shop/web", build=build, deploy=Deploy(workload_name="web")
        )
        self.source = ServiceSource(service, root)
        registry: Any = AnyTag()
        plain = job(root, written_since=self.source.written_since, registry=registry)
        self.job = replace(plain, build=build)
        self.builder = Command(self.job)
        self.notes = Notes()

    def scan(self) -> Scan:
        return self.source.scan(None, Cancel())

    def turn(self) -> bool:
        """One look and one build; whether it made an image."""
        try:
            self.builder.build(self.scan(), self.notes, Cancel())
        except DevloopError as error:
            if error.code is Code.BUILD_CONTEXT_CHANGED:
                return False
            raise
        return True


def test_outputs_with_the_same_bytes_are_no_change(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "mkdir -p dist; echo made > dist/out")
    assert [stage.turn() for _ in range(3)] == [False, True, True]
    assert stage.notes.diagnostics == []


def test_an_output_with_other_bytes_each_time_is_named_and_deployed_in_the_second_turn(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, "date +%s%N > stamp")
    assert [stage.turn() for _ in range(3)] == [False, True, True]
    (warning,) = stage.notes.diagnostics
    assert (warning.severity, "stamp" in warning.message) == ("warning", True)
    assert warning.suggestions == ("add this line to .dockerignore: stamp",)


def test_what_somebody_edits_is_a_change_although_a_build_was_under_way_each_time(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, "date +%s%N > stamp; [ ! -e edit ] || date +%s%N > app.py")
    assert [stage.turn(), stage.turn()] == [False, True]
    write(tmp_path, {"app.py": "two"})  # before the build that it starts
    write(tmp_path, {"edit": ""})
    assert [stage.turn() for _ in range(3)] == [False, False, False]


def test_what_is_written_in_run_after_run_belongs_to_the_build_under_way(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "date +%s%N > stamp")
    seen: list[tuple[bool, bool]] = []
    for _ in range(3):
        before = stage.scan()
        stage.turn()
        after = stage.scan()
        seen.append((stage.job.may_differ(before, after), stage.job.wrote(before, after)))
    assert seen == [(False, False), (False, True), (False, True)]
    before = stage.scan()
    write(tmp_path, {"app.py": "two"})
    assert stage.job.may_differ(before, stage.scan())


@pytest.mark.parametrize("end", ["exit 1", "kill $$"])
def test_a_run_that_fails_shows_its_outputs_too(tmp_path: Path, end: str) -> None:
    stage = Stage(tmp_path, f"date +%s%N > stamp; {end}")
    wrote = []
    for _ in range(3):
        before = stage.scan()
        with pytest.raises(DevloopError):
            stage.builder.build(before, stage.notes, Cancel())
        wrote.append(stage.job.wrote(before, stage.scan()))
    assert wrote == [False, True, True]


def test_for_docker_a_file_of_the_context_is_never_an_output(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "date +%s%N > stamp")
    before = stage.scan()
    write(tmp_path, {"app.py": "two"})
    docker = replace(stage.job, build=replace(stage.job.build, builder="buildx", command=None))
    docker.outputs.ends(frozenset({"app.py"}), whole=True)
    assert docker.may_differ(before, stage.scan())
