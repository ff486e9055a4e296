"""Checks a YAML tree against the grammar and turns it into plain values, noting every place.

Every problem is reported and reading goes on. Knows no key by name; reads no file.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from devloop.base.yaml_tree import Items, Keys, MappingEntry, Node, Scalar, describe
from devloop.config.grammar import Block, Choice, Flag, Key, Kind, List, Map, Number, Text
from devloop.config.problems import Problems, nearest
from devloop.config.variables import expand
from devloop.errors import Code, Location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.config.locations import Locations, Path
    from devloop.config.rules import Fault


class _Missing(enum.Enum):
    MISSING = enum.auto()


# What stands for a value that was left out or that was wrong (and then reported).
MISSING: Final = _Missing.MISSING

Value: TypeAlias = Any


def dotted(path: Path) -> str:
    """A path as messages show it: `services.web.ports[0]`."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


class Reader:
    """Reads one file. `variables` are what `${NAME}` may name."""

    def __init__(
        self, problems: Problems, locations: Locations, variables: Mapping[str, str]
    ) -> None:
        self._problems = problems
        self._locations = locations
        self._variables = variables

    def read(self, node: Node, kind: Kind, path: Path) -> Value:
        """The plain value at `path`: a text, a number, a dict, or for a list its items as pairs of
        position in the file and value; `MISSING` if it is wrong or empty by a variable."""
        self._locations.note_value(path, node.location)
        match kind:
            case Text():
                return self._text(node, kind, path)
            case Number():
                return self._number(node, kind, path)
            case Choice():
                return self._choice(node, kind, path)
            case Flag():
                return self._flag(node, kind, path)
            case List():
                return self._list(node, kind, path)
            case Map():
                return self._map(node, kind, path)
            case Block():
                return self._block(node, kind, path)

    # Single values

    def _text(self, node: Node, kind: Text, path: Path) -> Value:
        if not isinstance(node, Scalar):
            return self._wrong_type(node, _expected(kind), path)
        text, used = self._expand(node, bare="keep" if kind.for_shell else "refuse")
        if text is None:
            return MISSING
        if used and text == "" and not kind.scalar:
            return MISSING
        if not used and not kind.scalar and not isinstance(node.value, str):
            number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
            if not (kind.number and number):
                return self._wrong_type(node, _expected(kind), path)
        return self._follow(text, kind, path)

    def _follow(self, text: str, kind: Text, path: Path) -> Value:
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._add(Code.CONFIG_VALUE, path, "the text is not valid Unicode")
            return MISSING
        if (fault := kind.rule.check(text)) is not None:
            return self._fault(fault, kind.rule.code, path)
        return text

    def _number(self, node: Node, kind: Number, path: Path) -> Value:
        value: object = node
        if isinstance(node, Scalar):
            text, used = self._expand(node, bare="refuse")
            if text is None:
                return MISSING
            value = Scalar(location=node.location, text=text).value if used else node.value
        if not isinstance(value, int) or isinstance(value, bool):
            return self._wrong_type(node, _expected(kind), path)
        if not kind.least <= value <= kind.most:
            return self._fault(kind.otherwise(value), kind.code, path)
        return value

    def _choice(self, node: Node, kind: Choice, path: Path) -> Value:
        if not isinstance(node, Scalar):
            return self._wrong_type(node, _expected(kind), path)
        text, used = self._expand(node, bare="refuse")
        if text is None or (used and text == ""):
            return MISSING
        if text in kind.words and (used or isinstance(node.value, str)):
            return text
        if node.value is None:
            return self._wrong_type(node, _expected(kind), path)
        meant = nearest(text, kind.words)
        self._add(
            Code.CONFIG_VALUE,
            path,
            f"`{dotted(path)}` must be {_expected(kind)}, not {describe(node)}",
            suggestions=(f"did you mean `{meant}`?",) if meant else (),
        )
        return MISSING

    def _flag(self, node: Node, kind: Flag, path: Path) -> Value:
        value: object = node
        if isinstance(node, Scalar):
            text, used = self._expand(node, bare="refuse")
            if text is None or (used and text == ""):
                return MISSING
            value = Scalar(location=node.location, text=text).value if used else node.value
        return value if isinstance(value, bool) else self._wrong_type(node, _expected(kind), path)

    def _expand(self, node: Scalar, *, bare: str) -> tuple[str | None, bool]:
        """The text with its variables replaced (None after a problem), and whether it had any."""
        if node.literal:
            return node.text, False
        expanded = expand(node.text, self._variables, bare=bare)
        for trouble in expanded.troubles:
            self._problems.add(
                Code.CONFIG_VARIABLE,
                trouble.message,
                _inside(node, trouble.dollar),
                cause=trouble.cause,
                suggestions=trouble.suggestions,
            )
        return (None if expanded.troubles else expanded.text), expanded.used

    # Collections

    def _list(self, node: Node, kind: List, path: Path) -> Value:
        if kind.word and isinstance(node, Scalar) and node.value is not None:
            text, used = self._expand(node, bare="refuse")
            if text is None or (used and text == ""):
                return MISSING
            if text == kind.word:
                return text
        if not isinstance(node, Items):
            hints: tuple[str, ...] = ()
            if isinstance(node, Scalar) and node.value is not None:
                meant = nearest(node.text, (kind.word,)) if kind.word else None
                hints = (
                    f"did you mean `{meant}`?"
                    if meant
                    else f"write a list: [{node.raw or node.text}]",
                )
            return self._wrong_type(node, _expected(kind), path, suggestions=hints)
        if len(node.items) < kind.least:
            self._add(Code.CONFIG_VALUE, path, f"`{dotted(path)}` has no items")
            return MISSING
        values = [self.read(item, kind.item, (*path, i)) for i, item in enumerate(node.items)]
        return [(i, value) for i, value in enumerate(values) if value is not MISSING]

    def _map(self, node: Node, kind: Map, path: Path) -> Value:
        if not isinstance(node, Keys):
            return self._wrong_type(node, "a mapping", path)
        if len(node.entries) < kind.least:
            self._add(Code.CONFIG_VALUE, path, f"`{dotted(path)}` names no {kind.noun}")
            return MISSING
        values: dict[str, Value] = {}
        for entry in node:
            where = (*path, entry.key)
            self._locations.note_key(where, entry.location)
            if (fault := kind.key.check(entry.key)) is not None:
                self._problems.add(
                    kind.key.code,
                    f"{kind.noun}: {fault.message}",
                    entry.location,
                    cause=fault.cause,
                    suggestions=fault.suggestions,
                )
            elif kind.null and isinstance(entry.value, Scalar) and entry.value.value is None:
                values[entry.key] = None
            else:
                values[entry.key] = self.read(entry.value, kind.value, where)
        return values

    def _block(self, node: Node, kind: Block, path: Path) -> Value:
        if isinstance(node, Scalar) and kind.short is not None and node.value is not None:
            where = (*path, kind.short)
            self._locations.note_key(where, self._locations.key(path))
            value = self.read(node, kind.keys[kind.short].kind, where)
            return {} if value is MISSING else {kind.short: value}
        if not isinstance(node, Keys):
            return self._wrong_type(node, _expected(kind), path)
        values: dict[str, Value] = {}
        misspelt: set[str | None] = set()
        for entry in node:
            where = (*path, entry.key)
            key = kind.keys.get(entry.key)
            if key is None and entry.key in kind.later:
                self._not_yet(entry, kind.later[entry.key])
                continue
            if key is None:
                misspelt.add(self._unknown(entry, kind, path))
                continue
            self._locations.note_key(where, entry.location)
            if (value := self.read(entry.value, key.kind, where)) is not MISSING:
                values[entry.key] = value
        for name, key in kind.keys.items():
            if key.required and node.get(name) is None and name not in misspelt:
                self._required(name, key, path)
        return values

    # What is wrong with keys

    def _unknown(self, entry: MappingEntry, kind: Block, path: Path) -> str | None:
        """Returns the key that was probably meant."""
        known = list(kind.keys)
        meant = nearest(entry.key, known)
        hints = (f"did you mean `{meant}`?",) if meant else ()
        if hint := kind.elsewhere.get(entry.key):
            hints = (hint,)
        self._problems.add(
            Code.CONFIG_UNKNOWN_KEY,
            f"unknown key `{entry.key}`" + (f" in `{dotted(path)}`" if path else ""),
            entry.location,
            cause=f"the keys here are {', '.join(known)}",
            suggestions=hints,
        )
        return meant

    def _not_yet(self, entry: MappingEntry, feature: str) -> None:
        self._problems.add(
            Code.CONFIG_NOT_SUPPORTED,
            f"`{entry.key}` is not supported yet",
            entry.location,
            cause=f"this devloop has no {feature}",
            suggestions=("remove the key",),
        )

    def _required(self, name: str, key: Key, path: Path) -> None:
        code = key.kind.code if isinstance(key.kind, Number) else Code.CONFIG_VALUE
        example = {"version": "version: 1", "build": "build: ."}.get(name)
        self._problems.add(
            code,
            f"the key `{name}` is missing" + (f" in `{dotted(path)}`" if path else ""),
            self._locations.key(path),
            suggestions=(f"add `{example}`",) if example else (),
        )

    def _wrong_type(
        self, node: Node, expected: str, path: Path, *, suggestions: tuple[str, ...] = ()
    ) -> Value:
        empty = isinstance(node, Scalar) and node.plain and node.value is None
        if empty and not suggestions:
            suggestions = ("give it a value, or remove it",)
        elif isinstance(node, Scalar) and node.plain and "text" in expected and not suggestions:
            suggestions = (f'put it in quotes: "{node.text}"',)
        self._problems.add(
            Code.CONFIG_TYPE,
            f"`{dotted(path) or 'the file'}` must be {expected}, not {describe(node)}",
            node.location if not empty else self._locations.key(path),
            suggestions=suggestions,
        )
        return MISSING

    def _fault(self, fault: Fault, code: Code, path: Path) -> Value:
        self._add(code, path, fault.message, cause=fault.cause, suggestions=fault.suggestions)
        if fault.alone:
            self._problems.keep_last_only()
        return MISSING

    def _add(
        self,
        code: Code,
        path: Path,
        message: str,
        *,
        cause: str | None = None,
        suggestions: tuple[str, ...] = (),
    ) -> None:
        self._problems.add(
            code, message, self._locations.value(path), cause=cause, suggestions=suggestions
        )


def _expected(kind: Kind) -> str:
    match kind:
        case Text():
            name = (
                "a number or text" if kind.number else "a single value" if kind.scalar else "text"
            )
            example = f" like {kind.rule.examples[0]}" if kind.rule.examples else ""
            return name + example
        case Number():
            return f"the number {kind.least}" if kind.least == kind.most else "a whole number"
        case Choice():
            return f"one of {', '.join(kind.words)}"
        case Flag():
            return "true or false"
        case List():
            return f"a list or the word {kind.word}" if kind.word else "a list"
        case Map():
            return "a mapping"
        case Block():
            return "text or a mapping" if kind.short else "a mapping"


def _inside(node: Scalar, dollar: int) -> Location:
    """The place of the n-th dollar sign of a value, or of the value where escapes hide it."""
    start = node.location
    if start.line is None or node.raw.count("$") != node.text.count("$"):
        return start
    at = -1
    for _ in range(dollar + 1):
        at = node.raw.find("$", at + 1)
    before = node.raw[:at]
    if "\n" not in before:
        return Location(start.path, start.line, (start.column or 1) + at)
    return Location(
        start.path, start.line + before.count("\n"), len(before.rpartition("\n")[2]) + 1
    )
