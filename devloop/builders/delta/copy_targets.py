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
UNKNOWN = -1
"""For uid and gid of what belongs to a user whose number only the image knows."""


class Targets:
    """Of one service's image. The Dockerfile is read again when a scan's recipe differs."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._rules: tuple[str, Rules] | None = None
        self._last: tuple[Scan, Mapping[str, tuple[FileEntry, ...]]] | None = None

    def of(self, scan: Scan) -> Mapping[str, tuple[FileEntry, ...]]:
        """Context path -> what it becomes in the image; uid and gid may be `UNKNOWN`. Left out is
        what is not known or is read by something that runs. Raises `NeedsFullBuild` when nothing
        can be known, and config/*. Where only contents differ from the scan before, it is the same
        mapping, whose sizes and digests are then those of before."""
        last = self._last
        if last is None or not _same_tree(last[0], scan):
            self._last = last = (scan, self._work_out(scan))
        return last[1]

    def _work_out(self, scan: Scan) -> Mapping[str, tuple[FileEntry, ...]]:
        found = self._read(scan.recipe)
        snapshot = scan.snapshot
        links = [path for path, entry in snapshot.entries.items() if entry.type == "symlink"]
        trees = [place(copy, snapshot, _owner(copy)) for copy in found.copies]
        targets: dict[str, tuple[FileEntry, ...]] = {}
        for _, placed in merge(trees).values():
            if placed.origin and not placed.unsure:
                targets[placed.origin] = (*targets.get(placed.origin, ()), placed)
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


def _same_tree(one: Scan, other: Scan) -> bool:
    """Whether what is where does not differ. Scans pass on the entries that did not change."""
    if one is other:
        return True
    before, after = one.snapshot.entries, other.snapshot.entries
    if one.recipe != other.recipe or len(before) != len(after):
        return False
    changed = [(before.get(path), entry) for path, entry in after.items()]
    return all(
        was is entry
        or (
            was is not None
            and (was.type, was.mode, was.link) == (entry.type, entry.mode, entry.link)
        )
        for was, entry in changed
    )


def _owner(copy: Copy) -> tuple[int, int]:
    if copy.chown is None:
        return 0, 0
    numbers = _OWNER.fullmatch(copy.chown)
    if numbers is None:
        return UNKNOWN, UNKNOWN
    uid, gid = (0 if word == "root" else int(word) for word in numbers.groups(numbers[1]))
    return uid, gid
