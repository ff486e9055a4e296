"""Lines of the event stream, held against the schema that `devloop schema events` prints."""

from __future__ import annotations

import functools
from typing import Any

import jsonschema

from devloop.event_schema import event_schema

PARTS = event_schema()["$defs"]


@functools.cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": PARTS})


def check_line(event: dict[str, Any]) -> None:
    """It is valid, and the schema names its type and every key of it."""
    _validator(event["type"]).validate(event)
    assert event.keys() == PARTS[event["type"]]["properties"].keys(), event
