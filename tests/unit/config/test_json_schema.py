"""The schema that editors use and the loader are of one mind."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from devloop.base.yaml_tree import Items, Node, Scalar, read_yaml
from devloop.config.json_schema import project_schema
from devloop.config.loader import load_project
from devloop.config.problems import ConfigErrors
from tests.unit.config.corpus import BAD, GOOD

if TYPE_CHECKING:
    from pathlib import Path


def plain(node: Node) -> Any:
    """The JSON that an editor's YAML parser makes of the file."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {entry.key: plain(entry.value) for entry in node}


@cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(project_schema())


def schema_accepts(text: str) -> bool:
    (document,) = read_yaml(text, "devloop.yaml").nodes
    return bool(validator().is_valid(plain(document)))


def loader_accepts(text: str, directory: Path) -> bool:
    (directory / "devloop.yaml").write_text(text, encoding="utf-8", newline="")
    (directory / ".env").touch()
    try:
        load_project(cwd=directory, env={})
    except ConfigErrors:
        return False
    return True


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_both_accept(text: str, tmp_path: Path) -> None:
    assert loader_accepts(text, tmp_path)
    assert schema_accepts(text)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_both_refuse(text: str, tmp_path: Path) -> None:
    assert not loader_accepts(text, tmp_path)
    assert not schema_accepts(text)


def test_variables_may_stand_anywhere() -> None:
    assert schema_accepts(
        "version: ${V}\nservices: {web: {image: 'a/${I}', build: {builder: '${B}'}, "
        "ports: ['${P}'], deploy: {timeout: '${T}', replace: '${R}'}}}"
    )


def test_the_schema_is_valid_and_every_key_is_described() -> None:
    schema = project_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)

    def properties(part: object) -> list[tuple[str, dict[str, object]]]:
        if isinstance(part, list):
            return [found for each in part for found in properties(each)]
        if not isinstance(part, dict):
            return []
        here = part.get("properties", {}) if part.get("type") == "object" else {}
        return [*here.items(), *(f for each in part.values() for f in properties(each))]

    found = properties(schema)
    assert len(found) > 30
    assert [name for name, key in found if not key.get("description")] == []
