"""Where the image of a service stands in the build of another one that needs it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.builders.base_moves import base_references
from devloop.builders.dockerfile import parse
from devloop.builders.needs import NeedsBuilder, filled, used_needs
from devloop.config.builds import Build
from devloop.config.needs import prepared, with_needs
from devloop.model import Fingerprint, ImageRef, Scan, Snapshot

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = {"my-base": "r/my-base@sha256:1", "tools": "r/tools@sha256:2"}


def build_of(directory: Path, dockerfile: str, **more: Any) -> Build:
    file = directory / "Dockerfile"
    file.write_text(dockerfile)
    build = Build(context=directory, dockerfile=file, **more)
    return prepared(build, ("my-base", "tools"))


@pytest.mark.parametrize(
    ("dockerfile", "args", "contexts"),
    [
        ("ARG MY_BASE_IMAGE\nFROM ${MY_BASE_IMAGE}\n", ["MY_BASE_IMAGE"], []),
        ("ARG MY_BASE_IMAGE=python:3.12\nFROM $MY_BASE_IMAGE\n", ["MY_BASE_IMAGE"], []),
        ("FROM scratch\nARG TOOLS_IMAGE\n", ["TOOLS_IMAGE"], []),
        ("FROM my-base\n", [], ["my-base"]),
        ("FROM scratch\nCOPY --from=tools /a /a\n", [], ["tools"]),
        ("FROM a\nRUN --mount=from=tools,target=/t make\n", [], ["tools"]),
        ("FROM my-base AS my-base\nFROM scratch\nCOPY --from=my-base a a\n", [], ["my-base"]),
        ("FROM a AS tools\nFROM tools\n", [], []),
        ("ARG FORM=tools\nFROM ${FORM}\n", [], ["tools"]),
        ("FROM python\n", [], []),
        (
            "ARG MY_BASE_IMAGE\nFROM ${MY_BASE_IMAGE}\nCOPY --from=tools a a\n",
            ["MY_BASE_IMAGE"],
            ["tools"],
        ),
    ],
)
def test_what_the_dockerfile_uses(
    tmp_path: Path, dockerfile: str, args: list[str], contexts: list[str]
) -> None:
    build = build_of(tmp_path, dockerfile, args={"OTHER": "1"})
    full = filled(build, IMAGES)
    names = {"MY_BASE_IMAGE": "my-base", "TOOLS_IMAGE": "tools"}
    assert full.args == {"OTHER": "1"} | {name: IMAGES[names[name]] for name in args}
    assert full.images == {name: IMAGES[name] for name in contexts}
    assert used_needs(build) == {*contexts, *(names[name] for name in args)}
    # What a need stands for is not asked of any registry.
    asked = base_references(parse(dockerfile), build)
    assert not {"my-base", "tools", "python:3.12"}.intersection(asked)


def test_an_argument_of_devloop_yaml_stays(tmp_path: Path) -> None:
    own = {"MY_BASE_IMAGE": "mine"}
    build = build_of(tmp_path, "ARG MY_BASE_IMAGE\nFROM $MY_BASE_IMAGE\n", args=own)
    assert used_needs(build) == frozenset()
    assert filled(build, IMAGES).args == own


def test_a_build_command_gets_all(tmp_path: Path) -> None:
    build = build_of(tmp_path, "", builder="command", command=("make",))
    assert used_needs(build) == set(IMAGES)
    assert filled(build, IMAGES).images == IMAGES


def scan_of(**needs: str) -> Scan:
    empty = Snapshot(entries={}, digest="", stamp="")
    return Scan(fingerprint=Fingerprint("", ""), snapshot=empty, needs=needs)


def test_another_image_of_a_need_begins_with_nothing_of_what_was_built_before(
    tmp_path: Path,
) -> None:
    made: list[Any] = []

    class Inner:
        def __init__(self, build: Build) -> None:
            self.closed = False
            self.images = build.images
            made.append(self)

        def build(self, *_: Any) -> ImageRef:
            return ImageRef(repository="r", tag="t")

        def may_differ(self, *_: Any) -> bool:
            return False

        def close(self) -> None:
            self.closed = True

    build = build_of(tmp_path, "FROM tools\n")
    inner: Any = Inner
    builder = NeedsBuilder(build, inner)
    one, two = scan_of(tools="one"), scan_of(tools="two")
    anything: Any = None
    for scan in (one, replace(one, recipe="r"), two):
        builder.build(scan, anything, anything)
    assert [(each.images, each.closed) for each in made] == [
        ({"tools": "one"}, True),
        ({"tools": "two"}, False),
    ]
    assert builder.may_differ(one, two)
    assert not builder.may_differ(two, two)
    builder.close()
    assert made[-1].closed


def test_what_is_needed_comes_along(tmp_path: Path) -> None:
    class Needing:
        def __init__(self, *needs: str) -> None:
            self.needs = needs

    services: Any = {"a": Needing("b"), "b": Needing("c"), "c": Needing(), "d": Needing("a")}
    assert with_needs(["a"], services) == ("a", "b", "c")
