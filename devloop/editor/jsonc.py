"""JSON with comments and trailing commas, as editors' files are, changed in place.

Only our entries of one array are put in or replaced; every other character of the file stays as
it is, comments, order and indentation included. A file that is not understood is refused with the
place, never mended. Strings, numbers and literals are those of RFC 8259.
"""

from __future__ import annotations

import json
import re
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A byte order mark counts as a space.
_TRIVIA = re.compile(r"(?:[ \t\r\n\ufeff]|//[^\r\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_REST_OF_LINE = re.compile(r"(?:[ \t]|//[^\r\n]*+|/\*(?:[^*\r\n]|\*(?!/))*+\*/)*+(?=\r?\n)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
_ATOM = re.compile(r"-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][+-]?\d++)?(?![\w.])|(?:true|false|null)\b")
_INDENTED = re.compile(r'^([ \t]+)(?=["{\[])', re.MULTILINE)
_DEEPEST = 100
_NARROW = 72  # characters of what stands on one line


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonNode:
    """A value and where it stands: `text[start:end]`. `members` are those of an object, the last
    one of each name, `items` those of an array; `last` is the end of the last one, if any."""

    start: int
    end: int
    value: Any
    members: Mapping[str, JsonNode] = field(default_factory=dict)
    items: tuple[JsonNode, ...] = ()
    last: int | None = None


def parse(text: str, shown: str) -> JsonNode | None:
    """The file's value; None for a file without one. Errors: config/parse, in the file `shown`."""
    reader = _Reader(text, shown)
    at = reader.skip(0)
    if at == len(text):
        return None
    root = reader.value(at, 0)
    if (end := reader.skip(root.end)) != len(text):
        reader.refuse(end, "nothing more is expected here")
    return root


def with_entries(
    text: str,
    entries: Sequence[Mapping[str, Any]],
    *,
    shown: str,
    within: str | None = None,
    name: str = "label",
    head: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """`text` with the entries in its array, or in the array that is the member `within` of its
    object. One with the same `name` is replaced, or left alone where it says the same; others come
    at the end. `head` are members that the object must have, whatever their values.

    Errors: config/parse."""
    root = parse(text, shown)
    style = _Style(text)
    if root is None:
        whole = list(entries) if within is None else {**head, within: list(entries)}
        before = text.strip("\ufeff \t\r\n")
        return (before and before + style.line) + style.write(whole, "") + style.line
    edits: list[tuple[int, int, str]] = []
    array = root
    if within is not None:
        if not isinstance(root.value, dict):
            _Reader(text, shown).refuse(root.start, "an object is expected here")
        missing = {key: value for key, value in head.items() if key not in root.members}
        if within not in root.members:
            missing[within] = list(entries)
        edits += style.append(root, [(f"{json.dumps(k)}: ", v) for k, v in missing.items()])
        array = root.members.get(within, array)
    if array is not root or within is None:
        if not isinstance(array.value, list):
            _Reader(text, shown).refuse(array.start, "an array is expected here")
        edits += _in_array(style, array, entries, name)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _in_array(
    style: _Style, array: JsonNode, entries: Sequence[Mapping[str, Any]], name: str
) -> list[tuple[int, int, str]]:
    """The edits (start, end, new text) that put the entries in."""
    edits: list[tuple[int, int, str]] = []
    new: list[tuple[str, Any]] = []
    for entry in entries:
        mine = (n for n in array.items if isinstance(n.value, dict) and name in n.value)
        old = next((n for n in mine if n.value[name] == entry[name]), None)
        if old is None:
            new.append(("", entry))
        elif old.value != entry:
            edits.append((old.start, old.end, style.write(entry, style.indent_at(old.start))))
    return edits + style.append(array, new)


class _Style:
    """How a file is laid out, and text in that manner."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.line = "\r\n" if "\r\n" in text else "\n"
        found = _INDENTED.search(text)
        self._unit = "\t" if found and "\t" in found[1] else found[1][:8] if found else "  "

    def indent_at(self, at: int) -> str:
        """What the line of `at` begins with."""
        line = self._text[self._text.rfind("\n", 0, at) + 1 : at]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def write(self, value: Any, indent: str) -> str:
        """`value` in JSON; lines but the first one begin with `indent`."""
        narrow = json.dumps(value, ensure_ascii=False)
        if not value or not isinstance(value, (dict, list)):
            return narrow
        inner = indent + self._unit
        if isinstance(value, dict):
            opened, closed = "{}"
            parts = [f"{json.dumps(k)}: {self.write(v, inner)}" for k, v in value.items()]
        else:
            flat = not any(isinstance(each, (dict, list)) for each in value)
            if flat and len(narrow) <= _NARROW:
                return narrow
            opened, closed = "[]"
            parts = [self.write(each, inner) for each in value]
        body = f",{self.line}{inner}".join(parts)
        return f"{opened}{self.line}{inner}{body}{self.line}{indent}{closed}"

    def append(
        self, container: JsonNode, values: Sequence[tuple[str, Any]]
    ) -> list[tuple[int, int, str]]:
        """The edits that put (what stands before, value) in at the end of an object or array."""
        if not values:
            return []
        text, line = self._text, self.line
        outer, closing = self.indent_at(container.start), container.end - 1
        inner = outer + self._unit
        if container.last is None:
            kept = text[container.start + 1 : closing].rstrip(" \t\r\n")
            body = f",{line}{inner}".join(b + self.write(v, inner) for b, v in values)
            new = f"{kept}{line}{inner}{body}{line}{outer}"
            return [(container.start + 1, closing, new)]
        first = _TRIVIA.match(text, container.start + 1)
        if first and "\n" in first[0]:
            inner = self.indent_at(first.end())
        comma = _TRIVIA.match(text, container.last)
        after = comma.end() if comma else container.last
        trailing = text[after] == ","
        at = after + 1 if trailing else container.last
        # A comment behind the last one belongs to that.
        rest = _REST_OF_LINE.match(text, at)
        place = rest.end() if rest else at
        body = f",{line}{inner}".join(b + self.write(v, inner) for b, v in values)
        new = f"{line}{inner}{body}" + ("," if trailing else "")
        until = place
        if "\n" not in text[place:closing]:
            new += line + outer
            until = closing if text[place:closing].isspace() else place
        if trailing:
            return [(place, until, new)]
        if place == at:
            return [(at, until, f",{new}")]
        return [(at, at, ","), (place, until, new)]


class _Reader:
    def __init__(self, text: str, shown: str) -> None:
        self._text = text
        self._shown = shown

    def refuse(self, at: int, why: str) -> NoReturn:
        raise DevloopError.of(
            Code.CONFIG_PARSE,
            why,
            location=Location.after(self._text[:at], self._shown),
            cause="devloop adds its entries only to a file that it understands",
        )

    def skip(self, at: int) -> int:
        """The end of the white space and comments at `at`."""
        found = _TRIVIA.match(self._text, at)
        return found.end() if found else at

    def value(self, at: int, depth: int) -> JsonNode:
        if depth > _DEEPEST:
            self.refuse(at, "nested too deeply")
        match self._text[at : at + 1]:
            case "{":
                return self._object(at, depth)
            case "[":
                return self._array(at, depth)
            case '"':
                return self._string(at)
        if found := _ATOM.match(self._text, at):
            return JsonNode(start=at, end=found.end(), value=json.loads(found[0]))
        return self.refuse(at, "a value is expected here")

    def _string(self, at: int) -> JsonNode:
        found = _STRING.match(self._text, at)
        if found is None:
            ends = self._text[at : at + 1] != '"'
            self.refuse(at, "a string is expected here" if ends else "this string does not end")
        try:
            return JsonNode(start=at, end=found.end(), value=json.loads(found[0]))
        except ValueError as error:
            self.refuse(at, f"this is no string: {getattr(error, 'msg', error)}")

    def _object(self, start: int, depth: int) -> JsonNode:
        members: dict[str, JsonNode] = {}
        last, at = None, self.skip(start + 1)
        while self._text[at : at + 1] != "}":
            key = self._string(at)
            at = self.skip(key.end)
            if self._text[at : at + 1] != ":":
                self.refuse(at, "a colon is expected here")
            node = self.value(self.skip(at + 1), depth + 1)
            members[key.value] = node
            last, at = node.end, self._next(node.end, "}")
        value = {key: node.value for key, node in members.items()}
        return JsonNode(start=start, end=at + 1, value=value, members=members, last=last)

    def _array(self, start: int, depth: int) -> JsonNode:
        items: list[JsonNode] = []
        at = self.skip(start + 1)
        while self._text[at : at + 1] != "]":
            items.append(self.value(at, depth + 1))
            at = self._next(items[-1].end, "]")
        value = [node.value for node in items]
        last = items[-1].end if items else None
        return JsonNode(start=start, end=at + 1, value=value, items=tuple(items), last=last)

    def _next(self, at: int, closing: str) -> int:
        """Where the next one begins, or the closing bracket is."""
        at = self.skip(at)
        found = self._text[at : at + 1]
        if found == ",":
            return self.skip(at + 1)
        if found != closing:
            self.refuse(at, f"a comma or {closing} is expected here")
        return at
