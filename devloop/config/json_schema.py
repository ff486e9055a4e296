"""The JSON Schema (draft 2020-12) of devloop.yaml as it is written, printed from the grammar.

It says no less than a single file's text can tell: files on disk, variables and rules across
services (two services with one port) stay with the loader.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from devloop.config.grammar import Block, Choice, Flag, Key, Kind, List, Map, Number, Text
from devloop.config.rules import DEBUG_PORT, PORT
from devloop.config.schema import PROJECT

_Schema: TypeAlias = dict[str, Any]

# A text with a variable may become anything; only the loader can tell.
_VARIABLE: _Schema = {"type": "string", "pattern": r"\$\{", "title": "a text with ${VARIABLES}"}


def project_schema() -> _Schema:
    """The schema as plain data, ready for `json.dumps`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:devloop:schema:devloop.yaml:1",
        "title": "devloop.yaml",
        **_of(PROJECT),
    }


def _of(kind: Kind) -> _Schema:
    match kind:
        case Text():
            return _text(kind)
        case Number():
            return {"anyOf": [{"enum": list(range(kind.least, kind.most + 1))}, _VARIABLE]}
        case Choice():
            return {"anyOf": [{"enum": list(kind.words)}, _VARIABLE]}
        case Flag():
            return {"anyOf": [{"type": "boolean"}, _VARIABLE]}
        case List():
            items: _Schema = {"type": "array", "items": _of(kind.item)}
            if kind.least:
                items["minItems"] = kind.least
            if kind.single:
                return {"anyOf": [_of(kind.item), items]}
            return {"anyOf": [{"enum": [kind.word]}, items, _VARIABLE]} if kind.word else items
        case Map():
            value = _of(kind.value)
            if kind.null:
                value = {"anyOf": [value, {"type": "null"}]}
            names = {"pattern": kind.key.pattern, "maxLength": kind.key.longest}
            entries = {"type": "object", "propertyNames": names, "additionalProperties": value}
            return entries | ({"minProperties": kind.least} if kind.least else {})
        case Block():
            return _block(kind)


def _text(kind: Text) -> _Schema:
    rule = kind.rule
    text: _Schema = {"type": "string", "pattern": rule.pattern, "maxLength": rule.longest}
    forms = [text]
    if kind.scalar:
        forms.append({"type": ["number", "boolean"]})
    elif kind.number and rule in (PORT, DEBUG_PORT):
        forms.append({"type": "integer", "minimum": 1, "maximum": 65535})
    elif kind.number:
        forms.append({"type": "number", "exclusiveMinimum": 0, "maximum": 86400})
    if not rule.pattern.startswith("^[^"):  # others take any characters, a variable's too
        forms.append(_VARIABLE)
    schema: _Schema = text if len(forms) == 1 else {"anyOf": forms}
    if rule.examples:
        schema |= {"examples": list(rule.examples)}
    return schema


def _block(kind: Block) -> _Schema:
    block: _Schema = {
        "type": "object",
        "properties": {name: _described(key) for name, key in kind.keys.items()},
        "additionalProperties": False,
        **kind.extra,
    }
    if required := [name for name, key in kind.keys.items() if key.required]:
        block["required"] = required
    return {"anyOf": [_of(kind.keys[kind.short].kind), block]} if kind.short else block


def _described(key: Key) -> _Schema:
    default = f" Default: {key.default}." if key.default else ""
    value = _of(key.kind)
    if key.removable:
        value = {"anyOf": [value, {"type": "null"}]}
    return {"description": key.about + default, **value}
