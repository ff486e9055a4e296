"""Where in a container a path of the build context goes, by the `sync:` rules. Pure.

A pattern is made of parts between slashes; `*`, `?` and `[...]` match within one part, `**` any
number of parts, hidden names are like others. A pattern without any of these stands for a file, or
for a directory and all in it. What stands before the first part with a wildcard is the fixed
prefix; the rest of a path is appended to the rule's `dest`, as Skaffold's `infer` with `strip` and
`docker compose watch` do. Knows no file system.
"""

from __future__ import annotations

import posixpath
from dataclasses import field
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import is_magic, match_parts

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class SyncTarget:
    """One path in a container. `root` is absolute and clean; `path` is relative to it, "" for the
    root itself. Symlinks may lead to `root`; below it none may be followed."""

    root: str
    path: str

    @property
    def absolute(self) -> str:
        return posixpath.join(self.root, self.path) if self.path else self.root


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRule:
    """`src` is relative to the context, `dest` absolute. `restart`: what it covers needs a new
    process. Raises ValueError for a `src` or `dest` that leads out of its place."""

    src: str
    dest: str
    restart: bool = False
    _prefix: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _rest: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _root: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = tuple(p for p in self.src.split("/") if p not in ("", "."))
        if ".." in parts or "\0" in self.src or self.src.startswith("/"):
            raise ValueError(f"{self.src!r} leads out of the context")
        dest = self.dest.split("/")
        if ".." in dest or "\0" in self.dest or not self.dest.startswith("/"):
            raise ValueError(f"{self.dest!r} is not a clean absolute path")
        fixed = next((i for i, part in enumerate(parts) if is_magic(part)), len(parts))
        object.__setattr__(self, "_prefix", parts[:fixed])
        object.__setattr__(self, "_rest", parts[fixed:])
        object.__setattr__(self, "_root", "/" + "/".join(p for p in dest if p not in ("", ".")))

    def target(self, path: str, *, directory: bool) -> SyncTarget | None:
        """Where `path` goes, None when the rule does not cover it.

        A directory is also covered when it is on the way to what the pattern names, so that it is
        made with the mode that it has here. `src: app.py` with `dest: /app` is /app/app.py, and so
        it is with `dest: /app/app.py`, as COPY and `docker compose watch` have it."""
        parts = tuple(path.split("/")) if path else ()
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in path:
            return None
        size = len(self._prefix)
        if parts[:size] != self._prefix:
            return None
        below = parts[size:]
        if not below and not directory:
            return self._file_of_its_own()
        # Without wildcards all below is covered; on the way to a match, directories are as well.
        ends = range(len(self._rest) + 1) if directory else (len(self._rest),)
        if self._rest and not any(match_parts(below, self._rest[:n], hidden=True) for n in ends):
            return None
        return SyncTarget(self._root, "/".join(below))

    def _file_of_its_own(self) -> SyncTarget | None:
        if self._rest or not self._prefix:
            return None
        name = self._prefix[-1]
        if posixpath.basename(self._root) == name:
            return SyncTarget(posixpath.dirname(self._root), name)
        return SyncTarget(self._root, name)

    def sources(self, target: str) -> Iterable[tuple[str, bool]]:
        """The paths, each as a file (False) or as a directory (True), that this rule brings to the
        absolute path `target`."""
        root, candidates = self._root.rstrip("/") + "/", []
        if target == self._root:
            candidates.append("/".join(self._prefix))
        elif target.startswith(root):
            candidates.append("/".join((*self._prefix, target.removeprefix(root))))
        if not self._rest and self._prefix:
            candidates.append("/".join(self._prefix))
        for path in dict.fromkeys(candidates):
            for directory in (False, True):
                found = self.target(path, directory=directory)
                if found is not None and found.absolute == target:
                    yield path, directory
