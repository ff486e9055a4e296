"""Checks a YAML tree against the grammar and turns it into plain values, noting every place.

Every problem is reported and reading goes on. Knows no key by name; reads no file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import Items, Keys, MappingEntry, Node, Scalar, describe
from devloop.config.grammar import Block, Choice, Flag, Key, Kind, List, Map, Number, Text
from devloop.config.problems import Problems, nearest
from devloop.config.variables import expand
from devloop.errors import Code, Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.config.problems import Fault, Locations, Path


# What stands for a value that was left out or that was wrong (and then reported).
MISSING: Final = object()
# Truth values elsewhere, texts in YAML 1.2.
_YES = ("yes", "y", "on", "true")
_NO = ("no", "n", "off", "false")


def dotted(path: Path) -> str:
    """A path as messages show it: `services.web.ports[0]`."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one file. `variables` are what `${NAME}` may name."""

    problems: Problems
    locations: Locations
    variables: Mapping[str, str]

    def read(self, node: Node, kind: Kind, path: Path) -> Any:
        """The plain value at `path`: a text, a number, a dict, or for a list its items as pairs of
        position in the file and value; `MISSING` if it is wrong or empty by a variable."""
        self.locations.values[path] = node.location
        match kind:
            case List():
                return self._list(node, kind, path)
            case Map():
                return self._map(node, kind, path)
            case Block():
                return self._block(node, kind, path)
            case _ if isinstance(node, Scalar):
                return self._single(node, kind, path)
        return self._wrong_type(node, kind, path)

    def _single(self, node: Scalar, kind: Text | Number | Choice | Flag, path: Path) -> Any:
        for_shell = isinstance(kind, Text) and kind.for_shell
        text, used = self._expand(node, bare="keep" if for_shell else "refuse")
        takes_empty = isinstance(kind, Number) or (isinstance(kind, Text) and kind.scalar)
        if text is None or (used and text == "" and not takes_empty):
            return MISSING
        if used:
            self.locations.written[path] = node.text
        value = Scalar(location=node.location, text=text).value if used else node.value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        match kind:
            case Text() if (
                used or kind.scalar or isinstance(value, str) or (kind.number and number)
            ):
                return self._follow(text, kind, path)
            case Number() if isinstance(value, int) and number:
                if kind.least <= value <= kind.most:
                    return value
                return self._fault(kind.otherwise(value), kind.code, path)
            case Choice() if text in kind.words and isinstance(value, str):
                return text
            case Choice() if node.value is not None:
                message = f"`{dotted(path)}` must be {_expected(kind)}, not {describe(node)}"
                return self._wrong(path, message, _did_you_mean(text, kind.words))
            case Flag() if isinstance(value, bool):
                return value
        return self._wrong_type(node, kind, path)

    def _follow(self, text: str, kind: Text, path: Path) -> Any:
        if any("\ud800" <= character <= "\udfff" for character in text):
            return self._wrong(path, "the text is not valid Unicode")
        fault = kind.rule.check(text)
        return text if fault is None else self._fault(fault, kind.rule.code, path)

    def _expand(self, node: Scalar, *, bare: str = "refuse") -> tuple[str | None, bool]:
        """The text with its variables replaced (None after a problem), and whether it had any."""
        if node.literal:
            return node.text, False
        expanded = expand(node.text, self.variables, bare=bare)
        for trouble in expanded.troubles:
            place = _inside(node, trouble.dollar)
            self.problems.add_fault(Code.CONFIG_VARIABLE, trouble, place)
        return (None if expanded.troubles else expanded.text), expanded.used

    # Collections

    def _list(self, node: Node, kind: List, path: Path) -> Any:
        alone = isinstance(node, Scalar) and node.value is not None
        alone = alone or (isinstance(node, Keys) and isinstance(kind.item, Block))
        if kind.single and alone:
            value = self.read(node, kind.item, path)
            return MISSING if value is MISSING else [(0, value)]
        if kind.word and isinstance(node, Scalar) and node.value is not None:
            text, used = self._expand(node)
            if text is None or (used and text == ""):
                return MISSING
            if used:
                self.locations.written[path] = node.text
            if text == kind.word:
                return text
        if not isinstance(node, Items):
            hint = ""
            if isinstance(node, Scalar) and node.value is not None:
                hint = f"write a list: [{node.raw or node.text}]"
                if kind.word and node.text.lower() in _YES:
                    hint = f"write `{kind.word}`, or a list"
                elif kind.word:
                    hint = _did_you_mean(node.text, (kind.word,)) or hint
            return self._wrong_type(node, kind, path, hint)
        if len(node.items) < kind.least:
            return self._wrong(path, f"`{dotted(path)}` has no items")
        values = [self.read(item, kind.item, (*path, i)) for i, item in enumerate(node.items)]
        return [(i, value) for i, value in enumerate(values) if value is not MISSING]

    def _map(self, node: Node, kind: Map, path: Path) -> Any:
        if not isinstance(node, Keys):
            return self._wrong_type(node, kind, path)
        if len(node.entries) < kind.least:
            return self._wrong(path, f"`{dotted(path)}` names no {kind.noun}")
        values: dict[str, Any] = {}
        for entry in node:
            where = (*path, entry.key)
            self.locations.keys[where] = entry.location
            if (fault := kind.key.check(entry.key)) is not None:
                fault = replace(fault, message=f"{kind.noun}: {fault.message}")
                self.problems.add_fault(kind.key.code, fault, entry.location)
            elif kind.null and isinstance(entry.value, Scalar) and entry.value.value is None:
                values[entry.key] = None
            else:
                values[entry.key] = self.read(entry.value, kind.value, where)
        return values

    def _block(self, node: Node, kind: Block, path: Path) -> Any:
        if kind.short is not None and _is_short(node, kind.keys[kind.short].kind):
            where = (*path, kind.short)
            self.locations.keys[where] = self.locations.key(path)
            value = self.read(node, kind.keys[kind.short].kind, where)
            return {} if value is MISSING else {kind.short: value}
        if not isinstance(node, Keys):
            return self._wrong_type(node, kind, path)
        values: dict[str, Any] = {}
        misspelt: set[str | None] = set()
        for entry in node:
            where = (*path, entry.key)
            key = kind.keys.get(entry.key)
            if key is None:
                misspelt.add(self._unknown(entry, kind, path))
                continue
            self.locations.keys[where] = entry.location
            if (value := self.read(entry.value, key.kind, where)) is not MISSING:
                values[entry.key] = value
        for name, key in kind.keys.items():
            if key.required and node.get(name) is None and name not in misspelt:
                self._required(name, key, path)
        return values

    # What is wrong with keys

    def _unknown(self, entry: MappingEntry, kind: Block, path: Path) -> str | None:
        """Returns the key that was probably meant."""
        name, place = entry.key, entry.location
        if later := kind.later.get(name):
            message, cause = f"`{name}` is not supported yet", f"this devloop has no {later}"
            self.problems.add(
                Code.CONFIG_NOT_SUPPORTED, message, place, "remove the key", cause=cause
            )
            return None
        self.problems.add(
            Code.CONFIG_UNKNOWN_KEY,
            f"unknown key `{name}`{_within(path)}",
            place,
            kind.elsewhere.get(name) or _did_you_mean(name, kind.keys),
            cause=f"the keys here are {', '.join(kind.keys)}",
        )
        return nearest(name, kind.keys)

    def _required(self, name: str, key: Key, path: Path) -> None:
        code = key.kind.code if isinstance(key.kind, Number) else Code.CONFIG_VALUE
        hint = {"version": "add `version: 1`", "build": "add `build: .`"}.get(name, "")
        message = f"the key `{name}` is missing{_within(path)}"
        self.problems.add(code, message, self.locations.key(path), hint)

    def _wrong_type(self, node: Node, kind: Kind, path: Path, hint: str = "") -> Any:
        expected = _expected(kind)
        empty = isinstance(node, Scalar) and node.plain and node.value is None
        if empty and not hint:
            hint = "give it a value, or remove it"
        elif isinstance(node, Scalar) and node.plain and "text" in expected and not hint:
            hint = f'put it in quotes: "{node.text}"'
        elif isinstance(kind, Flag) and isinstance(node, Scalar):
            for word, meant in (("true", _YES), ("false", _NO)):
                hint = f"write {word}" if node.text.lower() in meant else hint
        self.problems.add(
            Code.CONFIG_TYPE,
            f"`{dotted(path) or 'the file'}` must be {expected}, not {describe(node)}",
            node.location if not empty else self.locations.key(path),
            hint,
        )
        return MISSING

    def _fault(self, fault: Fault, code: Code, path: Path) -> Any:
        self.problems.add_fault(code, fault, self.locations.value(path))
        return MISSING

    def _wrong(self, path: Path, message: str, hint: str = "") -> Any:
        self.problems.add(Code.CONFIG_VALUE, message, self.locations.value(path), hint)
        return MISSING


