"""What the composition root decides before anything is wired."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devloop.app import only_session
from devloop.app.session import as_written, built_for, chosen, names_of
from devloop.config.loader import load_project
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.config.schema import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "devloop.yaml").write_text(
        "version: 1\nname: shop\nservices:\n"
        "  web: {build: .}\n  api: {build: {context: ., platform: linux/riscv64}}\n"
    )
    return load_project(cwd=tmp_path, env={}).project


def test_all_services_unless_some_are_named(project: Project) -> None:
    assert list(chosen(project, ())) == ["web", "api"]
    assert list(chosen(project, ("api",))) == ["api"]


def test_a_session_says_whom_it_is_for(project: Project) -> None:
    assert names_of(project, project.services) == "shop (web, api)"
    assert names_of(project, dict.fromkeys(map(str, range(100)), project.services["web"])) == (
        "shop (100 services)"
    )
    alone = replace(project, name="web")
    assert names_of(alone, {"web": project.services["web"]}) == "web"


def test_an_unknown_service_is_named_with_its_neighbour(project: Project) -> None:
    with pytest.raises(DevloopError) as caught:
        chosen(project, ("wbe",))
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "config/unknown-service"
    assert diagnosis.suggestions == ("did you mean web?",)
    assert diagnosis.cause == "services: web, api"


@pytest.mark.parametrize(
    ("machine", "nodes", "web"),
    [
        ("x86_64", ("linux/amd64",), None),
        ("arm64", ("linux/arm64",), None),
        ("aarch64", ("linux/amd64", "linux/arm64"), None),
        ("arm64", ("linux/amd64",), "linux/amd64"),
        ("arm64", (), None),
        ("armv7l", ("linux/arm",), None),
    ],
)
def test_images_are_built_for_the_nodes(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    nodes: tuple[str, ...],
    web: str | None,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    built = built_for(project.services, nodes)
    assert built["web"].build.platform == web
    assert built["api"].build.platform == "linux/riscv64"


def test_an_image_to_keep_is_built_from_the_dockerfile_as_it_stands(project: Project) -> None:
    service = project.services["web"]
    cached = replace(service, build=replace(service.build, cache="auto"))
    assert as_written({"web": cached}) == {"web": service}


def test_a_project_that_takes_no_files_is_an_error_with_its_place(project: Project) -> None:
    project.state_dir.write_text("in the way")
    with pytest.raises(DevloopError) as caught, only_session(project):
        pass
    assert caught.value.code == "env/file-unreadable"
    assert caught.value.diagnosis.location is not None
    assert str(caught.value.diagnosis.location).startswith(str(project.state_dir))
