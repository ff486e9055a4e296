"""`debug` of a service: its short form, its port, and what is wrong with it at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.config.schema import Debug
from devloop.errors import Code

if TYPE_CHECKING:
    from tests.unit.config.conftest import Directory


def _project(debug: str, more: str = "") -> str:
    return f"version: 1\nservices:\n  api:\n    build: .\n    debug: {debug}\n{more}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{port: 5000, kind: go}", Debug(port=5000, kind="go")),
        ("python", Debug(port=5678, kind="python")),
        ("{kind: node}", Debug(port=9229, kind="node")),
        ("go", Debug(port=2345, kind="go")),
        ('{port: "77", kind: node}', Debug(port=77, kind="node")),
    ],
)
def test_it_is_read(directory: Directory, text: str, wanted: Debug) -> None:
    found = directory.load(_project(text)).project.services["api"].debug
    assert found == wanted
    assert found is not None
    assert str(found.location) == "devloop.yaml:5:5"


def test_there_is_none_without_the_key(directory: Directory) -> None:
    assert (
        directory.load("version: 1\nservices: {api: {build: .}}").project.services["api"].debug
        is None
    )


@pytest.mark.parametrize(
    ("text", "code", "place", "message"),
    [
        ("{port: 0, kind: go}", Code.CONFIG_VALUE, "5:19", "'0': a port is a number from 1 to"),
        ("{port: 65536, kind: go}", Code.CONFIG_VALUE, "5:19", "'65536': a port is a number"),
        ("{port: http, kind: go}", Code.CONFIG_VALUE, "5:19", "'http': a port is a number"),
        ("{port: true, kind: go}", Code.CONFIG_TYPE, "5:19", "must be a number or text"),
        ("{port: 5, kind: ruby}", Code.CONFIG_VALUE, "5:28", "must be one of python, node, go"),
        ("ruby", Code.CONFIG_VALUE, "5:12", "must be one of python, node, go"),
        ("{port: 5}", Code.CONFIG_VALUE, "5:5", "the key `kind` is missing in"),
        ("{port: 5, kind: go, x: 1}", Code.CONFIG_UNKNOWN_KEY, "5:32", "unknown key `x`"),
        ("[go]", Code.CONFIG_TYPE, "5:12", "must be text or a mapping"),
    ],
)
def test_what_is_wrong_has_its_place(
    directory: Directory, text: str, code: Code, place: str, message: str
) -> None:
    found = directory.error(_project(text))
    assert (found.code, str(found.location)) == (code, f"devloop.yaml:{place}")
    assert message in found.message


@pytest.mark.parametrize(
    ("text", "more", "place"),
    [
        ("{kind: go, port: 80}", "    ports: [80]\n", "5:23"),
        ("{kind: go, port: 80}", "    ports: ['80:8080']\n", "5:23"),
        ("go", "    ports: [2345]\n", "5:5"),
        ("go", "  web: {build: ., debug: go}\n", "6:19"),
        ("{kind: go, port: 5678}", "  web: {build: ., debug: python}\n", "6:19"),
    ],
)
def test_its_port_is_no_other_local_one(
    directory: Directory, text: str, more: str, place: str
) -> None:
    found = directory.error(_project(text, more))
    assert str(found.location) == f"devloop.yaml:{place}"
    assert found.message.endswith("is used twice")
    assert found.suggestions


def test_a_port_of_the_container_alone_is_another_thing(directory: Directory) -> None:
    directory.load(_project("go", "    ports: ['80:2345']\n"))