def _is_short(node: Node, kind: Kind) -> bool:
    """Whether a value stands in a block's place for the one key of this kind."""
    if isinstance(node, Scalar):
        return node.value is not None
    return isinstance(node, Items) and isinstance(kind, List)


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    meant = nearest(word, words)
    return f"did you mean `{meant}`?" if meant else ""


def _within(path: Path) -> str:
    return f" in `{dotted(path)}`" if path else ""


def _expected(kind: Kind) -> str:
    match kind:
        case Text():
            name = "a single value" if kind.scalar else "text"
            example = f" like {kind.rule.examples[0]}" if kind.rule.examples else ""
            return ("a number or text" if kind.number else name) + example
        case Number():
            return f"the number {kind.least}" if kind.least == kind.most else "a whole number"
        case Choice():
            return f"one of {', '.join(kind.words)}"
        case Flag():
            return "true or false"
        case List():
            if kind.single and isinstance(kind.item, Block) and kind.item.short:
                return _expected(kind.item)
            if kind.single:
                return f"{_expected(kind.item)}, or a list"
            return f"a list or the word {kind.word}" if kind.word else "a list"
        case Map():
            return "a mapping"
        case Block():
            if kind.short is None:
                return "a mapping"
            lists = isinstance(kind.keys[kind.short].kind, List)
            return "text, a list or a mapping" if lists else "text or a mapping"


def _inside(node: Scalar, dollar: int) -> Location:
    """The place of the n-th dollar sign of a value, or of the value where escapes hide it."""
    start = node.location
    if start.line is None or node.raw.count("$") != node.text.count("$"):
        return start
    before = "$".join(node.raw.split("$")[: dollar + 1])
    # As if there was nothing but space before the value.
    space = "\n" * (start.line - 1) + " " * ((start.column or 1) - 1)
    return Location.after(space + before, start.path)
