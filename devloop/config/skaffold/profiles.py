"""Skaffold's profiles: which are active, and a document with them put over it. Pure.

A profile is applied in the version that the document is written in, so that the paths of its
patches mean what they say. The rules are Skaffold's (pkg/skaffold/schema/profiles.go): lists and
the blocks of builders and deployers are replaced, the blocks around them merged; patches come
after; what is named comes after what activates itself.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import Items, Keys
from devloop.config.problems import nearest
from devloop.config.skaffold.tree import (
    at,
    entries,
    entry_at,
    is_true,
    items,
    put,
    text_at,
    text_of,
    without,
)
from devloop.config.skaffold.upgrade import one_deployer
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.base.yaml_tree import MappingEntry, Node
    from devloop.config.problems import Problems
    from devloop.errors import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What activates profiles: `named` ones (`-NAME` switches one off), the environment, the
    command, and the Kubernetes context, which is asked for only where a profile depends on it."""

    named: tuple[str, ...] = ()
    env: Mapping[str, str]
    command: str = ""
    context: Callable[[], str]


def active_profiles(document: Keys, situation: Situation, problems: Problems) -> tuple[Keys, ...]:
    """The profiles to put over `document`, in order. Those that are named and not there are left
    out: another document may have them, see `unknown_profiles`."""
    profiles = {
        text_at(each, "name"): each
        for each in items(at(document, "profiles"))
        if isinstance(each, Keys)
    }
    names = [name for name, each in profiles.items() if _activates(each, situation, problems)]
    for name in situation.named:
        if name.startswith("-"):
            names = [each for each in names if each != name[1:]]
        elif name not in names and name in profiles:
            names.append(name)
    return tuple(profiles[name] for name in names)


def profile_names(document: Node) -> tuple[str, ...]:
    return tuple(text_at(each, "name") for each in items(at(document, "profiles")))


def _activates(profile: Keys, situation: Situation, problems: Problems) -> bool:
    found = [
        _is_met(each, situation, problems)
        for each in items(at(profile, "activation"))
        if isinstance(each, Keys)
    ]
    together = all if is_true(at(profile, "requiresAllActivations")) else any
    return bool(found) and together(found)


def _is_met(condition: Keys, situation: Situation, problems: Problems) -> bool:
    met = True
    for each in condition:
        wanted = text_of(each.value)
        if not wanted:
            continue
        if each.key == "env":
            name, equals, value = wanted.partition("=")
            if not equals:
                problems.add(
                    Code.CONFIG_VALUE,
                    f"{wanted!r} is not of the form NAME=PATTERN",
                    each.value.location,
                )
                return False
            have = situation.env.get(name, "")
            met = met and (have == "" if value == "" else matches(value, have))
        elif each.key == "command":
            met = met and matches(wanted, situation.command)
        elif each.key == "kubeContext":
            met = met and matches(wanted, situation.context())
    return met


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is the pattern or holds a match of it; with `!` before it whether not."""
    wanted, pattern = not pattern.startswith("!"), pattern.removeprefix("!")
    try:
        found = pattern == text or re.search(pattern, text) is not None
    except re.error:
        found = False
    return found is wanted


# Blocks that are merged key by key; all others are replaced as a whole.
_MERGED = frozenset(
    {
        (),
        ("build",),
        ("build", "hooks"),
        ("manifests",),
        ("manifests", "hooks"),
        ("deploy",),
        ("deploy", "logs"),
        ("deploy", "logs", "jsonParse"),
        ("resourceSelector",),
    }
)
_PIPELINE = frozenset(
    {
        "build",
        "test",
        "manifests",
        "deploy",
        "portForward",
        "resourceSelector",
        "verify",
        "customActions",
    }
)
_BUILDERS = ("local", "googleCloudBuild", "cluster", "kaniko")
_DEPLOYERS = ("kubectl", "helm", "kustomize", "kpt")


def with_profile(document: Keys, profile: Keys, problems: Problems) -> Keys:
    """`document` with `profile` put over it."""
    lone = one_deployer(text_at(document, "apiVersion"))
    own = replace(profile, entries=tuple(e for e in profile if e.key in _PIPELINE))
    document = _merged(document, own, (), lone=lone)
    for patch in items(at(profile, "patches")):
        if isinstance(patch, Keys):
            document = _patched(document, patch, problems)
    return document


def _merged(below: Keys, over: Keys, path: tuple[str, ...], *, lone: bool) -> Keys:
    for alone, names in (
        (path == ("build",), _BUILDERS),
        (path == ("deploy",) and lone, _DEPLOYERS),
    ):
        if alone and any(over.get(name) for name in names):
            below = without(below, *names)
    for each in over:
        old = below.get(each.key)
        if isinstance(each.value, Items) and not each.value.items:
            continue
        value = each.value
        where = (*path, each.key)
        if where in _MERGED and old and isinstance(old.value, Keys) and isinstance(value, Keys):
            value = _merged(old.value, value, where, lone=lone)
        below = put(below, each.key, value, each.location)
    return below


# Patches: RFC 6902 on YAML; `image=web` as a step finds the items of a list that have it.


class _NoWay(Exception):  # noqa: N818 - not an error: ends one patch
    """The path leads nowhere."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _patched(document: Keys, patch: Keys, problems: Problems) -> Keys:
    op = text_at(patch, "op") or "replace"
    path = entry_at(patch, "path")
    if path is None or not text_of(path.value).startswith("/"):
        place = path.value.location if path else patch.location
        problems.add(
            Code.CONFIG_VALUE,
            "a patch needs a `path` that begins with /",
            place,
            "/build/artifacts/0",
        )
        return document
    try:
        return _operation(document, op, _steps(text_of(path.value)), patch)
    except _NoWay as wrong:
        message = f"the patch's path {text_of(path.value)} leads nowhere: {wrong}"
        problems.add(Code.CONFIG_VALUE, message, path.value.location, wrong.hint)
        return document


