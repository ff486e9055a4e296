"""YAML as a tree in which every value knows its place; used for every YAML file that is checked.

Built from PyYAML's parse events, so no constructor ever runs: a tag cannot name a Python type and a
plain scalar means what YAML 1.2's core schema says (`on` is text, `9000:50` is not a number in base
60). Must not know any key of any file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import yaml

from devloop.config.yaml_errors import explain
from devloop.errors import Code, DevloopError, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.config.problems import Problems

__all__ = [
    "Items",
    "Keys",
    "MappingEntry",
    "Node",
    "Scalar",
    "compose_documents",
    "describe",
    "read_text",
    "yaml_diagnosis",
]

# A file of 100 services has about 3,000 nodes; an alias bomb has billions.
MOST_NODES = 50_000
DEEPEST = 50
LARGEST_FILE = 4 * 1024 * 1024

_NULL = re.compile(r"(?:null|Null|NULL|~|)")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_BASED = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value. `text` is what YAML makes of the characters `raw` that stand in the file;
    `plain` is False when it stands in quotes or a block, that is, when it can only be text;
    `literal` is True when its `$` have no meaning."""

    location: Location
    text: str
    plain: bool = True
    raw: str = ""
    literal: bool = False
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


def describe(node: Node) -> str:
    """The value as a message names it: `the number 3`, `a list`."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Keys):
        return "a mapping"
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, str):
        shown = value if len(value) <= 60 else value[:57] + "..."
        return f"the text {shown!r}"
    if isinstance(value, bool):
        return f"the truth value {node.text}"
    return f"the number {node.text[:40]}"


def read_text(path: Path, shown: str) -> str:
    """The text of a file named `shown` in messages.

    Raises `DevloopError`: config/not-found, env/file-unreadable or config/parse (not UTF-8).
    """
    place = Location(shown)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise DevloopError.of(
            Code.CONFIG_NOT_FOUND, f"{shown} does not exist", location=place
        ) from None
    except IsADirectoryError:
        raise DevloopError.of(
            Code.CONFIG_NOT_FOUND, f"{shown} is a folder, not a file", location=place
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DevloopError.of(
            Code.ENV_FILE_UNREADABLE, f"{shown} cannot be read", location=place, cause=why
        ) from None
    if len(data) > LARGEST_FILE:
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            f"{shown} is larger than {LARGEST_FILE // 1024 // 1024} MB",
            location=place,
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            f"the file is not UTF-8 text: byte 0x{data[error.start]:02x}",
            location=Location(
                shown, before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1
            ),
            suggestions=("save the file with the encoding UTF-8",),
        ) from None


def yaml_diagnosis(
    error: Exception, shown: str, text: str = "", *, code: Code = Code.CONFIG_PARSE
) -> Diagnosis:
    """A PyYAML error (or the ValueError that its scanner lets through) in plain words.

    `text` is the YAML that was parsed, if at hand, for the line to show.
    """
    message, cause, hints, opened = explain(error)
    marks = [getattr(error, name, None) for name in ("problem_mark", "context_mark")]
    mark = next(filter(None, reversed(marks) if opened else marks), None)
    line = column = None
    if mark is not None:
        line, column = mark.line + 1, mark.column + 1
    elif isinstance(error, yaml.reader.ReaderError) and isinstance(error.position, int):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    lines = text.split("\n")
    shown_line = lines[line - 1].rstrip()[:200] if line and line <= len(lines) else ""
    shown_line = "".join(
        c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in shown_line
    )
    return Diagnosis(
        code=code,
        message=f"not valid YAML: {message}",
        location=Location(shown, line, column),
        cause=cause,
        suggestions=hints,
        detail=(f"{line} | {shown_line}",) if shown_line else (),
    )


def compose_documents(
    text: str, shown: str, problems: Problems, *, code: Code = Code.CONFIG_PARSE
) -> tuple[Node, ...]:
    """The documents of a YAML text; an empty one is left out.

    What is wrong goes to `problems`: after a syntax error (`code`) nothing is returned; tags, merge
    keys, duplicate keys and too many nodes are reported, and the rest is read on.
    """
    composer = _Composer(text, shown, problems, code)
    try:
        return tuple(composer.documents())
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        problems.take(yaml_diagnosis(error, shown, text, code=code))
    except _Stop:
        pass
    return ()


class _Stop(Exception):  # noqa: N818 - not an error: ends the reading of one file
    """The tree is hopeless; the reason was already reported."""


class _Composer:
    """Turns parse events into nodes; the same job as PyYAML's, with limits and positions kept."""

    def __init__(self, text: str, shown: str, problems: Problems, code: Code) -> None:
        self._text = text
        self._shown = shown
        self._problems = problems
        self._code = code
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, Node | None] = {}
        self._size = 0

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                node = self._node(next(self._events), 0)
                # An empty document is an empty scalar that takes no room in the file.
                if not (isinstance(node, Scalar) and node.plain and node.raw == ""):
                    yield node

    def _at(self, mark: Any) -> Location:
        return Location(self._shown, mark.line + 1, mark.column + 1)

    def _count(self, size: int, mark: Any) -> None:
        self._size += size
        if self._size > MOST_NODES:
            self._stop(mark, f"more than {MOST_NODES:,} values, counting each use of an alias")

    def _stop(self, mark: Any, message: str) -> NoReturn:
        self._problems.add(self._code, message, self._at(mark))
        raise _Stop

    def _node(self, event: Any, depth: int) -> Node:
        mark: Any = event.start_mark
        if depth > DEEPEST:
            self._stop(mark, f"nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(1, mark)
        if event.tag is not None:
            self._problems.add(
                self._code,
                f"the tag {self._text[mark.index :].split(None, 1)[0][:40]} is not allowed here",
                self._at(mark),
                cause="values have the type their key asks for; tags can run code in some programs",
                suggestions=("remove the tag",),
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            end: Any = event.end_mark
            node = Scalar(
                location=self._at(mark),
                text=event.value,
                plain=event.style is None or event.style == "",
                raw=self._text[mark.index : end.index],
            )
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._items(event, depth)
        else:
            node = self._keys(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        mark = event.start_mark
        if event.anchor not in self._anchors:
            self._stop(mark, f"the alias *{event.anchor} stands for an anchor that does not exist")
        node = self._anchors[event.anchor]
        if node is None:
            self._stop(mark, f"the alias *{event.anchor} contains itself")
        self._count(node.size, mark)
        return node

    def _items(self, start: Any, depth: int) -> Items:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Items(
            location=self._at(start.start_mark),
            items=tuple(items),
            size=1 + sum(item.size for item in items),
        )

    def _keys(self, start: Any, depth: int) -> Keys:
        entries: dict[str, MappingEntry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            mark = event.start_mark
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar):
                self._problems.add(
                    self._code, f"a key must be text, not {describe(key)}", key.location
                )
                continue
            entry = MappingEntry(key=key.text, location=self._at(mark), value=value)
            if key.plain and key.text == "<<":
                self._problems.add(
                    self._code,
                    "merge keys (<<) are not allowed here",
                    entry.location,
                    cause="what they merge is not part of YAML 1.2",
                    suggestions=("write the keys out",),
                )
            elif (first := entries.get(key.text)) is not None:
                self._problems.add(
                    Code.CONFIG_DUPLICATE_KEY,
                    f"the key `{key.text}` stands twice",
                    entry.location,
                    cause=f"it already stands at {first.location}",
                    suggestions=("keep one of the two",),
                )
            else:
                entries[key.text] = entry
        return Keys(
            location=self._at(start.start_mark),
            entries=tuple(entries.values()),
            size=1 + sum(1 + entry.value.size for entry in entries.values()),
        )
