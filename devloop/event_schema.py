"""The JSON Schema (draft 2020-12) of a line of the event stream, printed from the classes in
events.py.

It says what a reader may rely on while `v` is 1. Types and keys that it does not name may be added,
so it refuses neither.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from devloop import errors, events, model

_Schema: TypeAlias = dict[str, Any]

_PLAIN: dict[object, _Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    types.NoneType: {"type": "null"},
    # Not listed: more of them come.
    errors.Code: {"type": "string", "pattern": "^[a-z0-9-]+/[a-z0-9-]+$"},
}
_HEAD: _Schema = {
    "v": {"const": 1},
    "seq": {"type": "integer", "minimum": 1},
    "ts": {"type": "string", "format": "date-time"},
    "type": {"type": "string"},
}


def event_schema() -> _Schema:
    """The schema as plain data, ready for `json.dumps`; `$defs` has each type by its name."""
    kinds = [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
    ]
    parts: dict[str, _Schema] = {}
    for kind in kinds:
        part = _object(kind, parts)
        head = _HEAD | {"type": {"const": kind.type}}
        part["properties"] = head | part["properties"] | head
        part["required"] = list(part["properties"])
        parts[kind.type] = part
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:devloop:schema:events:1",
        "title": "A line of devloop's event stream",
        "type": "object",
        "properties": _HEAD,
        "required": list(_HEAD),
        "allOf": [
            {
                "if": {"properties": {"type": {"const": kind.type}}},
                "then": {"$ref": f"#/$defs/{kind.type}"},
            }
            for kind in kinds
        ],
        "$defs": parts,
    }


def _object(cls: type[Any], parts: dict[str, _Schema]) -> _Schema:
    names = vars(model) | vars(errors)  # what events.py imports for type checkers only
    hints = get_type_hints(cls, localns=names)
    fields = [field.name for field in dataclasses.fields(cls)]
    # A class without words of its own has its name there.
    said = " ".join((cls.__doc__ or "").split())
    words = {"description": said} if said != cls.__name__ else {}
    return words | {
        "type": "object",
        "properties": {name: _of(hints[name], parts) for name in fields},
        "required": fields,
    }


def _of(hint: Any, parts: dict[str, _Schema]) -> _Schema:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(argument, parts) for argument in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], parts)}
    if issubclass(hint, enum.StrEnum):
        return {"enum": [str(member) for member in hint]}
    if hint.__name__ not in parts:
        parts[hint.__name__] = _object(hint, parts)
    return {"$ref": f"#/$defs/{hint.__name__}"}
