"""docs/configuration.md, made from the descriptions of the keys (devloop/config/schema.py) and the
values that devloop.yaml.example has for them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from devloop.config.grammar import Block, Choice, Flag, List, Map, Number, Text
from devloop.config.schema import ALL, PROJECT
from devloop.config.yaml_text import flow
from tests.support.docs.markdown import GENERATED, anchor, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.config.grammar import Change, Key, Kind

_INTRODUCTION = """\
# Configuration

devloop reads `devloop.yaml` in the working directory or the nearest directory above it. The least
that it can hold is this, for a Dockerfile beside it and a Deployment `web` in the cluster:

```yaml
version: 1
services:
  web:
    build: .
```

With manifests, which devloop applies, and a port of this computer that leads to the container's:

```yaml
version: 1
services:
  web:
    build: .
    deploy: {manifests: [k8s/*.yaml]}
    ports: [8080]
```

[devloop.yaml.example](../devloop.yaml.example) has every key in one file.

```sh
devloop init               # write a devloop.yaml for what is here
devloop check              # validate it, and the files that it names
devloop config --sources   # the configuration as it holds, and where each value is from
devloop schema             # the JSON Schema, for editors
```

## Where a value comes from

The first of these that has it:

1. a flag: `--set services.web.build.target=dev`, `--registry`, `--namespace`, `--context`
2. a variable of the environment: `DEVLOOP_REGISTRY`, `DEVLOOP_NAMESPACE`, `DEVLOOP_CONTEXT`
3. the [profiles](#profiles) that are active, the last one first
4. devloop.yaml; `-f FILE` or `DEVLOOP_FILE` names another file
5. `~/.config/devloop/config.yaml`, your own for all projects; it may have @USER
6. the default

Every text may hold variables: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`; `$$` is a dollar
sign. They come from the environment and from the file of `env_file`. An error names file, line and
column, and the nearest key.

## Profiles by example

A profile changes the file for a while: `--profile ci`, several in their order, or
`DEVLOOP_PROFILE=ci,slow`. With `activate` it does so by itself, and `--profile -ci` leaves it out.
Mappings are merged key by key; a list or a value stands in place of the one before; a key without
a value is taken away, be it a whole service. `--set` comes after that.

```yaml
version: 1
services:
  web: {build: ., sync: auto}
  mailhog: {build: mailhog}
profiles:
  ci:
    activate: [{env: CI=true}]            # or {context: "kind-*"}, {command: [run, build]}
    services:
      web:
        build: {target: test}
        sync:                             # no value: without it
      mailhog:                            # no value: not this service
```

## When it changes in a session

A session takes an edit of devloop.yaml over while it runs. What is wrong in it is named at its
line, and the configuration of before goes on until it is mended. A service that is added is
deployed; one that is removed is followed no more and stays in the cluster. Each key below says
which of these an edit of it is:

"""

# What `Change` stands for, in words.
_CHANGES: Final[dict[Change, tuple[str, str]]] = {
    "build": ("builds", "the service is built and deployed with it at once"),
    "deploy": ("deploys", "the service's manifests are read and deployed again at once"),
    "rollout": ("next deploy", "the next deploy is done with it"),
    "sync": ("sync", "the service is looked at anew at once, and then the new rules hold"),
    "ports": ("ports", "ports are opened and closed at once; nothing is built"),
    "logs": ("logs", "other logs are followed at once; nothing is built"),
    "restart": (
        "new start",
        "the value of before goes on; the line is named until devloop is started anew",
    ),
    "nothing": ("none", "nothing by itself; the keys whose values it changes are taken over"),
}


def configuration(example: str) -> str:
    """The page. `example` is the text of devloop.yaml.example."""
    user = ", ".join(f"`{name}`" for name, key in ALL.keys.items() if key.files != "project")
    values = yaml.safe_load(re.sub(r"(?m)^# (env_file:)", r"\1", example))
    lines = [
        GENERATED.format(source="devloop/config/schema.py"),
        _INTRODUCTION.replace("@USER", user),
        *table(("an edit", "what it does"), ((name, what) for name, what in _CHANGES.values())),
        *_section("The file", _FILE, (), values, "restart"),
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


_FILE: Final = replace(
    ALL, keys={**ALL.keys, "profiles": PROJECT.keys["profiles"]}, later=PROJECT.later
)


def _told(kind: Block) -> Block:
    """Without the keys that stand elsewhere already, as those of a profile do."""
    own = {name: key for name, key in kind.keys.items() if not key.removable}
    return replace(kind, keys=own)


def _section(
    title: str, kind: Block, path: tuple[str, ...], values: Any, change: Change
) -> Iterator[str]:
    """The keys of a block, then the blocks below it."""
    yield from ("", f"## {title}", "")
    dotted = {name: ".".join((*path, name)) for name in kind.keys}
    links = (f"[`{name}`](#{anchor(each)})" for name, each in dotted.items())
    yield f"{prose(kind.about)} Its keys: {', '.join(links)}."
    if kind.later:
        names = ", ".join(f"`{name}`" for name in kind.later)
        yield from ("", f"What does not exist yet, and is refused: {names}.")
    below: list[tuple[str, Block, tuple[str, ...], Change]] = []
    for name, key in kind.keys.items():
        means = key.change or change
        yield from ("", f"### {dotted[name]}", "", prose(key.about), "")
        yield from _facts(name, key, path, values, means)
        inner = key.kind.item if isinstance(key.kind, List) else key.kind
        if isinstance(inner, Map) and isinstance(inner.value, Block):
            below.append((f"A {inner.noun}", _told(inner.value), (name, "NAME"), means))
        elif isinstance(inner, Block):
            below.append((f"`{name}`", inner, (*path, name), means))
    for heading, block, where, means in below:
        yield from _section(heading, block, where, values, means)


def _facts(
    name: str, key: Key, path: tuple[str, ...], values: Any, change: Change
) -> Iterator[str]:
    yield f"- Value: {_kind(key.kind)}"
    if key.required:
        yield "- Required"
    elif key.default:
        yield f"- Default: {prose(key.default)}"
    if key.files != "project":
        where = "also in" if key.files == "both" else "only in"
        yield f"- File: {where} `~/.config/devloop/config.yaml`"
    services = isinstance(key.kind, Map) and isinstance(key.kind.value, Block)
    if not services and not isinstance(key.kind, Block):
        yield f"- An edit in a session: {_CHANGES[change][0]}"
        if (value := _example(values, (*path, name))) is not None:
            yield f"- Example: `{name}: {flow(value)}`"


def _kind(kind: Kind) -> str:
    match kind:
        case Text():
            forms = [kind.rule.name, *(["a number"] if kind.number else [])]
            return " or ".join(forms)
        case Number():
            return "a whole number"
        case Choice():
            *others, last = (f"`{word}`" for word in kind.words)
            return f"{', '.join(others)} or {last}"
        case Flag():
            return "`true` or `false`"
        case List():
            inner = "the keys below" if isinstance(kind.item, Block) else _kind(kind.item)
            alone = f"{inner} alone, or " if kind.single else ""
            word = f", or `{kind.word}`" if kind.word else ""
            return f"{alone}a list, each item {inner}{word}"
        case Map() if isinstance(kind.value, Block):
            return f"a mapping; each key is the name of a {kind.noun}, with the keys below"
        case Map():
            none = ", or nothing" if kind.null else ""
            return f"a mapping; each key is the name of a {kind.noun}, with its value{none}"
        case Block():
            short = f", or the value of `{kind.short}` alone" if kind.short else ""
            return f"a mapping with the keys below{short}"


def _example(values: Any, path: tuple[str, ...]) -> Any:
    """The first value that the example has there, None if it has none."""
    for at, part in enumerate(path):
        if part == "NAME":
            found = (_example(each, path[at + 1 :]) for each in values.values())
            return next((each for each in found if each is not None), None)
        if isinstance(values, list):
            values = next((each for each in values if part in each), None)
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values
