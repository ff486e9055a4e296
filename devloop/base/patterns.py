"""Patterns of files: one reading of them for everybody who names, finds or watches files by one.

What is checked, deployed, fingerprinted and watched must be the same files, so the four ask here.
A pattern is made of parts between slashes: `*`, `?` and `[...]` match within one part, `**` any
number of parts. A part also matches the name that is spelt exactly like it, brackets and all.
Docker's ignore files have rules of their own, see ignore_rules.py.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from itertools import chain, takewhile
from pathlib import PurePath
from typing import TYPE_CHECKING

from devloop.base.editor_files import is_temporary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_MAGIC = re.compile(r"[*?[]")
# What glob.escape makes of a character that would be magic.
_ESCAPED = re.compile(r"\[([*?[])\]")
_MOST_LINKS = 40  # as Linux has it
MANIFEST_SUFFIXES = (".yaml", ".yml", ".json")
"""What the names of manifests end with: only such files stand for a directory."""
ANY_FILE = "*[!.]"
"""The last part of a pattern that means files of every suffix."""

Parts = tuple[str, ...]


def is_magic(part: str) -> bool:
    """Whether `part` of a pattern may match another name than its own."""
    return _MAGIC.search(part) is not None


def match_parts(
    path: Sequence[str], pattern: Sequence[str], *, hidden: bool, above: bool = False
) -> bool:
    """Whether all of `path` matches all of `pattern`; with `above` also whether it, were it a
    directory, could hold something that does. Without `hidden`, a name that begins with a dot
    matches only a part that does, as in a shell."""
    if not path and above:
        return True
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        if match_parts(path, rest, hidden=hidden, above=above):
            return True
        matches, rest = bool(path) and (hidden or path[0][:1] != "."), pattern
    else:
        matches = bool(path) and _match(path[0], head, hidden=hidden)
    return matches and match_parts(path[1:], rest, hidden=hidden, above=above)


def _match(name: str, part: str, *, hidden: bool = False) -> bool:
    if _match_exactly(name, part):
        return True
    return fnmatchcase(name, part) and (hidden or name[:1] != "." or part[:1] == ".")


def _literal(part: str) -> str | None:
    """The one name that `part` matches, if it is one."""
    return None if is_magic(_ESCAPED.sub("", part)) else _ESCAPED.sub(r"\1", part)


class FilePatterns:
    """Absolute patterns in the order of the config file.

    A pattern that matches a directory stands for the YAML and JSON files directly in it, and so
    does a wildcard without a suffix of its own (`*`, not `*.txt`). Hidden names match only a part
    that begins with a dot; editors' temporary files match nothing."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(os.path.normpath(p) for p in patterns)
        self._parts = tuple(_split(p) for p in self.patterns)
        fixed = (takewhile(bool, map(_literal, parts)) for parts in self._parts)
        self.tops = tuple("".join(f"/{name}" for name in names) or "/" for names in fixed)
        """For each pattern the path beneath which (itself included) all lies that it can match."""

    def files(self) -> list[str]:
        """What is there now: in the order of the patterns, then of names, each file once."""
        found: dict[str, None] = {}
        for parts in self._parts:
            files: set[str] = set()
            _walk("", parts, files, set())
            found.update(dict.fromkeys(sorted(files)))
        return list(found)

    def directories(self) -> set[str]:
        """The directories whose direct changes can change `files`. They exist, or did a moment
        ago."""
        found: set[str] = set()
        for parts in self._parts:
            _walk("", parts, set(), found)
        return found

    def matches(self, path: str) -> bool:
        """Whether `path`, if it is a file, is one of `files`."""
        parts = tuple(path.split("/")[1:])
        return not is_temporary(parts[-1]) and any(
            (match_parts(parts, pattern, hidden=False) and _suits(parts[-1], pattern[-1]))
            or (_is_manifest(parts[-1]) and match_parts(parts[:-1], pattern, hidden=False))
            for pattern in self._parts
        )

    def concerns(self, path: str) -> bool:
        """Whether a change of `path`, of unknown type, may change what `files` gives or holds."""
        if not self._parts:
            return False
        if self.matches(path):
            return True
        parts = path.split("/")[1:]
        leads = any(match_parts(parts, each, hidden=False, above=True) for each in self._parts)
        # A directory, or something that is gone and may have been one, may hold a match.
        return leads and not os.path.isfile(path)  # noqa: PTH113


