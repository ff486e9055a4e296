"""What has to happen in a container that has one state of the context to give it another.

Pure. A plan is worked out for the paths that differ and no others, so that a save in a directory of
20,000 files stays cheap; it has a blocker when the rules do not cover a difference.
"""

from __future__ import annotations

import itertools
import operator
import posixpath
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.base.editor_files import is_temporary
from devloop.base.lazy_dataclass import dataclass
from devloop.sync.rules import SyncTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from devloop.base.file_content import Contents
    from devloop.model import ContextEntry, Snapshot
    from devloop.sync.rules import PathRule


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlace:
    """Where the image's build puts a path: an absolute `path`, with `mode`. `owner` is `uid:gid`,
    or "" where only the image knows it."""

    path: str
    mode: int
    owner: str = "0:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncedFile:
    """What a container should have at `target`. `source` is the path in the context. `owner` is
    `uid:gid`, "" for: as what is there has it, and what is new as its directory has it."""

    target: SyncTarget
    entry: ContextEntry
    source: str
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One step: bring `placed` to its target, or, without it, remove what is at `target`."""

    target: SyncTarget
    placed: SyncedFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """The steps in order; `blocker`: why they would not be all there is to do. `restart`: the
    process is to start anew after them, where it can; `needs_restart`: why it must, "" if not."""

    changes: tuple[FileChange, ...] = ()
    blocker: str | None = None
    restart: bool = False
    needs_restart: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """What a container has: a context, and where it goes. `mark` names it for whoever comes later,
    in hexadecimal; "" where that would take more than what the image is made from. `kept` is the
    content of files that keep changing (see `Scan`)."""

    snapshot: Snapshot
    placing: Placing
    mark: str = ""
    kept: Contents = field(default_factory=dict)


class ByRules:
    """Where `sync:` rules put things. Where two rules name one target, the later one counts."""

    def __init__(self, rules: Iterable[PathRule]) -> None:
        self._rules = tuple(rules)

    def targets(self, path: str, entry: ContextEntry) -> Sequence[str]:
        """The absolute paths in a container where `path` goes."""
        found = (rule.target(path, directory=entry.type == "dir") for rule in self._rules)
        return [target.absolute for target in found if target]

    def placed(self, target: str, snapshot: Snapshot) -> SyncedFile | None:
        """What should be at the absolute path `target`, None for nothing."""
        for rule in reversed(self._rules):
            for path, directory in rule.sources(target):
                entry = snapshot.entries.get(path)
                if entry is None or (entry.type == "dir") != directory:
                    continue
                if found := rule.target(path, directory=directory):
                    return SyncedFile(target=found, entry=entry, source=path)
        return None

    def blocker(self, path: str, entry: ContextEntry) -> str | None:
        """Why a change of `path` must not be synced; None when it may be."""
        directory = entry.type == "dir"
        covering = [rule for rule in self._rules if rule.target(path, directory=directory)]
        if not covering:
            return f"{path} matches no sync rule"
        return None

    def restart(self, path: str, entry: ContextEntry) -> str | None:
        """None when the process goes on after a change of `path`; else why it must not."""
        directory = entry.type == "dir"
        if directory or not any(r.restart and r.target(path, directory=False) for r in self._rules):
            return None
        return f"{path} has `restart: true`: the process starts again, with the new image"


class ByPlaces:
    """Where the Dockerfile's COPY instructions put things; methods as `ByRules`. The process starts
    anew after a change, or, with `may_stay`, goes on where nobody can restart it.

    A path of which no place is named does not matter to the build. `below` gives the type of what
    the image has at an absolute path below these COPYs, "" for nothing, None where that is not
    known."""

    def __init__(
        self,
        places: Mapping[str, tuple[SyncPlace, ...]],
        *,
        may_stay: bool = False,
        below: Callable[[str], str | None] = lambda _: "",
    ) -> None:
        self.places = places
        self.below = below
        self._may_stay = may_stay
        self._sources = {
            place.path: (source, place) for source, found in places.items() for place in found
        }

    def targets(self, path: str, _entry: ContextEntry) -> Sequence[str]:
        return [place.path for place in self.places.get(path, ())]

    def placed(self, target: str, snapshot: Snapshot) -> SyncedFile | None:
        source, place = self._sources.get(target, ("", None))
        entry = snapshot.entries.get(source)
        if place is None or entry is None:
            return None
        return SyncedFile(
            target=_below_copy(source, place.path, directory=entry.type == "dir"),
            entry=replace(entry, mode=place.mode) if entry.type != "symlink" else entry,
            source=source,
            owner=place.owner,
        )

    def all_placed(self, snapshot: Snapshot) -> Iterable[str]:
        """The absolute paths where something goes."""
        return (path for path, (source, _) in self._sources.items() if source in snapshot.entries)

    def blocker(self, path: str, _entry: ContextEntry) -> str | None:
        if path not in self.places:
            return f"{path} is not known to be copied into the image as it is"
        return None

    def restart(self, path: str, _entry: ContextEntry) -> str | None:
        if not self.places.get(path, True):
            return None
        return "" if self._may_stay else "nobody in the container can start its process anew"


Placing = ByRules | ByPlaces


def _below_copy(source: str, path: str, *, directory: bool) -> SyncTarget:
    """The root of a COPY's destination is what is left of `path` when the end that it shares with
    `source` is taken off; a file that gets another name is in it, a directory that does is it."""
    have, want = path.strip("/").split("/"), source.split("/")
    alike = itertools.takewhile(bool, map(operator.eq, reversed(have), reversed(want)))
    shared = sum(1 for _ in alike)
    cut = len(have) - (shared or int(not directory))
    return SyncTarget("/" + "/".join(have[:cut]), "/".join(have[cut:]))


def difference(
    old: ContainerState,
    new: ContainerState,
    doubtful: Mapping[str, SyncTarget] = MappingProxyType({}),
) -> SyncPlan:
    """The steps from `old` to `new`: what is to be there first, parents before children, then what
    is to go. Of the `doubtful` targets, by absolute path, it is not known what is there."""
    targets, reasons = set(doubtful), set()
    for state, path in itertools.product((old, new), tuple(_changed(old, new))):
        entry = state.snapshot.entries.get(path)
        if entry is None:
            continue
        if (reason := state.placing.blocker(path, entry)) is not None:
            return SyncPlan(blocker=reason)
        reasons.add(state.placing.restart(path, entry))
        targets.update(state.placing.targets(path, entry))
    reasons.discard(None)
    put: dict[str, SyncedFile] = {}
    gone: dict[str, FileChange] = {}
    for target in sorted(targets):
        before = old.placing.placed(target, old.snapshot)
        after = new.placing.placed(target, new.snapshot)
        if _alike(before, after) and target not in doubtful:
            continue
        reason = _covers(old.placing, new.placing, target, before, after)
        reason = reason or _out_of_reach(new.placing, target, before, after)
        if reason is not None:
            return SyncPlan(blocker=reason)
        if after is not None:
            put[target] = after
        else:
            gone[target] = FileChange(target=before.target if before else doubtful[target])
    last = [change for target, change in gone.items() if not _implied(target, put, gone)]
    reason = _filled(gone, old, new) or _emptied(last, new)
    if reason is not None:
        return SyncPlan(blocker=reason)
    first = [FileChange(target=placed.target, placed=placed) for placed in put.values()]
    return SyncPlan(
        changes=(*first, *last),
        restart=bool(reasons),
        needs_restart=max(filter(None, reasons), default=""),
    )


def _covers(
    old: Placing,
    new: Placing,
    target: str,
    before: SyncedFile | None,
    after: SyncedFile | None,
) -> str | None:
    """Why `target` is the builder's for what the image may have there below its COPYs: that comes
    to light again when the copied path goes, and a builder copies no directory over something else
    and nothing else over a directory."""
    placing = new if isinstance(new, ByPlaces) else old
    if not isinstance(placing, ByPlaces):
        return None
    if after is None:
        there = placing.below(target)
        if there == "":
            return None
        known = f"the image has a {there} below it" if there else "what is below it is not known"
        return f"{target} is to go and {known}"
    directory = after.entry.type == "dir"
    if before is not None and (before.entry.type == "dir") == directory:
        return None
    there = placing.below(target)
    if there and (there == "dir") != directory:
        return f"{target} is a {there} in the base image"
    return None


def _out_of_reach(
    new: Placing, target: str, before: SyncedFile | None, after: SyncedFile | None
) -> str | None:
    """Why no file in a container can be written or removed to bring `target` about."""
    if after is None:
        if before is not None and not before.target.path:
            return f"the directory {before.source} is gone as a whole"
        return None
    if before is None and not after.owner and isinstance(new, ByPlaces):
        return f"{after.source} is new: its owner only the image knows"
    if not after.target.path and after.entry.type != "dir":
        return f"{after.source} would replace the directory {target}"
    return None


def _filled(gone: Iterable[str], old: ContainerState, new: ContainerState) -> str | None:
    """Why a directory that is to go has to stay: a COPY makes its destination itself where nothing
    brings it."""
    if not isinstance(new.placing, ByPlaces):
        return None
    found = ((target, old.placing.placed(target, old.snapshot)) for target in gone)
    directories = {t for t, before in found if before is None or before.entry.type == "dir"}
    if not directories:
        return None
    for path in new.placing.all_placed(new.snapshot):
        above = path
        while (above := posixpath.dirname(above)) not in ("", "/"):
            if above in directories:
                return f"{above} is to go and another COPY puts something into it"
    return None


def _emptied(last: Iterable[FileChange], new: ContainerState) -> str | None:
    """Why what is to go may not be all: a COPY whose pattern matches nothing makes no
    destination."""
    if not isinstance(new.placing, ByPlaces):
        return None
    for root in {change.target.root for change in last}:
        within = f"{root.rstrip('/')}/"
        if not any(path.startswith(within) for path in new.placing.all_placed(new.snapshot)):
            return f"nothing is copied into {root} any more"
    return None


def _changed(old: ContainerState, new: ContainerState) -> Iterable[str]:
    before, after = old.snapshot.entries, new.snapshot.entries
    if before is not after:
        # Scans pass on the entries that did not change, so that most are the very same object.
        for path, entry in after.items():
            known = before.get(path)
            if known is not entry and known != entry and not _passing(path):
                yield path
        yield from (path for path in before if path not in after and not _passing(path))
    if old.placing is new.placing:
        return
    if isinstance(old.placing, ByPlaces) and isinstance(new.placing, ByPlaces):
        # What now goes somewhere else, as when a COPY's pattern matches more than one file.
        was, now = old.placing.places, new.placing.places
        yield from (
            path
            for path in after
            if path in was and (path not in now or not _same_places(was[path], now[path]))
        )


def _same_places(was: tuple[SyncPlace, ...], now: tuple[SyncPlace, ...]) -> bool:
    """An owner that is known by now and was not then is no other one."""
    if was is now or was == now:
        return True
    return len(was) == len(now) and all(
        replace(one, owner=other.owner) == other if "" in (one.owner, other.owner) else one == other
        for one, other in zip(was, now, strict=True)
    )


def _alike(before: SyncedFile | None, after: SyncedFile | None) -> bool:
    if before is None or after is None or "" not in (before.owner, after.owner):
        return before == after
    return replace(before, owner=after.owner) == after


def _passing(path: str) -> bool:
    """Whether it is an editor's temporary file: the next image has it, no container needs it."""
    return is_temporary(posixpath.basename(path))


def _implied(target: str, put: Mapping[str, SyncedFile], gone: Mapping[str, FileChange]) -> bool:
    """Whether `target` goes with a directory above it, which is removed or replaced."""
    above = target
    while (above := posixpath.dirname(above)) not in ("", "/"):
        if above in gone or (above in put and put[above].entry.type != "dir"):
            return True
    return False
