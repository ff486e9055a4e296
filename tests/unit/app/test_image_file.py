"""The file of images between stages: written, read back, read from Skaffold, and its faults."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from devloop.app.image_file import check_place, images_for, read_images, write_images
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.model import ImageRef

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.config.schema import Service

DIGEST = "sha256:" + "a" * 64
WEB = ImageRef(repository="r.example/shop/web", tag="devloop-1", digest=DIGEST)


@pytest.fixture
def services(tmp_path: Path) -> dict[str, Service]:
    for name in ("web", "api"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / "devloop.yaml").write_text(
        "version: 1\nservices:\n  web: {image: shop/web, build: web}\n  api: {build: api}\n"
    )
    return load_project(cwd=tmp_path, env={}).project.services


def test_what_build_writes_is_what_deploy_reads(
    tmp_path: Path, services: dict[str, Service]
) -> None:
    file = tmp_path / "out" / "images.json"
    local = ImageRef(repository="api", tag="devloop-2")
    renamed = ImageRef(
        repository="localhost:5001/api", tag="t", digest=DIGEST, pull_repository="registry:5000/api"
    )
    for api in (local, renamed):
        write_images(file, {"web": WEB, "api": api})
        found = images_for(file, services)
        assert [image.pinned for image in found.values()] == [WEB.pinned, api.pinned]
        assert found["api"].repository == api.repository
    assert json.loads(file.read_text())["builds"][0] == {
        "service": "web",
        "image": "r.example/shop/web",
        "tag": "devloop-1",
        "digest": DIGEST,
        "ref": f"r.example/shop/web@{DIGEST}",
    }
    assert file.stat().st_mode & 0o044 == 0o044  # as any file that is made


def test_the_file_of_skaffold_is_read_by_the_images_names(
    tmp_path: Path, services: dict[str, Service]
) -> None:
    file = tmp_path / "skaffold.json"
    builds = [
        {"imageName": "shop/web", "tag": f"gcr.io/acme/shop/web:v1@{DIGEST}"},
        {"imageName": "api", "tag": "localhost:5001/api:v2"},
        {"imageName": "other", "tag": "other:v2"},
    ]
    file.write_text(json.dumps({"builds": builds}))
    found = read_images(file, services)
    assert {name: image.pinned for name, image in found.items()} == {
        "web": f"gcr.io/acme/shop/web@{DIGEST}",
        "api": "localhost:5001/api:v2",
    }


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ('{"builds": [\n  1 2]}', Code.CONFIG_PARSE, (2, 5)),
        ("[]", Code.CONFIG_VALUE, (1, 1)),
        ('{\n "version": 9, "builds": []}', Code.CONFIG_VALUE, (2, 2)),
        ('{"builds": [{"service": "web"}]}', Code.CONFIG_VALUE, (1, 1)),
        ('{"builds": [\n{"imageName": "web", "tag": "web"}]}', Code.CONFIG_VALUE, (2, 16)),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(
    tmp_path: Path, services: dict[str, Service], text: str, code: Code, place: tuple[int, int]
) -> None:
    file = tmp_path / "images.json"
    file.write_text(text)
    with pytest.raises(DevloopError) as error:
        read_images(file, services)
    diagnosis = error.value.diagnosis
    assert diagnosis.code is code
    assert error.value.exit_status is ExitStatus.USAGE
    assert diagnosis.location is not None
    assert (diagnosis.location.line, diagnosis.location.column) == place
    assert diagnosis.suggestions


def test_a_service_without_an_image_and_a_file_that_is_not_there_are_named(
    tmp_path: Path, services: dict[str, Service]
) -> None:
    file = tmp_path / "images.json"
    with pytest.raises(DevloopError, match=r"images\.json does not exist"):
        images_for(file, services)
    write_images(file, {"web": WEB})
    with pytest.raises(DevloopError, match="no image of api"):
        images_for(file, services)
    assert list(images_for(file, {"web": services["web"]})) == ["web"]


@pytest.mark.parametrize("write", [check_place, lambda place: write_images(place, {"web": WEB})])
def test_a_place_that_cannot_be_written_is_the_environments_fault(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DevloopError, match="cannot write") as error:
        write(tmp_path / "file" / "images.json")
    assert error.value.exit_status is ExitStatus.ENVIRONMENT


def test_a_place_is_looked_at_without_writing_there(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "images.json")
    assert list((tmp_path / "new").iterdir()) == []
