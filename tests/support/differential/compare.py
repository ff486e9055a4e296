"""What differs between two images, as lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.differential.images import Image

__all__ = ["differences"]


def differences(expected: Image, got: Image) -> tuple[str, ...]:
    """One line for each path and each part of the config that differs; empty when none does."""
    lines = []
    for path in sorted(expected.files.keys() | got.files.keys()):
        wanted, found = expected.files.get(path), got.files.get(path)
        if wanted != found:
            lines.append(f"/{path!r}: expected {wanted or 'nothing'}, got {found or 'nothing'}")
    for key in sorted(expected.config.keys() | got.config.keys()):
        one, two = expected.config.get(key), got.config.get(key)
        if one != two:
            lines.append(f"config {key}: expected {one!r}, got {two!r}")
    return tuple(lines)
