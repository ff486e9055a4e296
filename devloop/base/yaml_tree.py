"""YAML as a tree in which every value knows its place; used for every YAML file that is read.

PyYAML composes the nodes and no constructor ever runs: a tag cannot name a Python type, and what a
plain scalar means is its reader's choice. What could hide a mistake or blow up (duplicate keys,
tags, merge keys, an alias bomb) is a fault with its place. Must not know any key of any file.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import yaml

from devloop.base.lazy_dataclass import dataclass
from devloop.base.location import Location
from devloop.base.yaml_errors import explain

if TYPE_CHECKING:
    from collections.abc import Iterator


# A devloop.yaml of 100 services has about 3,000 nodes; an alias bomb has billions.
MOST_NODES = 50_000
DEEPEST = 50

_NULL = re.compile(r"(?:null|Null|NULL|~|)")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_BASED = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_OWN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "binary", "timestamp", "map", "seq")
)
# What may stand before a value; a plain one cannot begin with these characters.
_TAGGED = re.compile(r"(?:&\S+\s+)?(![^\s,\[\]{}]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value. `text` is what YAML makes of the characters `raw` that stand in the file;
    `plain` is False when it stands in quotes or a block, that is, when it can only be text;
    `literal` is True when its `$` have no meaning; `tag` is the one that is written, in full."""

    location: Location
    text: str
    plain: bool = True
    raw: str = ""
    literal: bool = False
    tag: str | None = None
    size: int = 1

    @property
    def value(self) -> str | int | float | bool | None:
        """The value by YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3.2)."""
        text = self.text
        if not self.plain:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
        if special := _SPECIAL.get(text.lower()):
            return float(special)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list."""

    location: Location
    items: tuple[Node, ...]
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingEntry:
    """One `key: value` of a mapping; `location` is the key's."""

    key: str
    location: Location
    value: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A mapping, in the order of the file; keys are text and unique."""

    location: Location
    entries: tuple[MappingEntry, ...]
    size: int = 1

    def __iter__(self) -> Iterator[MappingEntry]:
        return iter(self.entries)

    def get(self, key: str) -> MappingEntry | None:
        return next((entry for entry in self.entries if entry.key == key), None)


Node: TypeAlias = Scalar | Items | Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlFault:
    """What is wrong with a YAML text, in plain words. `duplicate`: a key stands twice."""

    message: str
    location: Location
    cause: str | None = None
    suggestions: tuple[str, ...] = ()
    detail: tuple[str, ...] = ()
    duplicate: bool = False


class YamlDocuments(NamedTuple):
    """The documents of a text without the empty ones, none when it cannot be read at all; and
    every fault in the order in which it was found."""

    nodes: tuple[Node, ...]
    faults: tuple[YamlFault, ...]


def describe(node: Node) -> str:
    """The value as a message names it: `the number 3`, `a list`."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Keys):
        return "a mapping"
    match node.value:
        case None:
            return "nothing"
        case str(text):
            shown = text if len(text) <= 60 else text[:57] + "..."
            return f"the text {shown!r}"
        case bool():
            return f"the truth value {node.text}"
    return f"the number {node.text[:40]}"


def read_yaml(
    text: str, shown: str, *, lenient: bool = False, most: int = MOST_NODES, deepest: int = DEEPEST
) -> YamlDocuments:
    """Read a text of a file named `shown`.

    `lenient` takes YAML's own tags and merges `<<` as kubectl does; else both are faults. Up to
    `most` values, counting each use of an alias, up to `deepest` levels deep."""
    reading = _Reading(text=text, shown=shown, lenient=lenient, most=most, deepest=deepest)
    nodes: tuple[Node, ...] = ()
    try:
        nodes = tuple(reading.documents())
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reading.faults.append(_syntax_fault(error, shown, text))
    except RecursionError:
        reading.faults.append(YamlFault(message="nested too deeply", location=Location(shown)))
    except _Stop:
        pass
    return YamlDocuments(nodes, tuple(reading.faults))


def _compose(text: str) -> list[Any]:
    try:
        return list(yaml.compose_all(text, Loader=_Fast))
    except (yaml.YAMLError, ValueError):
        # Reads it again, since it says better what is wrong.
        return list(yaml.compose_all(text, Loader=_Plain))


