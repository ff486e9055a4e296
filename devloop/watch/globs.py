"""Manifest patterns: which files they name, which folders to watch for them, which paths matter.

The three answers come from one reading of the pattern, so that a file which the deploy would apply
is never one that nobody watches. Patterns are absolute; `**` is any number of folders, hidden names
match only a pattern that begins with a dot, as Python's glob has it.
"""

from __future__ import annotations

import glob
import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from devloop.base.editor_files import LEFT_OUT_FOLDERS, is_temporary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Globs", "existing_folder"]

_SUFFIXES = (".yaml", ".yml", ".json")


class Globs:
    """Absolute glob patterns in the order of the config file. A pattern that names a folder stands
    for the YAML and JSON files directly in it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(os.path.normpath(p) for p in patterns)
        self._parts = tuple(p.split("/")[1:] for p in self.patterns)
        self.tops = tuple(_fixed(p) for p in self.patterns)
        """For each pattern the path beneath which (itself included) all lies that it can name."""

    def files(self) -> list[str]:
        """What is there now: in the order of the patterns, then of names, each file once."""
        found: dict[str, None] = {}
        for pattern in self.patterns:
            for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - keeps bytes
                if os.path.isdir(path):  # noqa: PTH112
                    if "**" not in pattern:
                        found.update(dict.fromkeys(_manifests_in(path)))
                elif not is_temporary(os.path.basename(path)):  # noqa: PTH119
                    found[path] = None
        return list(found)

    def concerns(self, path: str) -> bool:
        """Whether a change of `path`, of unknown type, may change what `files` gives or holds."""
        name = os.path.basename(path)  # noqa: PTH119
        if not self._parts or is_temporary(name):
            return False
        parts = path.split("/")[1:]
        return any(_may_match(parts, pattern, path) for pattern in self._parts)

    def folders(self) -> set[str]:
        """The folders whose direct changes have to be seen. They exist, or did a moment ago."""
        found: set[str] = set()
        for parts in self._parts:
            _expand("/", parts, found)
        return found


def existing_folder(path: str) -> str:
    """`path` if it is a folder, else the nearest one above that is."""
    while not os.path.isdir(path):  # noqa: PTH112
        parent = os.path.dirname(path)  # noqa: PTH120
        if parent == path:
            break
        path = parent
    return path


def _fixed(pattern: str) -> str:
    parts = pattern.split("/")
    fixed = 0
    while fixed < len(parts) and not glob.has_magic(parts[fixed]):
        fixed += 1
    return "/".join(parts[:fixed]) or "/"


def _manifests_in(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []
    return [
        f"{folder}/{name}" for name in names if name.endswith(_SUFFIXES) and name[0] not in ".#"
    ]


def _may_match(path: Sequence[str], pattern: Sequence[str], full: str) -> bool:
    """Whether `path` is, holds, or is held by something that the pattern can name."""
    for index, part in enumerate(path):
        if index == len(pattern):
            # Directly in a folder that the pattern names.
            return index == len(path) - 1
        if pattern[index] == "**":
            # A folder, or something that is gone and may have been one, may hold a match.
            return fnmatchcase(path[-1], pattern[-1]) or not os.path.isfile(full)  # noqa: PTH113
        if not fnmatchcase(part, pattern[index]):
            return False
    return True


def _expand(base: str, parts: Sequence[str], found: set[str]) -> None:
    fixed = 0
    while fixed < len(parts) and not glob.has_magic(parts[fixed]):
        fixed += 1
    if fixed == len(parts):
        # The whole rest is a name: of a file, or of a folder of manifests.
        found.add(existing_folder(os.path.join(base, *parts[:-1])))  # noqa: PTH118
        whole = os.path.join(base, *parts)  # noqa: PTH118
        if os.path.isdir(whole):  # noqa: PTH112
            found.add(whole)
        return
    here = os.path.join(base, *parts[:fixed])  # noqa: PTH118
    found.add(existing_folder(here))
    magic, rest = parts[fixed], parts[fixed + 1 :]
    for name in _folders_in(here):
        if magic == "**":
            _expand(f"{here}/{name}", parts[fixed:], found)
        elif fnmatchcase(name, magic) and (name[0] != "." or magic[0] == "."):
            if rest:
                _expand(f"{here}/{name}", rest, found)
            else:
                found.add(f"{here}/{name}")


def _folders_in(path: str) -> list[str]:
    try:
        with os.scandir(path) as listing:
            return [
                entry.name
                for entry in listing
                if entry.name not in LEFT_OUT_FOLDERS and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