def existing_directory(path: str) -> str:
    """`path` if it is a directory, else the nearest one above that is."""
    candidates = chain([path], map(str, PurePath(path).parents))
    return next(filter(os.path.isdir, candidates), "/")


def is_directory(path: str) -> bool:
    """Whether a directory is at `path`, and no symlink to one."""
    return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114


def link_targets(path: str) -> tuple[str, ...]:
    """Where a symlink leads, hop by hop, as absolute paths; empty for what is none."""
    found: list[str] = []
    while len(found) < _MOST_LINKS:
        try:
            target = os.readlink(path)  # noqa: PTH115 - any bytes
        except OSError:
            break
        above = os.path.realpath(os.path.dirname(path))  # noqa: PTH120
        path = os.path.normpath(os.path.join(above, target))  # noqa: PTH118
        found.append(path)
    return tuple(found)


def ignore_line(path: str) -> str:
    """The line of a .dockerignore file that leaves out `path` and, if it is a directory, all in it.

    `path` is relative to the context. Where the syntax has no way to write a character (a space at
    an end, a line break), the line has a `?` in its place."""
    line = re.sub(r"[*?\[\]\\^!#]", r"\\\g<0>", path)
    line = re.sub(r"^\s|\s$", "?", line)
    return "".join(c if c.isprintable() else "?" for c in line)


def _split(pattern: str) -> Parts:
    parts = tuple(pattern.split("/")[1:])
    # At the end it stands for whatever is in a directory, not for what is none.
    return (*parts, "*") if parts[-1] == "**" else parts


def _is_manifest(name: str) -> bool:
    return name.endswith(MANIFEST_SUFFIXES) and name[0] != "."


def _suits(name: str, part: str) -> bool:
    """Whether a file of this name is meant by `part`, which matches it: README.md lies beside the
    manifests of `k8s/*`."""
    if _match_exactly(name, part) or name.endswith(MANIFEST_SUFFIXES):
        return True
    _, dot, suffix = part.rpartition(".")
    return bool(dot) and not is_magic(suffix)


def _match_exactly(name: str, part: str) -> bool:
    return name in (part, _literal(part))


def _walk(here: str, parts: Parts, files: set[str], directories: set[str]) -> None:
    """Add what `parts` match beneath `here` ("" for the root), and where one has to look for it."""
    while parts and (name := _literal(parts[0])) is not None:
        here, parts = f"{here}/{name}", parts[1:]
    if not parts:
        _found(here or "/", files, directories)
        return
    directories.add(existing_directory(here or "/"))
    head, rest = parts[0], parts[1:]
    if head == "**":
        _walk(here, rest, files, directories)
    for name, is_directory in _entries(here or "/"):
        path = f"{here}/{name}"
        if head == "**":
            if name[0] != "." and is_directory:
                _walk(path, parts, files, directories)
        elif _match(name, head):
            if not rest:
                if is_directory or _suits(name, head):
                    _found(path, files, directories)
            elif is_directory:
                _walk(path, rest, files, directories)


def _found(path: str, files: set[str], directories: set[str]) -> None:
    """Add what stands at `path`, which a whole pattern matches."""
    parent, name = os.path.split(path)
    directories.add(existing_directory(parent))
    if os.path.isdir(path):  # noqa: PTH112
        directories.add(path)
        inside = (name for name, is_directory in _entries(path) if not is_directory)
        names = (name for name in inside if _is_manifest(name) and not is_temporary(name))
        files.update(f"{path.rstrip('/')}/{name}" for name in names)
    elif os.path.lexists(path) and not is_temporary(name):
        files.add(path)


def _entries(path: str) -> list[tuple[str, bool]]:
    """The names in a directory, each with whether it is one; empty where it cannot be listed.
    Symlinks are followed, but not to where they stand or above: that would have no end."""
    try:
        with os.scandir(path) as listing:
            return [
                (entry.name, entry.is_dir())
                for entry in listing
                if not (entry.is_symlink() and _holds(os.path.realpath(entry.path), path))
            ]
    except OSError:
        return []


def _holds(directory: str, path: str) -> bool:
    return f"{os.path.realpath(path)}/".startswith(f"{directory.rstrip('/')}/")
