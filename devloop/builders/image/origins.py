"""Which path of the context a file in an image comes from, for those who point at its source.

By the Dockerfile and the names of files, without a look at an image; a guess where only one file
can be meant. Unlike `delta.copy_targets` this counts what a RUN has read since, and what is in
other stages: a compiler writes down the paths of the stage that it ran in.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from devloop.builders.image.copies import merge, place, stage_copies
from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.builders.dockerfile import Dockerfile
    from devloop.model import Snapshot


_INSTALLED = re.compile(r"/(?:node_modules|site-packages|dist-packages)/")
# Where a file is seldom the project's, whatever its name.
_SYSTEM = re.compile(
    r"/(?:usr/(?!src/)|lib|opt/java|rustc/|nix/)|.*/(?:pkg/mod|gems|vendor|python[\d.]+|\.cargo)/"
)


class Origins:
    """Of the image that `dockerfile` makes of `snapshot`; None for one that nobody knows."""

    def __init__(
        self,
        dockerfile: Dockerfile | None,
        target: str | None,
        args: Mapping[str, str],
        snapshot: Snapshot,
    ) -> None:
        self._files = {path for path, e in snapshot.entries.items() if e.type == "file"}
        self._placed: dict[str, str] = {}
        stages = dockerfile.stages if dockerfile else ()
        # A copy between stages moves files to where only names tell.
        self._complete = bool(stages) and not any(
            instruction.flag("from") for stage in stages for instruction in stage.instructions
        )
        for name in (target, *(str(stage.index) for stage in stages)):
            try:
                copies = stage_copies(dockerfile, name, args, None) if dockerfile else ()
                tree = merge(place(copy, snapshot, (0, 0)) for copy in copies)
            except NeedsFullBuild:
                self._complete = False
                continue
            for path, (_, entry) in tree.items():
                if entry.source:
                    self._placed.setdefault(f"/{path}", entry.source)

    def of(self, path: str) -> str | None:
        """`path` is absolute in the image, or the end of such a path. None where it is not known,
        and for what a package manager installed."""
        if _INSTALLED.search(path):
            return None
        path = posixpath.normpath(path)
        if not path.startswith("/"):
            ends = [f for f in self._files if f"/{f}".endswith(f"/{path}")]
            return path if path in ends else _only(ends)
        if path in self._placed or self._complete or _SYSTEM.match(path):
            return self._placed.get(path)
        parts = path.split("/")
        tails = ("/".join(parts[first:]) for first in range(1, len(parts)))
        return _only([tail for tail in tails if tail in self._files])


def _only(found: list[str]) -> str | None:
    return found[0] if len(found) == 1 else None
