"""Plain values as YAML that reads back as the same values, here and in other YAML readers.

Knows no key; see effective.py for what a configuration is made of.
"""

from __future__ import annotations

import json
import re
from typing import TypeAlias

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

# Nothing of this is anything but text to a reader of YAML 1.1 or 1.2, in flow or block.
_SAFE = re.compile(r"(?:\.{0,2}/|\.?(?=[A-Za-z]))[A-Za-z0-9_./*@+=-]*|\.{1,2}|[0-9]+(?:ms|s|m|h)")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", ".inf", ".nan"))


def scalar(value: str | float | bool | None) -> str:
    """One value; None is nothing at all, as after `key:`."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() if _SAFE.fullmatch(value) and value.lower() not in _WORDS:
            return value
        case str():
            return json.dumps(value, ensure_ascii=not value.isprintable())
    return f"{value:g}" if isinstance(value, float) else str(value)


def flow(value: Plain) -> str:
    """A value on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{scalar(key)}: {flow(each)}' for key, each in value.items())}}}"
    return "null" if value is None else scalar(value)
