"""A YAML file of a chart or kustomization, as far as it can be read: what is wrong in it is for the
program to say that renders it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def mapping_in(file: str) -> dict[str, Any]:
    """What `file` holds; nothing when it cannot be read or is not one mapping."""
    try:
        return _parsed(Path(file).read_bytes())
    except OSError:
        return {}


@functools.lru_cache(maxsize=256)
def _parsed(text: bytes) -> dict[str, Any]:
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