class _Plain(yaml.SafeLoader):
    """Leaves every plain scalar a text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Fast(_CLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


def _syntax_fault(error: Exception, shown: str, text: str) -> YamlFault:
    message, cause, hints, opened = explain(error)
    marks = [getattr(error, name, None) for name in ("problem_mark", "context_mark")]
    mark = next(filter(None, reversed(marks) if opened else marks), None)
    place = Location(shown)
    if mark is not None:
        place = Location(shown, mark.line + 1, mark.column + 1)
    elif isinstance(error, yaml.reader.ReaderError) and isinstance(error.position, int):
        place = Location.after(text[: error.position], shown)
    lines = text.split("\n")
    line = lines[place.line - 1].rstrip()[:200] if place.line and place.line <= len(lines) else ""
    odd = (c for c in set(line) if not (c.isprintable() or c == "\t"))
    line = line.translate(dict.fromkeys(map(ord, odd), "\N{REPLACEMENT CHARACTER}"))
    return YamlFault(
        message=f"not valid YAML: {message}",
        location=place,
        cause=cause,
        suggestions=hints,
        detail=(f"{place.line} | {line}",) if line else (),
    )


class _Stop(Exception):  # noqa: N818 - not an error: ends the reading of one file
    """The tree is hopeless; the reason is among the faults."""


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One text on its way from PyYAML's nodes to ours, with limits kept. `known` has None for a
    node while it is being read."""

    text: str
    shown: str
    lenient: bool
    most: int
    deepest: int
    faults: list[YamlFault] = field(default_factory=list)
    known: dict[int, Node | None] = field(default_factory=dict)
    size: int = 0

    def documents(self) -> Iterator[Node]:
        # Kept until the end, so that no two of them have one id.
        for composed in _compose(self.text):
            node = self._node(composed, 0)
            # An empty document is an empty scalar that takes no room in the file.
            if not (isinstance(node, Scalar) and node.plain and node.raw == ""):
                yield node

    def _at(self, composed: Any) -> Location:
        mark = composed.start_mark
        return Location(self.shown, mark.line + 1, mark.column + 1)

    def _fault(self, location: Location, message: str, **more: Any) -> None:
        self.faults.append(YamlFault(message=message, location=location, **more))

    def _stop(self, composed: Any, message: str) -> NoReturn:
        self._fault(self._at(composed), message)
        raise _Stop

    def _count(self, size: int, composed: Any) -> None:
        self.size += size
        if self.size > self.most:
            self._stop(composed, f"more than {self.most:,} values, counting each use of an alias")

    def _node(self, composed: Any, depth: int) -> Node:
        if id(composed) in self.known:
            known = self.known[id(composed)]
            if known is None:
                anchor = self.text[composed.start_mark.index :].split(None, 1)[0]
                self._stop(composed, f"the anchor {anchor[:40]} contains itself")
            self._count(known.size, composed)
            return known
        if depth > self.deepest:
            self._stop(composed, f"nested more than {self.deepest} levels deep")
        self._count(1, composed)
        self.known[id(composed)] = None
        tag = self._tag(composed)
        node: Node
        if isinstance(composed, yaml.ScalarNode):
            start, end = composed.start_mark, composed.end_mark
            node = Scalar(
                location=self._at(composed),
                text=composed.value,
                plain=not composed.style,
                raw=self.text[start.index : end.index],
                tag=tag,
            )
        elif isinstance(composed, yaml.SequenceNode):
            items = tuple(self._node(item, depth + 1) for item in composed.value)
            size = 1 + sum(item.size for item in items)
            node = Items(location=self._at(composed), items=items, size=size)
        else:
            node = self._keys(composed, depth)
        self.known[id(composed)] = node
        return node

    def _tag(self, composed: Any) -> str | None:
        """The tag that is written before a value, if any."""
        found = _TAGGED.match(self.text, composed.start_mark.index)
        if found is None:
            return None
        if not (self.lenient and composed.tag in _OWN_TAGS):
            self._fault(
                self._at(composed),
                f"the tag {found[1][:40]} is not allowed here",
                cause="values have the type their key asks for; tags can run code in some programs",
                suggestions=("remove the tag",),
            )
        return str(composed.tag)

    def _keys(self, composed: Any, depth: int) -> Keys:
        entries: dict[str, MappingEntry] = {}
        merged: dict[str, MappingEntry] = {}
        for key_node, value_node in composed.value:
            key = self._node(key_node, depth + 1)
            value = self._node(value_node, depth + 1)
            if not isinstance(key, Scalar):
                self._fault(key.location, f"a key must be text, not {describe(key)}")
                continue
            entry = MappingEntry(key=key.text, location=self._at(key_node), value=value)
            if key.plain and key.text == "<<":
                self._merge(entry, merged)
            elif (first := entries.get(key.text)) is not None:
                self._fault(
                    entry.location,
                    f"the key `{key.text}` stands twice",
                    cause=f"it already stands at {first.location}",
                    suggestions=("keep one of the two",),
                    duplicate=True,
                )
            else:
                entries[key.text] = entry
        found = tuple({**merged, **entries}.values())
        size = 1 + sum(1 + entry.value.size for entry in found)
        return Keys(location=self._at(composed), entries=found, size=size)

    def _merge(self, entry: MappingEntry, merged: dict[str, MappingEntry]) -> None:
        """Add what `<<` brings; of several sources the first counts."""
        if not self.lenient:
            self._fault(
                entry.location,
                "merge keys (<<) are not allowed here",
                cause="what they merge is not part of YAML 1.2",
                suggestions=("write the keys out",),
            )
            return
        for source in entry.value.items if isinstance(entry.value, Items) else (entry.value,):
            if isinstance(source, Keys):
                for each in source:
                    merged.setdefault(each.key, each)
            else:
                self._fault(source.location, "<< wants a mapping")
