"""Skaffold's profiles as those of a devloop.yaml: what each changes of the tree, and when it is
active. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.base.yaml_tree import Keys, Node, Scalar
from devloop.config.skaffold.tree import at, entry, given, is_true, items, listed, mapped, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.yaml_tree import MappingEntry


_NAMES = {"env": "env", "kubeContext": "context", "command": "command"}
_COMMANDS = frozenset({"dev", "run", "build", "test", "render", "deploy"})
_PLAIN = re.compile(r"[A-Za-z0-9_./@: *-]*")


def changes(base: Keys, other: Keys) -> Keys:
    """What has to be merged over `base`, key by key, to get `other`: a key without a value is taken
    away."""
    found: list[MappingEntry] = []
    for each in other:
        old = at(base, each.key)
        if isinstance(old, Keys) and isinstance(each.value, Keys):
            inner = changes(old, each.value)
            if inner.entries:
                found.append(entry(each.key, inner, each.location))
        elif old is None or not _same(old, each.value):
            found.append(each)
    gone = (each for each in base if other.get(each.key) is None)
    nothing = (entry(e.key, Scalar(location=e.location, text="", plain=True)) for e in gone)
    return mapped(other.location, *found, *nothing)


def _same(one: Node, other: Node) -> bool:
    """Whether two values are written alike, wherever that is."""
    return list(_flat(one)) == list(_flat(other))


def _flat(node: Node) -> Iterator[object]:
    if isinstance(node, Scalar):
        yield node.text, node.plain and not isinstance(node.value, str)
    elif isinstance(node, Keys):
        for each in node:
            yield each.key
            yield from _flat(each.value)
        yield "}"
    else:
        for item in node.items:
            yield from _flat(item)
        yield "]"


def activation(profile: Node) -> tuple[MappingEntry | None, bool]:
    """The `activate` of a profile, None where it has to be named; and whether all of its conditions
    could be said."""
    conditions: list[Keys] = []
    whole = True
    for each in items(at(profile, "activation")):
        found = []
        for name, new in _NAMES.items():
            value = at(each, name)
            if value is None or not text_of(value):
                continue
            text, place = text_of(value), value.location
            if name == "command":
                words = text.strip("^$()").split("|")
                whole = whole and set(words) <= _COMMANDS
                found.append(entry(new, listed(place, (given(each, place) for each in words))))
                continue
            pattern = _pattern(name, text)
            whole = whole and pattern is not None
            found.append(entry(new, given(pattern or "", place)))
        conditions.append(mapped(each.location, *found))
    if not conditions or not whole:
        return None, whole
    place = conditions[0].location
    if is_true(at(profile, "requiresAllActivations")) and len(conditions) > 1:
        names = [each.key for one in conditions for each in one]
        if len(set(names)) != len(names):
            return None, False
        conditions = [mapped(place, *(each for one in conditions for each in one))]
    return entry("activate", listed(place, conditions)), True


def _pattern(name: str, text: str) -> str | None:
    """A regular expression that is found anywhere, as a pattern of the whole; None for one that has
    more than `^`, `$` and `.*`."""
    variable = ""
    if name == "env":
        key, _, text = text.partition("=")
        variable = f"{key}="
        if not text:
            return variable
    no, text = ("!", text[1:]) if text.startswith("!") else ("", text)
    begins, ends = text.startswith("^"), text.endswith("$")
    body = text.removeprefix("^").removesuffix("$").replace(".*", "*")
    if not _PLAIN.fullmatch(body):
        return None
    before, after = ("" if begins else "*"), ("" if ends else "*")
    return variable + no + re.sub(r"\*+", "*", f"{before}{body}{after}")
