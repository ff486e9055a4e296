"""Profiles: which of them are active, and the file's tree with what they change.

A profile holds keys of devloop.yaml, merged over the file key by key before anything is checked, so
that every value keeps its place and an error in a profile is named there. Reads no file and no
environment but those that it is given; knows no key but `activate`.
"""

from __future__ import annotations

from dataclasses import field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import Items, Keys, MappingEntry, Node, Scalar
from devloop.config.grammar import Block, Kind, List, Map
from devloop.config.problems import nearest
from devloop.config.reader import MISSING
from devloop.errors import Code, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devloop.config.problems import Problems
    from devloop.config.reader import Reader


ACTIVATE = "activate"


@dataclass(frozen=True, slots=True)
class ActiveProfile:
    """A profile that counts; `why` in words for the user: `--profile`, `context kind-dev`."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What profiles may depend on. `named` are those that somebody asked for, by `asked_by`
    (`--profile` or `DEVLOOP_PROFILE`); one with a `-` before its name is left out. `context` asks
    for the Kubernetes context, None where there is none; `command` is that of devloop, "" when
    unknown."""

    named: tuple[str, ...] = ()
    asked_by: str = "--profile"
    env: Mapping[str, str]
    context: Callable[[], str | None] = lambda: None
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The profiles of a file by name. `active` are in the order in which they are merged: those
    that are active by themselves in the order of the file, then those that were named."""

    trees: Mapping[str, MappingEntry] = field(default_factory=dict)
    active: tuple[ActiveProfile, ...] = ()

    @property
    def unused(self) -> tuple[str, ...]:
        used = {each.name for each in self.active}
        return tuple(name for name in self.trees if name not in used)

    def region(self, name: str) -> Callable[[Location], bool]:
        """Whether a place is within the profile."""
        entry = self.trees[name]
        places = [_order(place) for place in _places(entry)]
        first, last = min(places), max(places)
        return lambda place: place.path == entry.location.path and first <= _order(place) <= last


def divided(root: Keys, problems: Problems) -> tuple[Keys, dict[str, MappingEntry]]:
    """The file without its profiles, and these by name; what is none of a profile is reported."""
    found = root.get("profiles")
    if found is None:
        return root, {}
    rest = replace(root, entries=tuple(entry for entry in root if entry is not found))
    if not isinstance(found.value, Keys):
        problems.add(
            Code.CONFIG_TYPE,
            "`profiles` must be a mapping of names to what each changes",
            found.value.location,
            "profiles: {ci: {services: {web: {deploy: {timeout: 5m}}}}}",
        )
        return rest, {}
    trees: dict[str, MappingEntry] = {}
    for entry in found.value:
        if isinstance(entry.value, Keys):
            trees[entry.key] = entry
            continue
        problems.add(
            Code.CONFIG_TYPE,
            f"`profiles.{entry.key}` must be a mapping of what it changes",
            entry.location,
        )
    return rest, trees


def find_active(
    trees: Mapping[str, MappingEntry],
    around: Circumstances,
    kind: Kind,
    reader: Reader,
) -> Profiles:
    """Which profiles count; `kind` is that of `activate`, read by `reader`."""
    off = {name[1:] for name in around.named if name.startswith("-")}
    named = dict.fromkeys(name for name in around.named if not name.startswith("-"))
    for name in (*named, *sorted(off)):
        if name not in trees:
            meant = nearest(name, trees)
            reader.problems.add(
                Code.CONFIG_UNKNOWN_PROFILE,
                f"devloop.yaml has no profile {name!r}",
                Location(around.asked_by),
                f"did you mean {meant}?" if meant else "",
                cause=f"profiles: {', '.join(trees)}" if trees else "it has none at all",
            )
    active: list[ActiveProfile] = []
    for name, entry in trees.items():
        why = _active_by_itself(name, entry, around, kind, reader)
        if why and name not in named and name not in off:
            active.append(ActiveProfile(name, why))
    active += [ActiveProfile(name, around.asked_by) for name in named if name in trees]
    return Profiles(trees=trees, active=tuple(active))


def _active_by_itself(
    name: str, entry: MappingEntry, around: Circumstances, kind: Kind, reader: Reader
) -> str:
    """Why the profile is, "" when it is not. One of the conditions is enough, of which everything
    has to hold."""
    assert isinstance(entry.value, Keys)  # noqa: S101 - `divided` saw to it
    found = entry.value.get(ACTIVATE)
    if found is None:
        return ""
    where = ("profiles", name, ACTIVATE)
    reader.locations.keys[where] = found.location
    conditions = reader.read(found.value, kind, where)
    for position, condition in conditions if conditions is not MISSING else ():
        node = found.value.items[position] if isinstance(found.value, Items) else None
        if isinstance(node, Keys) and not node.entries:
            reader.problems.add(
                Code.CONFIG_VALUE,
                f"`profiles.{name}.activate[{position}]` names no condition",
                reader.locations.value((*where, position)),
                "{env: CI=true}",
            )
        elif condition and (why := _holds(condition, around)):
            return why
    return ""


def _holds(condition: Mapping[str, Any], around: Circumstances) -> str:
    """What holds, in words, "" where anything does not."""
    said: list[str] = []
    if (commands := condition.get("command")) is not None:
        if around.command not in [word for _, word in commands]:
            return ""
        said.append(f"command {around.command}")
    if (variable := condition.get("env")) is not None:
        name, equals, pattern = variable.partition("=")
        value = around.env.get(name, "")
        # `*` alone stands for anything, not for nothing.
        if not _fits(value, pattern if equals else "*", nothing=not pattern.strip("!") and equals):
            return ""
        said.append(f"variable {name}")
    if (pattern := condition.get("context")) is not None:
        context = around.context()
        if context is None or not _fits(context, pattern, nothing=""):
            return ""
        said.append(f"context {context}")
    return ", ".join(said)


def _fits(text: str, pattern: str, *, nothing: object) -> bool:
    """Whether `text` has the form of `pattern` (*, ?, [a-z]; `!` before it turns it around)."""
    without = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    found = fnmatchcase(text, pattern) if text else bool(nothing)
    return found != without


# --- merging -----------------------------------------------------------------------------------


def with_profiles(
    root: Keys, kind: Block, profiles: Profiles, names: Iterable[str], problems: Problems
) -> tuple[Keys, dict[Location, str]]:
    """`root` with what the profiles `names` change, one after the other, and which profile each
    place belongs to. `kind` describes the file."""
    known = [root, *(each.value for each in profiles.trees.values())]
    places: dict[Location, str] = {}
    merging = _Merging(problems, known)
    for name in names:
        entry = profiles.trees[name]
        assert isinstance(entry.value, Keys)  # noqa: S101 - `divided` saw to it
        rest = tuple(each for each in entry.value if each.key != ACTIVATE)
        for refused in [each for each in rest if each.key in _NOT_IN_A_PROFILE]:
            problems.add(
                Code.CONFIG_VALUE,
                f"`{refused.key}` cannot stand in a profile",
                refused.location,
                "remove it: the whole file has one",
            )
        rest = tuple(each for each in rest if each.key not in _NOT_IN_A_PROFILE)
        changed = merging.merged(root, replace(entry.value, entries=rest), kind, ())
        assert isinstance(changed, Keys)  # noqa: S101 - both are
        root = changed
        places |= dict.fromkeys(_places(entry), name)
    return root, places


_NOT_IN_A_PROFILE = ("version", "profiles")


@dataclass(frozen=True, slots=True)
class _Merging:
    """`known` are the file and its profiles: what one of them has may be removed by another."""

    problems: Problems
    known: list[Node]

    def merged(self, base: Node | None, over: Node, kind: Kind | None, path: Path) -> Node:
        """Mappings by key; everything else is replaced."""
        if isinstance(kind, List) and kind.single and not isinstance(base, Items):
            kind = kind.item  # a list's only one, which stands alone
        if isinstance(kind, Block) and kind.short is not None:
            base = _in_full(base, kind.short) if base is not None else None
            over = _in_full(over, kind.short)
        if not isinstance(over, Keys) or not isinstance(kind, Block | Map):
            return over
        entries = {entry.key: entry for entry in base} if isinstance(base, Keys) else {}
        for entry in over:
            below, old = _below(kind, entry.key), entries.get(entry.key)
            if _is_null(entry.value) and self._removes(kind, entry, (*path, entry.key)):
                entries.pop(entry.key, None)
                continue
            value = self.merged(old.value if old else None, entry.value, below, (*path, entry.key))
            stays = old is not None and isinstance(value, Keys)
            at = old.location if stays and old is not None else entry.location
            entries[entry.key] = replace(entry, location=at, value=value)
        location = base.location if isinstance(base, Keys) else over.location
        return replace(over, location=location, entries=tuple(entries.values()))

    def _removes(self, kind: Block | Map, entry: MappingEntry, path: Path) -> bool:
        """Whether nothing as a value takes the key away; what it cannot be is left to the
        reader."""
        if isinstance(kind, Block):
            return entry.key in kind.keys
        if kind.null:
            return False
        names = {name for tree in self.known for name in _names(tree, path[:-1])}
        if entry.key not in names:
            meant = nearest(entry.key, names)
            self.problems.add(
                Code.CONFIG_VALUE,
                f"there is no {kind.noun} `{entry.key}` to remove",
                entry.location,
                f"did you mean `{meant}`?" if meant else "remove the line",
            )
        return True


# A way down from the top of the file.
Path = tuple[str, ...]


def _names(tree: Node, path: Path) -> Iterator[str]:
    """The keys with a value that `tree` has at `path`."""
    for part in path:
        entry = tree.get(part) if isinstance(tree, Keys) else None
        if entry is None:
            return
        tree = entry.value
    yield from (e.key for e in tree if not _is_null(e.value)) if isinstance(tree, Keys) else ()


def _in_full(node: Node, short: str) -> Node:
    """A value that is short for a mapping with one key, as that mapping."""
    if not isinstance(node, Scalar) or node.value is None:
        return node
    entry = MappingEntry(key=short, location=node.location, value=node)
    return Keys(location=node.location, entries=(entry,))


def _below(kind: Block | Map, name: str) -> Kind | None:
    if isinstance(kind, Map):
        return kind.value
    key = kind.keys.get(name)
    return key.kind if key is not None else None


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.value is None


def _places(entry: MappingEntry) -> Iterator[Location]:
    """Of the key, of its value and of all that is in it."""
    yield entry.location
    yield from _within(entry.value)


def _within(node: Node) -> Iterator[Location]:
    yield node.location
    if isinstance(node, Items):
        for item in node.items:
            yield from _within(item)
    elif isinstance(node, Keys):
        for entry in node:
            yield from _places(entry)


def _order(place: Location) -> tuple[int, int]:
    return place.line or 0, place.column or 0
