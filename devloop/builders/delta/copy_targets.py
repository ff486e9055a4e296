"""Where an image has the files of its context: for those who write into running containers.

By the Dockerfile alone, without a look at an image. Only COPYs on which nothing runs count: what a
RUN has read is in the image in another form as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.builders.delta.analysis import rules
from devloop.builders.dockerfile import load
from devloop.builders.image.copies import merge, place
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.job import shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.builders.delta.analysis import Rules
    from devloop.builders.image.copies import Copy, FileEntry
    from devloop.config.schema import Build
    from devloop.model import Scan


_OWNER = re.compile(r"(\d{1,9}|root)(?::(\d{1,9}|root))?")


class Targets:
    """Of one service's image. The Dockerfile is read again when a scan's recipe differs."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._rules: tuple[str, Rules] | None = None
        self._last: tuple[Scan, Mapping[str, tuple[FileEntry, ...]]] | None = None

    def of(self, scan: Scan) -> Mapping[str, tuple[FileEntry, ...]]:
        """Context path -> what it becomes in the image. Left out is what is not known or is read by
        something that runs. Raises `NeedsFullBuild` when nothing can be known, and config/*."""
        if self._last is None or self._last[0] is not scan:
            self._last = (scan, self._work_out(scan))
        return self._last[1]

    def _work_out(self, scan: Scan) -> Mapping[str, tuple[FileEntry, ...]]:
        found = self._read(scan.recipe)
        snapshot = scan.snapshot
        links = [path for path, entry in snapshot.entries.items() if entry.type == "symlink"]
        trees = [place(copy, snapshot, _owner(copy)) for copy in found.copies]
        targets: dict[str, tuple[FileEntry, ...]] = {}
        for _, placed in merge(trees).values():
            if placed.source and not placed.unsure:
                targets[placed.source] = (*targets.get(placed.source, ()), placed)
        for path in tuple(targets):
            try:
                found.check([path], links)
            except NeedsFullBuild:
                del targets[path]
        return targets

    def _read(self, recipe: str) -> Rules:
        if self._rules is None or self._rules[0] != recipe:
            shown = shown_path(self._build.dockerfile)
            dockerfile = load(self._build.dockerfile, shown)
            made = rules(dockerfile, self._build.target, self._build.args, None, shown)
            self._rules = (recipe, made)
        return self._rules[1]


def _owner(copy: Copy) -> tuple[int, int]:
    if copy.chown is None:
        return 0, 0
    numbers = _OWNER.fullmatch(copy.chown)
    if numbers is None:
        why = "which number that is, only the image knows"
        raise NeedsFullBuild(f"COPY --chown={copy.chown}: {why}")
    uid, gid = (0 if word == "root" else int(word) for word in numbers.groups(numbers[1]))
    return uid, gid
