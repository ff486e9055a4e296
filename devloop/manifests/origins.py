"""Where rendered objects are written: a tool's output has no places that a user could look at.

Guesses by kind and name, for messages only; never changes an object.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.patterns import MANIFEST_SUFFIXES
from devloop.errors import DevloopError, Location
from devloop.manifests.files import objects_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.model import ManifestObject


_MOST_BYTES = 1 << 20
_NAME = re.compile(r"^[-\s]*name:\s*(\S+)\s*$", re.MULTILINE)


def with_origins(
    rendered: Iterable[ManifestObject],
    files: Iterable[str],
    generators: Iterable[str],
    show: Callable[[Path], str],
) -> tuple[ManifestObject, ...]:
    """The objects with the places of what they are made from: an object of the same kind in one of
    `files` whose name is part of theirs, else a line of `generators` (kustomizations) that has
    their name without its hash."""
    sources = [source for file in files for source in _objects(file, show(Path(file)))]
    lines = [(show(Path(file)), _text(file)) for file in generators]
    return tuple(_placed(each, sources, lines) for each in rendered)


def _placed(
    made: ManifestObject, sources: list[ManifestObject], generators: list[tuple[str, str]]
) -> ManifestObject:
    _, kind, _, name = made.key
    like = [s for s in sources if s.key[1] == kind and s.key[3] in name]
    if like:
        best = max(like, key=lambda source: len(source.key[3]))
        return replace(made, file=best.file, places=best.places)
    for shown, text in generators:
        found = [m for m in _NAME.finditer(text) if m[1] in name]
        if found:
            line = text.count("\n", 0, max(found, key=lambda m: len(m[1])).start(1)) + 1
            return replace(made, file=shown, places={(): (line, 1)})
    if generators:
        return replace(made, file=generators[0][0], places={})
    return made


def _objects(file: str, shown: str) -> tuple[ManifestObject, ...]:
    return _read(_text(file), shown) if file.endswith(MANIFEST_SUFFIXES) else ()


@functools.lru_cache(maxsize=512)
def _read(text: str, shown: str) -> tuple[ManifestObject, ...]:
    try:
        return objects_of(text, shown)
    except DevloopError:
        return ()


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(_MOST_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def place_of(
    kind: str, name: str, files: Iterable[str], show: Callable[[Path], str]
) -> Location | None:
    """Where the object is written in one of `files`."""
    objects = (source for file in files for source in _objects(file, show(Path(file))))
    return next((o.at("metadata", "name") for o in objects if o.key[1::2] == (kind, name)), None)


def line_of(file: str, words: str, shown: str) -> Location | None:
    """Where `words` stand first in a file."""
    text = _text(file)
    at = text.find(words) if words else -1
    if at < 0:
        return None
    return Location(shown, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
