"""What of a project is built: the services of a Compose file, and what other Dockerfiles make."""

from __future__ import annotations

import re
from dataclasses import field, replace
from typing import TYPE_CHECKING

from devloop.app.starter.compose import ComposeService, read_compose
from devloop.app.starter.look import COMPOSE_NAMES, Found
from devloop.base.lazy_dataclass import dataclass
from devloop.config.problems import Problems
from devloop.config.rules import label_from
from devloop.config.variables import parse_dotenv

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


# Folders that only hold the Dockerfile of what is above them.
_FOR_BUILDS = re.compile(r"docker|build|deploy|deployment|container|containers|package|\.?ci|infra")


@dataclass(slots=True)
class Told:
    """Lines for a person: see `Proposal`."""

    found: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that is built. `path` is its Dockerfile."""

    name: str
    path: str
    compose: ComposeService | None = None

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


def find_candidates(
    root: Path, seen: Found, env: Mapping[str, str], name: str, told: Told
) -> list[Candidate]:
    """Each with a name of its own; `name` is for the only one. `env` is what a Compose file may
    name."""
    found = [
        Candidate(name=label_from(each.name) or "app", path=each.dockerfile, compose=each)
        for each in _composed(root, seen, env, told)
    ]
    folders = {each.folder for each in found}
    for dockerfile in seen.dockerfiles:
        if dockerfile.folder in folders:
            continue
        called = label_from(dockerfile.purpose) or _folder_name(root, dockerfile.folder)
        found.append(Candidate(name=called, path=dockerfile.path))
        told.found.append(dockerfile.path)
    if len(found) == 1 and name:
        found = [replace(found[0], name=name)]
    found = _distinct(found)
    if seen.variants:
        told.unread.append(f"{', '.join(seen.variants)}: set `build.dockerfile` to use it")
    if len(found) > 1 and not any(each.compose for each in found):
        names = ", ".join(each.name for each in found)
        told.assumed.append(f"{len(found)} services, one for each Dockerfile: {names}")
    return found


def _distinct(found: list[Candidate]) -> list[Candidate]:
    names = [each.name for each in found]
    made: list[Candidate] = []
    taken: set[str] = set()
    for each in found:
        name = each.name
        if names.count(name) > 1:
            name = label_from(each.path.removesuffix("Dockerfile")) or name
        number = 2
        while name in taken:
            name, number = f"{each.name[:60]}-{number}", number + 1
        taken.add(name)
        made.append(replace(each, name=name))
    return made


def _folder_name(root: Path, folder: str) -> str:
    parts = [root.name, *folder.split("/")] if folder else [root.name]
    named = [part for part in parts if not _FOR_BUILDS.fullmatch(part.lower())]
    return label_from(named[-1] if named else root.name) or "app"


def _composed(
    root: Path, seen: Found, env: Mapping[str, str], told: Told
) -> Iterator[ComposeService]:
    folders: set[str] = set()
    for path in sorted(seen.compose, key=lambda p: (p.count("/"), _rank(p))):
        folder = path.rpartition("/")[0]
        if folder in folders or "" in folders:
            continue
        read = read_compose(root, path, _dotenv(root / folder / ".env", env))
        if read.problem:
            told.unread.append(f"{path}: {read.problem}")
            continue
        folders.add(folder)
        built = [each for each in read.built if (root / each.dockerfile).is_file()]
        if not built:
            continue
        told.found.append(f"{path}: {', '.join(each.name for each in built)}")
        told.unread += [
            f"{path}: {', '.join(each.left_out)} of {each.name}" for each in built if each.left_out
        ]
        if read.others:
            images = ", ".join(f"{name} ({image})" for name, image in read.others)
            told.unread.append(f"{path}: {images}: have it in the cluster")
        yield from built


def _dotenv(path: Path, env: Mapping[str, str]) -> Mapping[str, str]:
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError):
        return env
    return parse_dotenv(text, ".env", env, Problems()) | dict(env)


def _rank(path: str) -> int:
    return COMPOSE_NAMES.index(path.rpartition("/")[2])