def _operation(document: Keys, op: str, path: tuple[str, ...], patch: Keys) -> Keys:
    value = at(patch, "value")
    place = patch.location
    match op:
        case "test":
            return document
        case "remove":
            found = _each(document, path, lambda _: None, place, make=False)
        case "add" | "replace":
            if value is None:
                raise _NoWay("it has no `value`")
            new = value
            found = _each(document, path, lambda _: new, place, make=True, insert=op == "add")
        case "copy" | "move":
            source = _steps(text_at(patch, "from"))
            taken = _read(document, source)
            if op == "move":
                gone = _each(document, source, lambda _: None, place, make=False)
                document = gone if isinstance(gone, Keys) else document
            found = _each(document, path, lambda _: taken, place, make=True, insert=True)
        case _:
            raise _NoWay(
                f"there is no operation {op!r}", "add, remove, replace, move, copy or test"
            )
    if not isinstance(found, Keys):
        raise _NoWay("it is the whole file")
    return found


def _steps(path: str) -> tuple[str, ...]:
    return tuple(
        part.replace("~1", "/").replace("~0", "~") for part in path.removeprefix("/").split("/")
    )


def _read(node: Node, path: tuple[str, ...]) -> Node:
    for step in path:
        found: Node | None = None
        if isinstance(node, Keys):
            entry = node.get(step)
            found = entry.value if entry else None
        elif isinstance(node, Items):
            positions = _positions(node, step)
            found = node.items[positions[0]] if positions else None
        if found is None:
            raise _NoWay(f"there is no `{step}`")
        node = found
    return node


def _positions(node: Items, step: str) -> list[int]:
    """The items of a list that a step names."""
    if step.isdecimal():
        return [int(step)] if int(step) < len(node.items) else []
    name, equals, wanted = step.partition("=")
    if not equals:
        return []
    return [i for i, each in enumerate(node.items) if text_at(each, name) == wanted]


def _each(
    node: Node | None,
    path: tuple[str, ...],
    change: Callable[[Node | None], Node | None],
    place: Location,
    *,
    make: bool,
    insert: bool = False,
) -> Node | None:
    """`node` with what is at `path` changed; None is nothing. `make` makes mappings on the way,
    `insert` shifts the items of a list instead of replacing one."""
    if not path:
        return change(node)
    step, rest = path[0], path[1:]
    if isinstance(node, Items):
        return _in_list(node, step, rest, change, place, make=make, insert=insert)
    if node is None and make and not step.isdecimal() and step != "-" and "=" not in step:
        node = Keys(location=place, entries=())
    if not isinstance(node, Keys):
        raise _NoWay(f"there is no `{step}`")
    old = node.get(step)
    if old is None and not make:
        meant = nearest(step, (each.key for each in node))
        raise _NoWay(f"there is no `{step}`", f"did you mean {meant}?" if meant else "")
    new = _each(old.value if old else None, rest, change, place, make=make, insert=insert)
    return without(node, step) if new is None else put(node, step, new)


def _in_list(
    node: Items,
    step: str,
    rest: tuple[str, ...],
    change: Callable[[Node | None], Node | None],
    place: Location,
    *,
    make: bool,
    insert: bool,
) -> Items:
    found = list(node.items)
    end = step == "-" or (insert and not rest and step == str(len(found)))
    if end:
        new = _each(None, rest, change, place, make=make, insert=insert)
        return replace(node, items=(*found, *([new] if new is not None else [])))
    positions = _positions(node, step)
    if not positions:
        size = len(found)
        raise _NoWay(f"no item is `{step}` in a list of {size}")
    for position in reversed(positions):
        if insert and not rest:
            new = change(None)
            found[position:position] = [new] if new is not None else []
            continue
        new = _each(found[position], rest, change, place, make=make, insert=insert)
        found[position : position + 1] = [new] if new is not None else []
    return replace(node, items=tuple(found))


def unknown_profiles(
    named: Sequence[str], known: Sequence[str], problems: Problems, place: Location
) -> None:
    """Report the named profiles that no document has."""
    for name in named:
        bare = name.removeprefix("-")
        if bare not in known:
            meant = nearest(bare, known)
            hint = f"did you mean {meant}?" if meant else ""
            cause = f"the profiles are {', '.join(known)}" if known else "there are none"
            problems.add(
                Code.CONFIG_VALUE, f"there is no profile `{bare}`", place, hint, cause=cause
            )


def activation_of(profile: Keys) -> tuple[MappingEntry, ...]:
    """All conditions of a profile."""
    return tuple(each for one in items(at(profile, "activation")) for each in entries(one))
