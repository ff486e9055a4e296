"""From a skaffold.yaml on disk, and the files that it requires, to the tree of a devloop.yaml.

Reads files only; the one program that is run is git, for `requires[].git`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import FilePatterns
from devloop.base.yaml_tree import Keys, describe, read_yaml
from devloop.config.documents import compose_documents, read_text
from devloop.config.skaffold.git import OF_THIS_RUN, CannotFetch, GitSource, Repositories
from devloop.config.skaffold.notes import Module, Translating
from devloop.config.skaffold.profiles import (
    Situation,
    active_profiles,
    unknown_profiles,
    with_profile,
)
from devloop.config.skaffold.translate import translated
from devloop.config.skaffold.tree import at, entry_at, is_false, items, text_at, text_of
from devloop.config.skaffold.upgrade import NEWEST_KNOWN, OLDEST, upgraded, version_of
from devloop.config.variables import parse_dotenv
from devloop.errors import Code, DevloopError, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.base.yaml_tree import MappingEntry, Node
    from devloop.config.problems import Problems
    from devloop.config.skaffold.git import RepositoryCopy


ENV_FILE = "skaffold.env"
_NAMES = ("skaffold.yaml", "skaffold.yml")
_BEGINS = re.compile(r"""^apiVersion:[ \t]*["']?skaffold/""", re.MULTILINE)
_LARGEST = 4 * 1024 * 1024


