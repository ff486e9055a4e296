"""Where an image has the files of its context: for those who write into running containers.

By the Dockerfile, and by what an image of it has shown of what that does not say; no image is
looked at here. Only COPYs on which nothing runs count: what a RUN has read is in the image in
another form as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.context_reads import first_read
from devloop.builders.delta.analysis import rules
from devloop.builders.dockerfile import load
from devloop.builders.image.copies import merge, place
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import Scope, stages_of, words_of
from devloop.builders.job import shown_path
from devloop.builders.named_contexts import check_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.builders.delta.analysis import Rules
    from devloop.builders.dockerfile import Dockerfile
    from devloop.builders.image.copies import Copy, FileEntry, StageState
    from devloop.config.builds import Build
    from devloop.model import Scan


_OWNER = re.compile(r"(\d{1,9}|root)(?::(\d{1,9}|root))?")
UNKNOWN = -1
"""For uid and gid of what belongs to a user whose number only the image knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCopies:
    """What an image has shown of its COPYs on which nothing runs, each of which was found in it:
    `base` is what the image says that the final stage starts from; `owners` are what each --chown
    stands for, by the line where its instruction begins; `above` are the paths that its other
    layers from the lowest of these COPYs on have, and the directories on the way to them; `reads`
    is all that the build reads of the context, as patterns, None where the base image's ONBUILD may
    have read something else."""

    base: StageState
    owners: Mapping[int, tuple[int, int]]
    above: frozenset[str]
    reads: tuple[str, ...] | None = None


class Targets:
    """Of one service's image. The Dockerfile is read again when a scan's recipe differs. `shown`
    gives what an image of a recipe has shown, None while there is none, and may wait a second; it
    raises `HasTriggers`."""

    def __init__(
        self, build: Build, shown: Callable[[str], ShownCopies | None] = lambda _: None
    ) -> None:
        self._build = build
        self._shown = shown
        self._rules: tuple[str, ShownCopies | None, Rules, tuple[_Other, ...]] | None = None
        self._last: tuple[Scan, ShownCopies | None, Mapping[str, tuple[FileEntry, ...]]] | None = (
            None
        )

    def of(self, scan: Scan) -> Mapping[str, tuple[FileEntry, ...]]:
        """Context path -> what it becomes in the image, nothing where the build does not read it;
        uid and gid may be `UNKNOWN`. Left out is what is not known or is read by something that
        runs. Raises `NeedsFullBuild` when nothing can be known, and config/*. Where only contents
        differ from the scan before, it is the same mapping, whose sizes and digests are then those
        of before."""
        shown = self._shown(scan.recipe)
        last = self._last
        if last is None or last[1] is not shown or not _same_tree(last[0], scan):
            self._last = last = (scan, shown, self._work_out(scan, shown))
        return last[2]

    def _work_out(
        self, scan: Scan, shown: ShownCopies | None
    ) -> Mapping[str, tuple[FileEntry, ...]]:
        found, others = self._read(scan.recipe, shown)
        snapshot = scan.snapshot
        links = [path for path, entry in snapshot.entries.items() if entry.type == "symlink"]
        trees = [place(copy, snapshot, _owner(copy, shown)) for copy in found.copies]
        targets: dict[str, tuple[FileEntry, ...]] = {}
        hidden: set[str] = set()
        for number, placed in merge(trees).values():
            if not placed.origin or placed.unsure:
                continue
            if _may_be_hidden(placed.path, found.copies[number], others, shown):
                hidden.add(placed.origin)
            targets[placed.origin] = (*targets.get(placed.origin, ()), placed)
        for path in hidden:
            del targets[path]
        if shown is not None and (reads := shown.reads) is not None:
            others_of_it = snapshot.entries.keys() - targets.keys() - hidden
            targets |= {p: () for p in others_of_it if first_read(reads, [p], links) is None}
        for path in tuple(targets):
            try:
                found.check([path], links)
            except NeedsFullBuild:
                del targets[path]
        return targets

    def _read(self, recipe: str, shown: ShownCopies | None) -> tuple[Rules, tuple[_Other, ...]]:
        last = self._rules
        if last is None or last[0] != recipe or last[1] is not shown:
            build, name = self._build, shown_path(self._build.dockerfile)
            dockerfile = load(build.dockerfile, name)
            check_stages(dockerfile, build, name)
            base = shown.base if shown else None
            made = rules(dockerfile, build.target, build.args, base, name)
            others = tuple(_others(dockerfile, build.target, build.args, base))
            self._rules = last = (recipe, shown, made, others)
        return last[2], last[3]


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


@dataclass(frozen=True, slots=True)
class _Other:
    """A COPY from another stage or image: the line where it begins, and where it goes, which may be
    a directory; None where that is not known."""

    start: int
    dest: str | None


def _others(
    dockerfile: Dockerfile, target: str | None, args: Mapping[str, str], base: StageState | None
) -> Iterator[_Other]:
    scope = Scope(dockerfile, args)
    stages = stages_of(dockerfile, target, args)
    if base is not None:
        scope.start(base.env, base.workdir)
    elif stages[0].base == "scratch":
        scope.start({}, "/")
    for stage in stages:
        scope.enter_stage()
        for instruction in stage.instructions[1:]:
            if instruction.keyword not in ("ADD", "COPY"):
                scope.replay(instruction)
            elif instruction.flag("from"):
                try:
                    dest = scope.path(scope.expand(words_of(instruction)[-1]))
                except (NeedsFullBuild, IndexError):
                    dest = None
                yield _Other(instruction.start, dest)


def _may_be_hidden(
    path: str, copy: Copy, others: tuple[_Other, ...], shown: ShownCopies | None
) -> bool:
    """Whether a later COPY from elsewhere may have put something else at `path`."""
    if shown is not None and path not in shown.above:
        return False
    return any(
        other.dest is None or f"/{path}/".startswith(f"{other.dest.rstrip('/')}/")
        for other in others
        if other.start > copy.instruction.start
    )


def _owner(copy: Copy, shown: ShownCopies | None) -> tuple[int, int]:
    if copy.chown is None:
        return 0, 0
    if shown is not None and copy.instruction.start in shown.owners:
        return shown.owners[copy.instruction.start]
    numbers = _OWNER.fullmatch(copy.chown)
    if numbers is None:
        return UNKNOWN, UNKNOWN
    uid, gid = (0 if word == "root" else int(word) for word in numbers.groups(numbers[1]))
    return uid, gid
