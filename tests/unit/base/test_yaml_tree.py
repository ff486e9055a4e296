"""YAML with positions: what it means, what is refused, and plain words for syntax errors."""

from __future__ import annotations

import pytest

from devloop.base.location import Location
from devloop.base.yaml_tree import (
    DEEPEST,
    MOST_NODES,
    Items,
    Keys,
    Scalar,
    YamlFault,
    describe,
    read_yaml,
)


def faults_of(text: str) -> tuple[YamlFault, ...]:
    return read_yaml(text, "f.yaml").faults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("0x10", 16),
        ("0o17", 15),
        ("017", 17),
        ("1.5", 1.5),
        ("true", True),
        ("~", None),
        ("yes", "yes"),
        ("9000:50", "9000:50"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("'12'", "12"),
        ("|\n  12", "12"),
        ("=", "="),
        (".inf", float("inf")),
        ("9" * 5000, float("inf")),
    ],
)
def test_core_schema(text: str, value: object) -> None:
    (node,) = read_yaml(f"a: {text}", "f").nodes
    assert isinstance(node, Keys)
    entry = node.get("a")
    assert entry is not None
    assert isinstance(entry.value, Scalar)
    assert entry.value.value == value
    assert type(entry.value.value) is type(value)


def test_every_node_knows_its_place() -> None:
    (node,) = read_yaml("a:\n  - b\n  - {c: 1}\n", "f").nodes
    assert isinstance(node, Keys)
    items = node.entries[0].value
    assert isinstance(items, Items)
    inner = items.items[1]
    assert isinstance(inner, Keys)
    assert node.entries[0].location == Location("f", 1, 1)
    assert [item.location for item in items.items] == [Location("f", 2, 5), Location("f", 3, 5)]
    assert inner.entries[0].value.location == Location("f", 3, 9)
    assert [describe(each) for each in (node, items, inner.entries[0].value)] == [
        "a mapping",
        "a list",
        "the number 1",
    ]


def test_documents() -> None:
    nodes = read_yaml("a: 1\n---\n---\n# none\n---\nb: 2\n", "f").nodes
    assert [node.location.line for node in nodes] == [1, 6]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: b: c", (1, 5), "a `:` where no key can stand"),
        ("a: [1,\nb: 3", (1, 4), "opened by `[` is not closed"),
        ("a: {b: 1\nc: d", (1, 4), "opened by `{` is not closed"),
        ("a: [b]]", (1, 7), "`]` that closes nothing"),
        ("a:\n\tb: 1", (2, 1), "a tab"),
        ("a: 'x\nb: 1\n", (1, 4), "a quoted text is not closed"),
        ("a: 'it's'", (1, 8), "text after a complete value"),
        ("a:\n  - 1\n b: 2", (3, 2), "does not belong to the mapping"),
        ("a: @x", (1, 4), "cannot begin with"),
        ("a: *", (1, 5), "a name must follow"),
        ('a: "\\q"', (1, 6), "unknown escape"),
        ("a: - b", (1, 4), "no list can start"),
        ("a: \x00b", (1, 4), "a control character"),
        ('"\\U99999999"', None, "out of range"),
        ("%YAML 1." + "9" * 5000 + "\n---\na", None, "out of range"),
        ("a: !!python/object:os.system x", (1, 4), "the tag !!python/object:os.system is not"),
        ("a: !custom [x]", (1, 4), "the tag !custom is not allowed"),
        ("a: &x [*x]", (1, 4), "the anchor &x contains itself"),
        ("a: *y", (1, 4), "does not exist"),
        ("? [1]\n: 2", (1, 3), "a key must be text"),
        ("a: {<<: {b: 1}}", (1, 5), "merge keys"),
        ("[" * (DEEPEST + 5) + "]" * (DEEPEST + 5), (1, DEEPEST + 2), "nested more than"),
    ],
)
def test_refused(text: str, place: tuple[int, int] | None, words: str) -> None:
    (found,) = faults_of(text)
    assert not found.duplicate
    assert words in found.message
    assert found.location == (Location("f.yaml", *place) if place else Location("f.yaml"))
    assert found.detail == () or found.detail[0].startswith(f"{place[0] if place else ''} | ")


def test_duplicate_keys() -> None:
    (found,) = faults_of("a: 1\nb: 2\na: 3\n")
    assert found.duplicate
    assert found.location == Location("f.yaml", 3, 1)
    assert found.cause == "it already stands at f.yaml:1:1"


def test_an_alias_bomb_is_counted_not_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (found,) = faults_of("\n".join(lines))
    assert f"more than {MOST_NODES:,} values" in found.message


def test_lenient_reading_takes_yamls_own_tags_and_merges() -> None:
    text = "base: &b {x: 1, y: 2}\nother: {y: 3, <<: [*b, {z: 4}], n: !!str 5}\n"
    (node,), faults = read_yaml(text, "f", lenient=True)
    assert faults == ()
    assert isinstance(node, Keys)
    other = node.entries[1].value
    assert isinstance(other, Keys)
    found = {each.key: each.value for each in other}
    assert {key: value.text for key, value in found.items() if isinstance(value, Scalar)} == {
        "x": "1",
        "y": "3",
        "z": "4",
        "n": "5",
    }
    assert found["x"].location == Location("f", 1, 14)
    (fault,) = read_yaml("a: !Ref b", "f", lenient=True).faults
    assert fault.message == "the tag !Ref is not allowed here"