def is_skaffold(text: str) -> bool:
    """Whether the text of a file is Skaffold's configuration."""
    return _BEGINS.search(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkaffoldFile:
    """`root` is the tree of a devloop.yaml; `files` are those that were read, `variables` those of
    skaffold.env below the environment's, `profiles` those of all documents by name. `remote` are
    the repositories that documents come from, by where they are named."""

    root: Keys
    notes: tuple[Diagnosis, ...]
    files: tuple[Path, ...]
    variables: Mapping[str, str]
    profiles: Mapping[str, Node] = field(default_factory=dict)
    remote: Mapping[str, Location] = field(default_factory=dict)


def read_skaffold(
    path: Path,
    shown: str,
    text: str,
    *,
    show: Callable[[Path], str],
    env: Mapping[str, str],
    profiles: Sequence[str],
    command: str,
    context: str | None,
    supports: Callable[[str], bool],
    problems: Problems,
    keep_variables: bool = False,
    report: Callable[[str], None] = lambda _: None,
    repositories: Repositories = OF_THIS_RUN,
) -> SkaffoldFile | None:
    """What `text` of the file at `path` says, called `shown`; `show` names other files. None after
    a problem, all of which go to `problems`. `profiles`, `command` and `context` activate profiles;
    `supports` says whether a service of this devloop has a key. With `keep_variables` a value that
    is a variable's stays `${NAME}`. `report` gets a line before a repository is cloned, and
    `repositories` has those that are copied already."""

    def copied(source: GitSource, beside: Path) -> RepositoryCopy:
        return repositories.copy(source, beside, env, report)

    reading = _SourceFiles(path.parent, show, env, problems, copied)
    variables = reading.variables()
    situation = Situation(
        named=tuple(profiles),
        env=variables,
        command=command,
        context=lambda: context or env.get("DEVLOOP_CONTEXT") or _current_context(env),
    )
    reading.module_file(path, shown, text, situation, ())
    unknown_profiles(profiles, list(reading.profiles), problems, Location(shown))
    if problems or not reading.modules:
        return None
    files = _Disk(path.parent)
    notes = reading.notes
    use = Translating(
        files=files,
        values=variables,
        supports=supports,
        system={"win32": "windows"}.get(sys.platform, sys.platform),
        problems=problems,
        notes=notes,
        keep_variables=keep_variables,
    )
    root = translated(reading.modules, use)
    read = (*reading.files, *files.read)
    return SkaffoldFile(
        root=root,
        notes=tuple(notes),
        files=tuple(dict.fromkeys(read)),
        variables=variables,
        profiles=reading.profiles,
        remote=reading.remote,
    )


class _SourceFiles:
    """The documents of a file and of those that it requires: `modules` has each after those that
    it requires."""

    def __init__(
        self,
        root: Path,
        show: Callable[[Path], str],
        env: Mapping[str, str],
        problems: Problems,
        copied: Callable[[GitSource, Path], RepositoryCopy],
    ) -> None:
        self.modules: list[Module] = []
        self.files: list[Path] = []
        self.notes: list[Diagnosis] = []
        self.profiles: dict[str, Node] = {}
        self.remote: dict[str, Location] = {}
        self._copied = copied
        self._root = root
        self._show = show
        self._env = env
        self._problems = problems
        self._documents: dict[Path, tuple[Keys, ...]] = {}
        self._done: set[tuple[Path, int]] = set()

    def variables(self) -> dict[str, str]:
        """The environment's, and below them those of skaffold.env."""
        path = self._root / ENV_FILE
        shown = self._show(path)
        try:
            text = read_text(path, shown)
        except DevloopError as error:
            if error.code != Code.CONFIG_NOT_FOUND:
                self._problems.take(error.diagnosis)
            return dict(self._env)
        self.files.append(path)
        return parse_dotenv(text, shown, self._env, self._problems) | dict(self._env)

    def module_file(
        self, path: Path, shown: str, text: str, situation: Situation, names: Sequence[str]
    ) -> None:
        """Take the documents of one file, those with `names` where any are given."""
        documents = self._documents.get(path)
        if documents is None:
            documents = self._documents[path] = self._parsed(text, shown)
        missing = set(names)
        for number, document in enumerate(documents):
            name = text_at(document, "metadata", "name")
            missing.discard(name)
            if (not names or name in names) and (path, number) not in self._done:
                self._done.add((path, number))
                self._document(document, name, path, shown, situation)
        for name in sorted(missing):
            message = f"{shown} has no document whose `metadata.name` is {name!r}"
            self._problems.add(Code.CONFIG_VALUE, message, Location(shown, 1, 1))

    def _parsed(self, text: str, shown: str) -> tuple[Keys, ...]:
        found = []
        for node in compose_documents(text, shown, self._problems, lenient=True):
            if not isinstance(node, Keys):
                message = f"a document must be a mapping, not {describe(node)}"
                self._problems.add(Code.CONFIG_TYPE, message, node.location)
            elif self._is_readable(node):
                found.append(node)
        return tuple(found)

    def _is_readable(self, document: Keys) -> bool:
        entry = entry_at(document, "apiVersion")
        text = text_of(entry.value) if entry else ""
        place = entry.value.location if entry else document.location
        version = version_of(text)
        if version is None:
            message = f"{text!r} is not a version of skaffold.yaml" if text else "no `apiVersion`"
            self._problems.add(Code.CONFIG_VERSION, message, place, f"apiVersion: {NEWEST_KNOWN}")
            return False
        oldest = version_of(OLDEST)
        if oldest is not None and version < oldest:
            self._problems.add(
                Code.CONFIG_VERSION,
                f"{text} is older than {OLDEST}, which is as far back as devloop reads",
                place,
                "`skaffold fix --overwrite` brings the file to a newer version",
            )
            return False
        newest = version_of(NEWEST_KNOWN)
        if newest is not None and version > newest:
            self.notes.append(
                Diagnosis(
                    code=Code.CONFIG_VERSION,
                    severity="warning",
                    message=f"{text} is newer than {NEWEST_KNOWN}, the newest that devloop knows",
                    location=place,
                )
            )
        return True

    def _document(
        self, document: Keys, name: str, path: Path, shown: str, situation: Situation
    ) -> None:
        for profile in items(at(document, "profiles")):
            self.profiles.setdefault(text_at(profile, "name"), profile)
        active = active_profiles(document, situation, self._problems)
        for profile in active:
            document = with_profile(document, profile, self._problems)
        names = [text_at(profile, "name") for profile in active]
        for required in items(at(document, "requires")):
            self._required(required, path, shown, situation, names)
        directory = os.path.relpath(path.parent, self._root)
        self.modules.append(
            Module(
                document=upgraded(document),
                directory="" if directory == "." else Path(directory).as_posix(),
                name=name,
            )
        )

    def _required(
        self, node: Node, path: Path, shown: str, situation: Situation, active: Sequence[str]
    ) -> None:
        if any(at(node, each) is not None for each in _REMOTE):
            return  # said with the other keys
        names = [text_of(each) for each in items(at(node, "configs"))]
        wanted = dict.fromkeys(situation.named)
        for each in items(at(node, "activeProfiles")):
            by = [text_of(one) for one in items(at(each, "activatedBy"))]
            if not by or set(by) & set(active):
                wanted[text_at(each, "name")] = None
        below = Situation(
            named=tuple(wanted),
            env=situation.env,
            command=situation.command,
            context=situation.context,
        )
        place = entry_at(node, "git") or entry_at(node, "path")
        if place is None:
            file = path
        elif place.key == "path":
            file = self._file(path.parent, text_of(place.value))
        elif copy := self._repository(place, path.parent):
            file = self._file(copy, text_at(place.value, "path"))
        else:
            return
        other = shown if file == path else self._show(file)
        if file in self._documents:
            self.module_file(file, other, "", below, names)
            return
        try:
            text = read_text(file, other)
        except DevloopError as error:
            self._problems.add(
                Code.CONFIG_FILE_MISSING,
                f"the required {other} cannot be read",
                place.value.location if place else node.location,
                cause=error.diagnosis.message,
            )
            return
        self.files.append(file)
        self.module_file(file, other, text, below, names)

    def _repository(self, entry: MappingEntry, beside: Path) -> Path | None:
        """The directory of what `git` names; None after a problem."""
        options = entry.value
        repo, ref = text_at(options, "repo"), text_at(options, "ref")
        if not repo:
            self._problems.add(Code.CONFIG_VALUE, "`git` needs a `repo`", entry.location)
            return None
        source = GitSource(repo=repo, ref=ref, sync=not is_false(at(options, "sync")))
        try:
            copy = self._copied(source, beside)
        except CannotFetch as error:
            self._problems.add(
                Code.CONFIG_FILE_MISSING,
                f"the required repository {repo} cannot be had",
                entry.location,
                "`sync: false` keeps to the copy that is here once it was fetched"
                if source.sync
                else "",
                cause=str(error),
            )
            return None
        self.remote[repo] = entry.location
        if copy.kept:
            self.notes.append(
                Diagnosis(
                    code=Code.CONFIG_NOT_SUPPORTED,
                    severity="warning",
                    message=f"the copy of {repo} stays as it is: {copy.kept}",
                    location=entry.location,
                    suggestions=(
                        f"commit or undo them in {copy.directory}, or write `sync: false`",
                    ),
                )
            )
        return copy.directory

    def _file(self, directory: Path, text: str) -> Path:
        """The file that `path` names: itself, or a skaffold.yaml in the directory of that name."""
        named = Path(os.path.normpath(directory / text))
        if named.is_dir():
            found = [named / name for name in _NAMES if (named / name).is_file()]
            return found[0] if found else named / _NAMES[0]
        return named


_REMOTE = ("googleCloudStorage", "googleCloudBuildRepoV2")


class _Disk:
    """The files below `root`; `read` are those whose content was asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.read: list[Path] = []

    def text(self, path: str) -> str:
        file = self._path(path)
        try:
            with file.open("rb") as opened:
                data = opened.read(_LARGEST)
        except (OSError, ValueError):
            return ""
        self.read.append(file)
        return data.decode("utf-8", "replace")

    def is_file(self, path: str) -> bool:
        return self._path(path).is_file()

    def matches(self, pattern: str) -> tuple[str, ...]:
        found = FilePatterns([os.path.normpath(self._root / pattern)]).files()
        return tuple(os.fspath(each) for each in found)

    def _path(self, path: str) -> Path:
        return Path(os.path.normpath(self._root / path))


def _current_context(env: Mapping[str, str]) -> str:
    """The kubeconfig's current context: of several files the first that names one counts."""
    default = f"{env.get('HOME', '')}/.kube/config"
    for name in (env.get("KUBECONFIG") or default).split(os.pathsep):
        try:
            nodes, _ = read_yaml(Path(name).read_text("utf-8"), name, lenient=True)
        except (OSError, ValueError):
            continue
        if nodes and (context := text_at(nodes[0], "current-context")):
            return context
    return ""
