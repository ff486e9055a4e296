"""What a COPY's source names in a build context: symlinks followed, patterns matched.

Pure, over a `Snapshot`. A path is relative to the context, "" is the context itself; nothing leads
out of it. The rules are those of fsutil's copy.ResolveWildcards and containerd's fs.RootPath.

Patterns in sources follow Go's path.Match, where `*` stops at a slash and a class may match one;
those of --exclude and --parents follow moby's patternmatcher, which knows `**` and exceptions with
`!`. One that either would refuse, or that is a matter of Go's regular expressions, is
`NeedsFullBuild`.
"""

from __future__ import annotations

import bisect
import posixpath
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from devloop.base.ignore_pattern import Pattern, PatternError
from devloop.base.ignore_rules import IgnoreRules
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.model import ContextEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devloop.model import Snapshot


_ROOT = ContextEntry("dir", 0o755)
# As many as fs.RootPath and the runtimes follow.
_LINKS = 255


def clean(path: str) -> str:
    """A path from the root without a leading slash, dots resolved, never above the root."""
    return posixpath.normpath(f"/{path}").lstrip("/")


class Sources:
    """Looks up paths of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._entries = snapshot.entries
        self._paths: list[str] | None = None

    def find(self, path: str) -> ContextEntry | None:
        return self._entries.get(path) if path else _ROOT

    def below(self, directory: str) -> Iterator[tuple[str, ContextEntry]]:
        """All that is in `directory`, relative to it, a directory before what it holds."""
        if not directory:
            yield from self._entries.items()
            return
        if self._paths is None:
            self._paths = list(self._entries)
        paths = self._paths
        # "0" comes right after the slash.
        first, end = (bisect.bisect_left(paths, f"{directory}{char}") for char in "/0")
        for path in paths[first:end]:
            yield path[len(directory) + 1 :], self._entries[path]

    def real(self, path: str) -> str:
        """`path` with every symlink in it followed, the last part too. What does not exist stays as
        it is. Raises `NeedsFullBuild` for a loop and for a link that BuildKit cannot follow."""
        if path in self._entries and self._entries[path].type != "symlink":
            # Scans do not go through symlinks, so no directory above it is one.
            return path

        def check(at: str, link: str, links: int, more: bool) -> None:
            if _lost(at, link, links, more=more):
                raise NeedsFullBuild(f"{path} leads through a link that builders lose their way in")

        return follow(path, self._entries.get, check)

    def matches(self, source: str) -> list[str]:
        """The paths that a source of a COPY stands for, in BuildKit's order; symlinks in the last
        part of one are not followed. A plain path is returned whether it exists or not."""
        path = clean(source)
        if not is_pattern(path):
            return [path]
        parts = path.split("/")
        first = next(index for index, part in enumerate(parts) if is_pattern(part))
        directory = self.real("/".join(parts[:first]))
        above = self.find(directory)
        if above is None or above.type != "dir":
            raise NeedsFullBuild(f"{directory} is no directory of the context")
        match = source_pattern("/".join(parts[first:]))
        inside = f"{directory}/" if directory else ""
        found = [inside + name for name, _ in self.below(directory) if match(name)]
        return sorted(found, key=lambda name: name.split("/"))


def follow(
    path: str,
    find: Callable[[str], Any],
    check: Callable[[str, str, int, bool], None] | None = None,
) -> str:
    """`path` with every symlink in it replaced, the last component too, never leaving the root.

    `find` gives what stands at a path (something with `type` and `link`) or None. `check` is called
    for each link with where it leads to, its text, how many were followed (it included) and whether
    there is more to come. Raises `NeedsFullBuild` after 255 links, as the runtimes do."""
    todo = [part for part in path.split("/") if part][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            done = done[:-1]
            continue
        node = find("/".join((*done, part)))
        if node is None or node.type != "symlink":
            done.append(part)
            continue
        links += 1
        if links > _LINKS:
            raise NeedsFullBuild(f"{path} leads through too many symlinks")
        if check is not None:
            check(posixpath.join("/", *done, node.link), node.link, links, bool(todo))
        if node.link.startswith("/"):
            done = []
        todo.extend([piece for piece in node.link.split("/") if piece][::-1])
    return "/".join(done)


def _lost(target: str, link: str, links: int, *, more: bool) -> bool:
    """Whether BuildKit may not find what is at `target`, or something else: it copies from where a
    link really stands, but its cache and its transfer join names, and do not pass through a link
    to the context itself. `links` were followed on the way to `link`, this one included."""
    if more and not clean(target):
        return True
    parts = [part for part in link.split("/") if part not in ("", ".")]
    if links > 1:
        return ".." in parts
    names = [index for index, part in enumerate(parts) if part != ".."]
    return bool(names) and ".." in parts[names[0] :]


def is_pattern(text: str) -> bool:
    """Whether BuildKit looks for matches of `text`, instead of a path of that name."""
    return any(char in text for char in "*?[")


@lru_cache(maxsize=256)
def source_pattern(pattern: str) -> Callable[[str], object]:
    """What decides whether a path, with as many parts as it likes, matches a source's pattern."""
    found, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            found.append("[^/]*")
        elif char == "?":
            found.append("[^/]")
        elif char == "[":
            text, at = _class(pattern, at)
            found.append(text)
        else:
            found.append(re.escape(char))
    return re.compile("".join(found), re.DOTALL).fullmatch


def _class(pattern: str, at: int) -> tuple[str, int]:
    """A class as a regular expression, and where it ends. `at` is behind its bracket."""
    found = ["["]
    if pattern[at : at + 1] == "^":
        found.append("^")
        at += 1
    ranges = 0
    while pattern[at : at + 1] != "]" or not ranges:
        low, high = pattern[at : at + 1], pattern[at + 2 : at + 3]
        if pattern[at + 1 : at + 2] == "-":
            at += 3
        else:
            high = low
            at += 1
        if not low or not high or low in "-]" or high in "-]" or low > high:
            raise NeedsFullBuild(f"the pattern {pattern} is not understood")
        found.append(f"{re.escape(low)}-{re.escape(high)}")
        ranges += 1
    return "".join((*found, "]")), at + 1


class Filter:
    """What a list of --exclude or --parents patterns selects below one directory.

    Ask for a directory before what is in it: a pattern that matched it matches all of that."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises `NeedsFullBuild`."""
        self._rules = IgnoreRules(filter(None, map(_compiled, patterns)))
        self._inherited: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._rules.patterns)

    def selects(self, path: str) -> bool:
        """`path` is relative to the directory, with a result for those above it asked before."""
        above = self._inherited.get(path.rpartition("/")[0], 0)
        selected, self._inherited[path] = self._rules.step(above, path)
        return selected


def _compiled(pattern: str) -> Pattern | None:
    if any(char in pattern for char in "[]\\^"):
        raise NeedsFullBuild(f"the pattern {pattern} is not understood")
    try:
        return Pattern.compile(pattern)
    except PatternError as error:
        raise NeedsFullBuild(f"the pattern {pattern} is not understood") from error
