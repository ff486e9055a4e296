"""`--set KEY=VALUE`: changes to the file's tree before it is checked, by the same grammar.

Reads no file and no environment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from devloop.base.yaml_tree import Items, Keys, MappingEntry, Node, Scalar
from devloop.config.documents import compose_documents
from devloop.config.grammar import Block, Kind, List, Map
from devloop.config.problems import Fault, Problems, fault, nearest
from devloop.errors import Code, Location

if TYPE_CHECKING:
    from collections.abc import Sequence


_HERE = Location("--set")


def literal(text: str, location: Location, *, plain: bool = False) -> Scalar:
    """A value from outside any file; `plain` reads numbers and truth values as YAML does."""
    return Scalar(location=location, text=text, plain=plain, raw=text, literal=True)


def apply_sets(root: Keys, kind: Block, sets: Sequence[str], problems: Problems) -> Keys:
    """`root` with each `a.b.c=value` put in; what cannot be goes to `problems` (usage/arguments).

    A value is one YAML scalar as it stands, without comments and variables; one that begins with a
    quote, `[` or `{` is read as YAML."""
    for text in sets:
        dotted, equals, value = text.partition("=")
        parts = tuple(dotted.strip().split("."))
        if not equals or not all(parts):
            message = f"--set {text!r} is not of the form KEY=VALUE"
            problems.add(Code.USAGE_ARGUMENTS, message, _HERE, "services.web.image=shop")
            continue
        try:
            root = cast("Keys", _put(root, kind, parts, _Change(dotted.strip(), _value(value))))
        except _Refused as refused:
            problems.add_fault(Code.USAGE_ARGUMENTS, refused.fault, _HERE)
    return root


def _value(text: str) -> Node:
    if text[:1] not in ('"', "'", "[", "{"):
        return literal(text.strip(), _HERE, plain=True)
    found = Problems()
    nodes = compose_documents(text, "--set", found)
    if found or len(nodes) != 1:
        why = found.sorted()[0].message if found else "not one value"
        raise _Refused(fault(f"--set: the value {text!r} is {why}"))
    return _relocated(nodes[0])


def _relocated(node: Node) -> Node:
    match node:
        case Scalar():
            return replace(node, location=_HERE, literal=True)
        case Items():
            return replace(node, location=_HERE, items=tuple(map(_relocated, node.items)))
        case Keys():
            moved = (replace(each, location=_HERE, value=_relocated(each.value)) for each in node)
            return replace(node, location=_HERE, entries=tuple(moved))


def _put(node: Node | None, kind: Kind | None, parts: tuple[str, ...], change: _Change) -> Node:
    """`node` (None: not there yet) with the change's value below it at `parts`."""
    if not parts:
        return change.value
    below = _below(node, kind, parts[0], change)
    if isinstance(kind, Block) and isinstance(node, Scalar | Items) and kind.short is not None:
        entry = MappingEntry(key=kind.short, location=node.location, value=node)
        node = Keys(location=node.location, entries=(entry,))
    keys = node if isinstance(node, Keys) else Keys(location=_HERE, entries=())
    old = keys.get(parts[0])
    entry = MappingEntry(
        key=parts[0],
        location=_HERE if len(parts) == 1 or old is None else old.location,
        value=_put(old.value if old else None, below, parts[1:], change),
    )
    if old is None:
        return replace(keys, entries=(*keys.entries, entry))
    return replace(keys, entries=tuple(entry if each is old else each for each in keys))


def _below(node: Node | None, kind: Kind | None, part: str, change: _Change) -> Kind | None:
    """What is allowed under `part` of a value of `kind`; None where a feature does not exist (the
    reader says so)."""
    if kind is None:
        return None
    if isinstance(kind, List) and kind.single and not isinstance(node, Items):
        # The only one, which stands alone.
        kind = kind.item
    if isinstance(kind, Block):
        if (key := kind.keys.get(part)) is not None:
            return key.kind
        if part in kind.later:
            return None
        raise change.unknown(part, list(kind.keys), "the keys here are")
    if isinstance(kind, Map):
        present = [entry.key for entry in node] if isinstance(node, Keys) else []
        if part in present or not kind.closed:
            return kind.value
        raise change.unknown(part, present, f"devloop.yaml has the {kind.noun}s")
    message = f"--set {change.dotted}: `{part}` cannot be set inside a single value or a list"
    raise _Refused(fault(message, "a list is set as a whole, as in services.web.ports=[8080]"))


class _Change(NamedTuple):
    """One `--set`; `dotted` is its key as it was typed."""

    dotted: str
    value: Node

    def unknown(self, part: str, known: list[str], lead: str) -> _Refused:
        meant = nearest(part, known)
        hint = f"did you mean {self.dotted.replace(part, meant, 1)}?" if meant else ""
        cause = f"{lead} {', '.join(known)}" if known else None
        return _Refused(fault(f"--set {self.dotted}: there is no `{part}`", hint, cause=cause))


class _Refused(Exception):  # noqa: N818 - not an error: ends one `--set`
    """The change cannot be made."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault
