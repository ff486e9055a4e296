"""Every key that Skaffold's schema has is read, or named with what becomes of it.

skaffold_schema.txt lists the schema's keys, skaffold_every_key.yaml has documents with those that
count.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.yaml_tree import Items, Keys, MappingEntry, Scalar, read_yaml
from devloop.config.problems import Problems
from devloop.config.skaffold.keys import KEYS, remarkable
from devloop.config.skaffold.notes import Module, Translating
from devloop.config.skaffold.translate import translated
from devloop.config.skaffold.write import as_text
from devloop.errors import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.yaml_tree import Node

HERE = Path(__file__).parent
ROOT = "SkaffoldConfig"
# Read by the source of documents, not by the translation of one (test_skaffold.py has them).
OF_THE_SOURCE = ("apiVersion", "kind", "requires", "profiles")


def schema() -> dict[str, list[str]]:
    """The keys of each type, those of `+Type` put in their place."""
    lines = (HERE / "skaffold_schema.txt").read_text().splitlines()
    types = {
        name: keys.split()
        for name, _, keys in (line.partition(":") for line in lines if not line.startswith("#"))
    }

    def whole(name: str) -> list[str]:
        return [
            one for key in types[name] for one in (whole(key[1:]) if key.startswith("+") else [key])
        ]

    return {name: whole(name) for name in types}


def paths(types: dict[str, list[str]], name: str = ROOT, above: str = "") -> Iterator[str]:
    """Every key as `build.artifacts[].image`; a profile's own are not gone into."""
    for text in types[name]:
        key, _, below = text.partition(":")
        path = above + key.removesuffix("[]").removesuffix("{}")
        yield path
        if below and path != "profiles":
            more = "[]." if below.endswith("[]") else "."
            yield from paths(types, below.removesuffix("[]"), path + more)


def document(path: str) -> Keys:
    """The document that has one key, with a value."""
    place = Location("skaffold.yaml", 3, 1)
    node: Node = Scalar(location=place, text="x", raw="x")
    for part in reversed(path.split(".")):
        name = part.removesuffix("[]")
        if name != part:
            node = Items(location=place, items=(node,))
        node = Keys(location=place, entries=(MappingEntry(key=name, location=place, value=node),))
    assert isinstance(node, Keys)
    return node


def test_the_table_knows_every_key() -> None:
    found = list(paths(schema()))
    unknown = [
        path
        for path in found
        if any(each.fate is None for each in remarkable(document(path), lambda _: True))
    ]
    assert unknown == []
    assert len(found) > 400


def test_every_key_that_counts_is_read() -> None:
    found = list(paths(schema()))
    counting = {
        path
        for path in found
        if not any(remarkable(document(path), lambda _: True))
        and not path.startswith(OF_THE_SOURCE)
        and not any(other.startswith((f"{path}.", f"{path}[]")) for other in found)
    }
    read: set[str] = set()
    for each in documents():
        whole = outcome(each)
        read |= {path for path, less in without_each(each, "") if outcome(less) != whole}
    assert sorted(counting - read) == []


def documents() -> Iterator[Keys]:
    nodes, problems = read_yaml((HERE / "skaffold_every_key.yaml").read_text(), "f", lenient=True)
    assert not problems
    for node in nodes:
        assert isinstance(node, Keys)
        yield node


class Files:
    """A project whose Dockerfiles have an ARG and a WORKDIR, and no other file."""

    def text(self, path: str) -> str:
        return "ARG BASE\nFROM x AS t\nWORKDIR /w\nCOPY . .\n" if path.endswith("file") else ""

    def is_file(self, path: str) -> bool:
        return path.endswith("Dockerfile")

    def matches(self, pattern: str) -> tuple[str, ...]:
        return (pattern,)


def outcome(found: Keys) -> tuple[str, list[str], list[str]]:
    """What becomes of a document: the devloop.yaml, what is said, what is wrong."""
    problems = Problems()
    use = Translating(
        files=Files(),
        values={},
        supports=lambda _: True,
        system="linux",
        problems=problems,
        notes=[],
    )
    root = translated([Module(document=found)], use)
    wrong = [each.message for each in problems.sorted()]
    return as_text(root, (), head=""), [str(each) for each in use.notes], wrong


def without_each(node: Node, path: str) -> Iterator[tuple[str, Keys]]:
    """The node without each of its keys in turn, however deep, with the key's path."""
    if isinstance(node, Items):
        for position, item in enumerate(node.items):
            for name, less in without_each(item, f"{path}[]"):
                items = (*node.items[:position], less, *node.items[position + 1 :])
                yield name, replace(node, items=items)  # type: ignore[misc]
    if not isinstance(node, Keys):
        return
    for each in node:
        name = f"{path}.{each.key}" if path else each.key
        rest = tuple(one for one in node if one is not each)
        yield name, replace(node, entries=rest)
        for below, less in without_each(each.value, name):
            entries = tuple(replace(one, value=less) if one is each else one for one in node)
            yield below, replace(node, entries=entries)


def test_the_documents_have_no_key_that_is_unknown() -> None:
    for each in documents():
        assert [found.path for found in remarkable(each, lambda _: True) if not found.fate] == []


def test_what_matters_says_what_to_do() -> None:
    assert [path for path, fate in KEYS.items() if fate.fate != "mapped" and not fate.why] == []
