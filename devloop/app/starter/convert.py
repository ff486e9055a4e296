"""`devloop init --from skaffold.yaml`: the devloop.yaml that does the same.

What is read and what it comes to is config/skaffold's; here it becomes a text, which is read back
as any devloop.yaml before anybody sees it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devloop.app.starter.text import MODELINE
from devloop.base.lazy_dataclass import dataclass
from devloop.config.documents import read_text
from devloop.config.loader import service_has, show_path
from devloop.config.places import FILE_NAME
from devloop.config.problems import ConfigErrors, Problems
from devloop.config.rules import label_from
from devloop.config.skaffold.changes import activation, changes
from devloop.config.skaffold.source import ENV_FILE, is_skaffold, read_skaffold
from devloop.config.skaffold.tree import entry, mapped, put
from devloop.config.skaffold.write import as_text
from devloop.errors import Code, DevloopError, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from devloop.app.starter.start import Flags
    from devloop.base.yaml_tree import Keys, MappingEntry, Node
    from devloop.config.skaffold.source import SkaffoldFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A devloop.yaml for `directory`, and what of it is otherwise than with Skaffold."""

    directory: Path
    text: str
    notes: tuple[Diagnosis, ...]


def converted(file: Path, cwd: Path, env: Mapping[str, str], flags: Flags) -> Converted:
    """What does the same as the skaffold.yaml `file`. Errors: config/*, env/file-unreadable."""
    path = cwd / file
    shown = str(file)
    text = read_text(path, shown)
    if not is_skaffold(text):
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            f"{shown} is no skaffold.yaml",
            location=Location(shown, 1, 1),
            cause="it does not begin with `apiVersion: skaffold/...`",
        )
    named = tuple(filter(None, env.get("DEVLOOP_PROFILE", "").split(",")))

    def read(profiles: Iterable[str]) -> SkaffoldFile:
        problems = Problems()
        found = read_skaffold(
            path,
            shown,
            text,
            show=lambda other: show_path(other, cwd),
            env=env,
            profiles=tuple(profiles),
            command="dev",
            context=flags.context,
            supports=service_has,
            problems=problems,
            keep_variables=True,
        )
        if found is None or problems:
            raise ConfigErrors(problems.sorted())
        return found

    every = read(named).profiles
    found = read((*_without(every, named), *named))
    root, notes = found.root, list(found.notes)
    changed = []
    for name, profile in every.items():
        if name not in named:
            other = read((*_without(every, (*named, name)), *named, name))
            changed.append(_changes(name, profile, found.root, other.root, notes))
            notes += [each for each in other.notes if each not in notes]
    if changed:
        root = put(root, "profiles", mapped(root.location, *changed))
    notes += [_copied(repo, place) for repo, place in found.remote.items()]
    env_file = ENV_FILE if (path.parent / ENV_FILE).is_file() else ""
    head = f"{MODELINE}\nMade of {path.name} by `devloop init`; `devloop schema` has every key."
    made = as_text(root, notes, head=head, env_file=env_file)
    directory = path.parent
    flags.load(directory, env, made, os.path.relpath(directory / FILE_NAME, cwd))
    return Converted(directory=directory, text=made, notes=tuple(notes))


def _copied(repo: str, place: Location) -> Diagnosis:
    return Diagnosis(
        code=Code.CONFIG_NOT_SUPPORTED,
        severity="warning",
        message=f"paths are those of this computer's copy of {repo}",
        location=place,
        cause="a devloop.yaml fetches no repository",
        suggestions=("clone it beside this project, and name its `path` in `requires`",),
    )


def _without(every: Iterable[str], kept: Iterable[str]) -> list[str]:
    """The names that switch off all profiles but these."""
    return [f"-{name}" for name in every if name not in set(kept)]


def _changes(
    name: str, profile: Node, base: Keys, other: Keys, notes: list[Diagnosis]
) -> MappingEntry:
    """The profile in a devloop.yaml."""
    when, whole = activation(profile)
    if not whole:
        notes.append(
            Diagnosis(
                code=Code.CONFIG_NOT_SUPPORTED,
                severity="warning",
                message=f"the profile {name} is not active by itself",
                location=profile.location,
                cause="its conditions are regular expressions that are no patterns",
                suggestions=(f"--profile {name}",),
            )
        )
    found = changes(base, other)
    return entry(label_from(name), mapped(found.location, when, *found))
