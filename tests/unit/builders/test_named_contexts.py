"""What named contexts stand for in a Dockerfile, and who must leave it to a builder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.builders.base_moves import base_references
from devloop.builders.base_triggers import started_from
from devloop.builders.buildx import arguments
from devloop.builders.daemonless.builder import needs_builder
from devloop.builders.delta.copy_targets import Targets
from devloop.builders.dockerfile import parse
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.named_contexts import check_stages
from devloop.builders.needs import used_needs
from devloop.builders.split.division import divide
from devloop.config.builds import Build
from devloop.model import PushTarget
from tests.unit.builders import kit

if TYPE_CHECKING:
    from pathlib import Path

CONTEXTS = {
    "shared": "/src/shared",
    "alpine": "docker-image://r.test/alpine:3",
    "pinned": f"docker-image://a@sha256:{'0' * 64}",
    "code": "https://git.test/code.git#main",
}


def build_of(directory: Path, dockerfile: str, **more: Any) -> Build:
    file = directory / "Dockerfile"
    file.write_text(dockerfile)
    return Build(context=directory, dockerfile=file, contexts=CONTEXTS, **more)


@pytest.mark.parametrize(
    ("dockerfile", "images", "start"),
    [
        ("FROM alpine", ["r.test/alpine:3"], ["r.test/alpine:3"]),
        ("FROM docker.io/library/alpine:latest", ["r.test/alpine:3"], ["r.test/alpine:3"]),
        ("FROM alpine:3", ["alpine:3"], ["alpine:3"]),
        ("FROM pinned", [], [CONTEXTS["pinned"].partition("//")[2]]),
        ("FROM a\nCOPY --from=alpine x x\nCOPY --from=code x x", ["a", "r.test/alpine:3"], ["a"]),
        ("FROM shared", [], None),
        ("FROM a AS shared\nFROM b", ["b"], None),
    ],
)
def test_which_images_are_asked_for(
    tmp_path: Path, dockerfile: str, images: list[str], start: list[str] | None
) -> None:
    build = build_of(tmp_path, dockerfile)
    assert list(base_references(parse(dockerfile), build)) == images
    found = started_from(parse(dockerfile), build)
    assert (list(found) if found is not None else None) == start


@pytest.mark.parametrize(
    ("dockerfile", "reason"),
    [
        ("FROM a AS shared\nRUN x\nFROM b\nCOPY . .", "Dockerfile:1 the stage shared is a named"),
        ("FROM b\nFROM shared\nRUN x\nCOPY . .", "Dockerfile:2 FROM shared is a named context and"),
        ("FROM code\nRUN x\nCOPY . .", "FROM code is a named context and no image"),
        ("ARG B=shared\nFROM $B\nRUN x\nCOPY . .", "FROM shared is a named context and no image"),
    ],
)
def test_what_only_a_builder_knows(tmp_path: Path, dockerfile: str, reason: str) -> None:
    build = build_of(tmp_path, dockerfile)
    with pytest.raises(NeedsFullBuild, match=reason):
        check_stages(parse(dockerfile), build, "Dockerfile")
    with pytest.raises(NeedsFullBuild, match=reason):
        divide(parse(dockerfile), build)
    with pytest.raises(NeedsFullBuild, match=reason):
        Targets(build).of(kit.scan_of(tmp_path))
    assert reason in (needs_builder(build, "Dockerfile") or "")


def test_one_goes_before_the_image_of_a_need(tmp_path: Path) -> None:
    build = build_of(tmp_path, "FROM alpine\nCOPY --from=tools a a", needs=("alpine", "tools"))
    assert used_needs(build) == {"tools"}
    assert list(base_references(parse("FROM alpine"), build)) == ["r.test/alpine:3"]


def test_what_buildx_gets(tmp_path: Path) -> None:
    contexts = {"alpine": "docker-image://localhost:5001/alpine", "shared": "/src/shared"}
    build = {"contexts": contexts, "images": {"tools": "localhost:5001/tools@sha256:1"}}
    target = PushTarget(push="localhost:5001", cluster="registry:5000")
    job = kit.job(tmp_path, target, build=build)
    given: dict[str, Any] = dict.fromkeys(("dockerfile", "context", "metadata"), tmp_path)

    def named(**more: Any) -> list[str]:
        found = arguments(job, tag="t", **given, **more)
        return [each.partition("=")[2] for each in found if each.startswith("--build-context")]

    assert named() == [
        "tools=docker-image://localhost:5001/tools@sha256:1",
        "alpine=docker-image://localhost:5001/alpine",
        "shared=/src/shared",
    ]
    assert named(route="cluster") == [
        "tools=docker-image://registry:5000/tools@sha256:1",
        "alpine=docker-image://registry:5000/alpine",
        "shared=/src/shared",
    ]
