"""The kinds of values that a configuration file can hold, as data.

One description of a file serves four readers: reader.py checks a file against it, resolve.py makes
dataclasses of it, json_schema.py prints it for editors, overrides.py finds the key that `--set`
names. Holds no key; see schema.py.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.config.problems import Fault
    from devloop.config.resolve import ServiceScope
    from devloop.config.rules import TextRule
    from devloop.errors import Code


# What a changed key asks of a session that runs: a new start, another image, another look at the
# manifests, another way to do the next deploy, other rules of what is synced, other local ports,
# other logs, or nothing of its own.
Change = Literal["restart", "build", "deploy", "rollout", "sync", "ports", "logs", "nothing"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text that follows `rule`.

    `number` also takes a number as it stands in the file (a port, seconds), `scalar` any single
    value (a build argument); `for_shell` leaves `$NAME` alone, for a shell to read."""

    rule: TextRule
    _: KW_ONLY
    number: bool = False
    scalar: bool = False
    for_shell: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A whole number; `otherwise` says what is wrong with one outside `least` and `most`, and
    `code` is the error's, also for a missing one."""

    least: int
    most: int
    code: Code
    otherwise: Callable[[int], Fault]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """true or false."""


@dataclass(frozen=True, slots=True)
class List:
    """A list; `least` is the number of items that it must have. `word`, if any, may stand in the
    list's place, and is then read as a text; with `single` an item may, for a list of it alone."""

    item: Kind
    _: KW_ONLY
    least: int = 0
    word: str = ""
    single: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """A mapping whose keys are the user's own: services, build arguments.

    `noun` names one entry in messages; `null` lets an entry have no value; `--set` makes no new
    entry in a `closed` one."""

    key: TextRule
    value: Kind
    noun: str
    least: int = 0
    null: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a block. `about` is one sentence or two for editors; `default` says in words what
    holds without the key; `name` is the key's where the field has another.

    `read` makes the field's value of a checked one; without it a list becomes a tuple and a block
    what it makes. `files` are those that may have the key: devloop.yaml or the user's own.
    `change` is what becomes of a session that runs when the key changes, by default what is said of
    the block around it. A `removable` one may have no value, which takes it away."""

    kind: Kind
    about: str
    _: KW_ONLY
    default: str = ""
    required: bool = False
    name: str = ""
    read: Callable[[Any, ServiceScope], object] | None = None
    files: Literal["project", "user", "both"] = "project"
    change: Change | None = None
    removable: bool = False
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A mapping with fixed keys, of which `make` makes something. `short` is the key that a bare
    value stands for.

    `finish` gets the fields that were found (to change), the values as read and the scope: it fills
    in defaults that depend on others and checks rules between keys. `elsewhere` explains keys that
    people look for here, `later` names what those stand for that do not exist yet; `extra` is added
    to the JSON Schema for rules between keys."""

    about: str
    keys: Mapping[str, Key]
    make: Callable[..., object]
    short: str | None = None
    finish: Callable[[dict[str, Any], dict[str, Any], ServiceScope], None] | None = None
    elsewhere: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    later: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    extra: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


Kind: TypeAlias = Text | Number | Choice | Flag | List | Map | Block


def changes_of(kind: Kind) -> Kind:
    """What may stand in a profile where the file has `kind`: any of its keys, none of them
    required, and nothing as a value to take one away. Rules between keys are not for a part."""
    match kind:
        case Block():
            keys = {
                name: replace(key, kind=changes_of(key.kind), required=False, removable=True)
                for name, key in kind.keys.items()
            }
            return replace(kind, keys=keys, extra=MappingProxyType({}))
        case Map():
            return replace(kind, value=changes_of(kind.value), least=0, null=True, closed=False)
    return kind


def block(made: type, about: str, **more: Any) -> Block:
    """The block of a dataclass: a key for each field whose annotation holds a `Key`."""
    keys: dict[str, Key] = {}
    for name, annotation in made.__annotations__.items():
        for each in getattr(annotation, "__metadata__", ()):
            if isinstance(each, Key):
                keys[each.name or name] = replace(each, field=name)
    return Block(about=about, keys=keys, make=made, **more)
