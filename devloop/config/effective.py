"""The configuration as it holds: every setting with its value and where that comes from.

What `devloop config` prints is a valid devloop.yaml that means the same. A value with variables is
shown as it is written, with `${NAME}` in it: what the environment holds may be a secret. Pure.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.config.builds import Build
from devloop.config.grammar import Block, Flag, List, Map, Number, Text
from devloop.config.schema import ALL
from devloop.config.yaml_text import flow, scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devloop.config.grammar import Key, Kind
    from devloop.config.loader import LoadedProject
    from devloop.config.problems import Path as Where
    from devloop.config.yaml_text import Plain


# `${NAME`, but not `$${NAME`.
_VARIABLE = re.compile(r"(?<!\$)(?:\$\$)*\$\{([A-Za-z_][A-Za-z0-9_]*)")
_COMMENT_AT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value. `path` leads to it through the keys; `value` is None for a key that is not given
    and has no value of its own, and for a build argument that the environment gives. `source` says
    where it comes from. `shown` is False for what devloop.yaml cannot hold or does not: it is a
    comment there."""

    path: tuple[str, ...]
    value: Plain
    source: str
    shown: bool = True


def effective(
    loaded: LoadedProject, env: Mapping[str, str], discovered: Mapping[str, tuple[str, str]]
) -> tuple[Setting, ...]:
    """All settings in the order of the grammar. `env` is the environment that `loaded` was read
    with; `discovered` has, by top-level key, what else is known of a value that nobody gave, and
    from where."""
    return tuple(_Settings(loaded, env, discovered).of(ALL, loaded.values, loaded.project, ()))


def as_yaml(settings: tuple[Setting, ...], *, sources: bool) -> str:
    """The text of a devloop.yaml; with `sources` a comment behind each value says where it comes
    from, and what nobody gave is there as a comment."""
    # A mapping of which only comments are left would be an empty value.
    real = {each.path[:length] for each in settings if each.shown for length in range(9)}
    lines: list[str] = []
    last: tuple[str, ...] = ()
    for each in settings:
        if not each.shown and not sources:
            continue
        *parents, name = each.path
        pairs = enumerate(zip(parents, last, strict=False))
        same = next((at for at, (new, old) in pairs if new != old), min(len(parents), len(last)))
        for at in range(same, len(parents)):
            mark = "" if each.path[: at + 1] in real else "# "
            lines.append(f"{'  ' * at}{mark}{scalar(parents[at])}:")
        last = each.path[:-1]
        text = "" if each.value is None else f" {flow(each.value)}"
        line = f"{'  ' * len(parents)}{'' if each.shown else '# '}{scalar(name)}:{text}"
        lines.append(f"{line:<{_COMMENT_AT}}  # {each.source}" if sources else line)
    return "".join(f"{line}\n" for line in lines)


def _needs_more(kind: Block) -> bool:
    """Whether the defaults of a block are nothing that could stand in a file."""
    return any(key.required for key in kind.keys.values())


class _Settings:
    def __init__(
        self,
        loaded: LoadedProject,
        env: Mapping[str, str],
        discovered: Mapping[str, tuple[str, str]],
    ) -> None:
        self._root = loaded.project.root
        self._places = loaded.locations
        self._profiled = loaded.profiled
        self._variables = loaded.variables
        self._env_file = loaded.project.env_file
        self._env = env
        self._show = loaded.show
        self._discovered = discovered

    def of(
        self, kind: Block, values: Mapping[str, Any], made: object, path: tuple[str, ...]
    ) -> Iterator[Setting]:
        for name, key in kind.keys.items():
            where = (*path, name)
            field: Any = getattr(made, key.field, None)
            if isinstance(key.kind, Block) and name not in values and _needs_more(key.kind):
                yield Setting(path=where, value=None, source="not given", shown=False)
            elif isinstance(key.kind, Block):
                yield from self.of(key.kind, values.get(name, {}), field, where)
            elif isinstance(key.kind, Map) and isinstance(key.kind.value, Block):
                for entry, below in values.get(name, {}).items():
                    yield from self.of(key.kind.value, below, field[entry], (*where, entry))
            elif isinstance(key.kind, Map) and values.get(name):
                for entry, text in values[name].items():
                    yield self._argument((*where, entry), text)
            elif name in values:
                yield Setting(
                    path=where,
                    value=self._given(key.kind, values[name], where),
                    source=self._source(where),
                    shown=key.files != "user",
                )
            else:
                yield self._default(key, where, field, made)

    def _argument(self, path: tuple[str, ...], text: str | None) -> Setting:
        source = self._source(path)
        if text is None:
            is_set = path[-1] in self._variables
            source += f", {self._origin(path[-1])}" if is_set else ", not set: left out"
        return Setting(
            path=path, value=self._text(text or "", path) if text else text, source=source
        )

    def _given(self, kind: Kind, value: Any, path: Where) -> Plain:
        if isinstance(kind, List):
            if isinstance(value, str):
                return self._text(value, path)
            # One that stands alone has the list's own place.
            alone = kind.single and (*path, 0) not in self._places.values
            return [
                self._given(kind.item, each, path if alone else (*path, at)) for at, each in value
            ]
        if isinstance(kind, Block):
            return {
                name: self._given(kind.keys[name].kind, each, (*path, name))
                for name, each in value.items()
            }
        if isinstance(kind, Map):
            return {
                name: self._given(kind.value, each, (*path, name)) for name, each in value.items()
            }
        if isinstance(kind, Number | Flag):
            return self._places.written.get(path) or value
        text = self._text(str(value), path)
        return int(text) if isinstance(kind, Text) and kind.number and text.isdecimal() else text

    def _text(self, value: str, path: Where) -> str:
        return self._places.written.get(path) or value.replace("$", "$$")

    def _default(self, key: Key, path: tuple[str, ...], value: Any, made: object) -> Setting:
        if path[-1] in self._discovered and len(path) == 1:
            found, source = self._discovered[path[0]]
            return Setting(path=path, value=found, source=source, shown=False)
        match value:
            case Path():
                to = self._root
                if isinstance(made, Build) and path[-1] == "dockerfile":
                    to = made.context
                value = os.path.relpath(value, to)
            case float():
                value = f"{value:g}s"
            case tuple():
                value = list(value)
        if value is None or not (value or isinstance(value, bool)):
            source = (
                f"default: {key.default.removeprefix('none: ')}" if key.default else "not given"
            )
            return Setting(path=path, value=None, source=source, shown=False)
        plain = value.replace("$", "$$") if isinstance(value, str) else value
        return Setting(path=path, value=plain, source="default")

    def _source(self, path: Where) -> str:
        place = self._places.keys.get(path) or self._places.key(path)
        profile = self._profiled.get(place)
        written = "".join(
            text for at, text in self._places.written.items() if at[: len(path)] == path
        )
        names = dict.fromkeys(_VARIABLE.findall(written))
        whose = [f"profile {profile}"] if profile else []
        return ", ".join([str(place), *whose, *map(self._origin, names)])

    def _origin(self, name: str) -> str:
        if name in self._env:
            return f"${{{name}}} from the environment"
        if name in self._variables and self._env_file is not None:
            return f"${{{name}}} from {self._show(self._env_file)}"
        return f"${{{name}}} not set"
