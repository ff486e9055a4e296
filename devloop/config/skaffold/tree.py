"""Reading and making YAML trees: what all steps between skaffold.yaml and devloop.yaml share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.yaml_tree import Items, Keys, MappingEntry, Node, Scalar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.errors import Location


def text_of(node: Node | None) -> str:
    """The text of a single value; "" for anything else, and for nothing."""
    return node.text if isinstance(node, Scalar) and node.value is not None else ""


def is_true(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.value is True


def is_false(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.value is False


def entries(node: Node | None) -> tuple[MappingEntry, ...]:
    return node.entries if isinstance(node, Keys) else ()


def items(node: Node | None) -> tuple[Node, ...]:
    """Those of a list; a single value counts as a list of it, as Skaffold's older versions have it
    in places."""
    if isinstance(node, Items):
        return node.items
    return (node,) if node is not None and text_of(node) else ()


def entry_at(node: Node | None, *path: str) -> MappingEntry | None:
    """The `key: value` at the end of `path`, if it is there."""
    found: MappingEntry | None = None
    for name in path:
        found = node.get(name) if isinstance(node, Keys) else None
        if found is None:
            return None
        node = found.value
    return found


def at(node: Node | None, *path: str) -> Node | None:
    """The value at the end of `path`, if it is there."""
    found = entry_at(node, *path)
    return found.value if found else None


def text_at(node: Node | None, *path: str) -> str:
    return text_of(at(node, *path))


def put(keys: Keys, name: str, value: Node, location: Location | None = None) -> Keys:
    """`keys` with `name` as `value`; a key that is there keeps its place."""
    old = keys.get(name)
    where = location or (old.location if old else value.location)
    entry = MappingEntry(key=name, location=where, value=value)
    if old is None:
        return replace(keys, entries=(*keys.entries, entry))
    return replace(keys, entries=tuple(entry if each is old else each for each in keys))


def put_at(
    keys: Keys, path: tuple[str, ...], value: Node, location: Location | None = None
) -> Keys:
    """As `put`, at the end of a path whose mappings are made where they are missing."""
    name, *rest = path
    if not rest:
        return put(keys, name, value, location)
    below = at(keys, name)
    inner = below if isinstance(below, Keys) else Keys(location=value.location, entries=())
    return put(keys, name, put_at(inner, tuple(rest), value, location))


def without(keys: Keys, *names: str) -> Keys:
    return replace(keys, entries=tuple(each for each in keys if each.key not in names))


def without_at(keys: Keys, *path: str) -> Keys:
    """`keys` without what stands at the end of `path`."""
    *above, name = path
    inner = at(keys, *above) if above else keys
    if not isinstance(inner, Keys):
        return keys
    return put_at(keys, tuple(above), without(inner, name)) if above else without(keys, name)


# Making


def given(text: str, location: Location, *, plain: bool = False) -> Scalar:
    """A value whose `$` have no meaning; `plain` for numbers and truth values."""
    return Scalar(location=location, text=text, plain=plain, raw=text, literal=True)


def moved(node: Node) -> Node:
    """The same value with no meaning in its `$`."""
    match node:
        case Scalar():
            return replace(node, literal=True)
        case Items():
            return replace(node, items=tuple(map(moved, node.items)))
        case Keys():
            return replace(
                node, entries=tuple(replace(each, value=moved(each.value)) for each in node)
            )


def listed(location: Location, nodes: Iterable[Node]) -> Items:
    return Items(location=location, items=tuple(nodes))


def mapped(location: Location, *found: MappingEntry | None) -> Keys:
    """A mapping of those that there are; of two with one name the first counts."""
    kept: dict[str, MappingEntry] = {}
    for each in found:
        if each is not None:
            kept.setdefault(each.key, each)
    return Keys(location=location, entries=tuple(kept.values()))


def entry(name: str, value: Node, location: Location | None = None) -> MappingEntry:
    return MappingEntry(key=name, location=location or value.location, value=value)
