"""From a directory, an environment and flags to a `Project`: the one way to read devloop.yaml.

Precedence: flags, `DEVLOOP_*` variables, devloop.yaml with its active profiles, the user's
config.yaml, defaults. Reads files only; whether the files that devloop.yaml names exist is
files.py's question.
"""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import Keys, describe
from devloop.config.documents import compose_documents, read_text
from devloop.config.grammar import Block, Map
from devloop.config.overrides import apply_sets, literal
from devloop.config.places import FILE_NAME, LEAST, find_project
from devloop.config.problems import ConfigErrors, Locations, Problems
from devloop.config.profiles import (
    ACTIVATE,
    ActiveProfile,
    Circumstances,
    Profiles,
    divided,
    find_active,
    with_profiles,
)
from devloop.config.reader import MISSING, Reader
from devloop.config.resolve import ServiceScope, make
from devloop.config.schema import ALL, MERGED, PROFILE, PROJECT, USER, Project
from devloop.config.variables import parse_dotenv
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.errors import Diagnosis


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProject:
    """A project and where it came from.

    `variables` are what `${NAME}` could name: env_file below the environment. `files` are the files
    that were read (absolute), whose change means loading again. `cwd` is what shown paths are
    relative to. `values` are the settings that somebody gave, as the reader leaves them. `profiles`
    are those that count, and `profiled` says which of them a place belongs to. `notes` say what of
    a skaffold.yaml is otherwise here."""

    project: Project
    locations: Locations
    variables: Mapping[str, str] = field(repr=False)
    files: tuple[Path, ...]
    cwd: Path
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[Diagnosis, ...] = ()
    profiles: tuple[ActiveProfile, ...] = ()
    profiled: Mapping[Location, str] = field(default_factory=dict, repr=False)

    def locate(self, *path: str | int) -> Location:
        """Where a setting stands: `locate("services", "web", "deploy", "workload")`.

        The place of the key (of the item in a list); for a default, of the nearest key above it."""
        return self.locations.key(path)

    def show(self, path: Path) -> str:
        """A path as the user would type it."""
        return show_path(path, self.cwd)


def show_path(path: Path, cwd: Path) -> str:
    """`path` relative to `cwd` where one of them holds the other, else absolute."""
    directory = path.parent
    if path.is_relative_to(cwd):
        return str(path.relative_to(cwd))
    return os.path.relpath(path, cwd) if cwd.is_relative_to(directory) else str(path)


def load_project(
    *,
    cwd: Path,
    file: Path | None = None,
    env: Mapping[str, str],
    sets: Sequence[str] = (),
    user_config: Path | None = None,
    registry: str | None = None,
    namespace: str | None = None,
    context: str | None = None,
    profiles: Sequence[str] = (),
    command: str = "",
    current_context: Callable[[], str | None] = lambda: None,
    text: str | None = None,
    shown: str = "",
    report: Callable[[str], None] = lambda _: None,
) -> LoadedProject:
    """Reads and checks devloop.yaml, or a skaffold.yaml as if it were one.

    `file` is `-f` (relative to `cwd`), before DEVLOOP_FILE in `env`; `sets` are `--set`'s values;
    `user_config` may name a file that does not exist; `registry`, `namespace` and `context` are
    flags. `profiles` are `--profile`'s values, before DEVLOOP_PROFILE (each a name or several with
    commas); profiles that are active by themselves may ask for `command`, and for the kubeconfig's
    `current_context` where nobody names one. `text` stands for the file of `cwd`, which is not read
    then and need not be there, and `shown` for its name. `report` gets a line before what may take
    long: a git repository that a skaffold.yaml requires.

    Raises `DevloopError` when no file is found or it cannot be read, `ConfigErrors` with every
    problem in it otherwise."""
    cwd = cwd.absolute()
    if text is None:
        path, named = find_project(cwd=cwd, file=file, env=env)
        shown = named or show_path(path, cwd)
    else:
        path = cwd / FILE_NAME
    flags = {"registry": registry, "namespace": namespace, "context": context}
    loading = _Loading(cwd=cwd, env=env, locations=Locations(Location(shown)), report=report)
    values = loading.user_values(user_config)
    given = context or env.get("DEVLOOP_CONTEXT") or values.get("context")
    loading.given_context = given
    around = _circumstances(profiles, env, command, lambda: given or current_context())
    values |= loading.file_values(path, shown, sets, text, around)
    values |= loading.given_values(flags)
    return LoadedProject(
        project=loading.project(path, values),
        locations=loading.locations,
        variables=loading.variables,
        files=tuple(loading.files),
        cwd=cwd,
        values=values,
        notes=loading.notes,
        profiles=loading.profiles.active,
        profiled=loading.profiled,
    )


def _circumstances(
    flags: Sequence[str],
    env: Mapping[str, str],
    command: str,
    context: Callable[[], str | None],
) -> Circumstances:
    given = list(flags) or [env.get("DEVLOOP_PROFILE", "")]
    names = (name.strip() for text in given for name in text.split(","))
    return Circumstances(
        named=tuple(filter(None, names)),
        asked_by="--profile" if flags else "DEVLOOP_PROFILE",
        env=env,
        context=context,
        command=command,
    )


def service_has(key: str) -> bool:
    """Whether a service of devloop.yaml has the key: `deploy.helm`."""
    services = PROJECT.keys["services"].kind
    kind: object = services.value if isinstance(services, Map) else None
    for name in key.split("."):
        if not isinstance(kind, Block) or name not in kind.keys:
            return False
        kind = kind.keys[name].kind
    return True


class _Loading:
    """One load: what was read so far and what is wrong with it."""

    def __init__(
        self,
        *,
        cwd: Path,
        env: Mapping[str, str],
        locations: Locations,
        report: Callable[[str], None],
    ) -> None:
        self.cwd = cwd
        self._report = report
        self.env = env
        self.variables = dict(env)
        self.locations = locations
        self.files: list[Path] = []
        self.notes: tuple[Diagnosis, ...] = ()
        self.given_context: str | None = None  # the kubeconfig's comes after it
        self.profiles = Profiles()
        self.profiled: Mapping[Location, str] = {}
        self._file = Keys(location=locations.file, entries=())  # without its profiles
        self._sets: Sequence[str] = ()
        self._problems = Problems()
        self._incomplete = False

    def user_values(self, path: Path | None) -> dict[str, Any]:
        if path is None:
            return {}
        home = Path(self.env.get("HOME") or "/nowhere")
        shown = f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
        try:
            text = read_text(path, shown)
        except DevloopError as error:
            if error.code == Code.CONFIG_NOT_FOUND:
                return {}
            raise
        self.files.append(path)
        root = self._root(text, shown)
        return self._read(root, USER, self.env) if root is not None else {}

    def file_values(
        self, path: Path, shown: str, sets: Sequence[str], text: str | None, around: Circumstances
    ) -> dict[str, Any]:
        if text is None:
            self.files.append(path)
            text = read_text(path, shown)
        skaffold = self._skaffold(path, shown, text, around) if "skaffold/" in text else None
        root = skaffold or self._root(text, shown)
        if root is None:
            if not self._problems:
                place = Location(shown, 1, 1)
                self._problems.add(Code.CONFIG_PARSE, "the file is empty", place, LEAST)
            raise ConfigErrors(self._problems.sorted(), self.files)
        self._file, trees = divided(root, self._problems)
        # Those of a skaffold.yaml are merged already.
        if trees or (around.named and skaffold is None):
            reader = Reader(self._problems, self.locations, self.env)
            self.profiles = find_active(trees, around, PROFILE.keys[ACTIVATE].kind, reader)
        self._sets = sets
        names = [each.name for each in self.profiles.active]
        root, self.profiled = with_profiles(
            self._file, MERGED, self.profiles, names, self._problems
        )
        root = apply_sets(root, MERGED, sets, self._problems)
        self._read_env_file(root, path.parent)
        return self._read(root, PROJECT, self.variables)

    def given_values(self, flags: Mapping[str, str | None]) -> dict[str, Any]:
        """What flags and, after them, DEVLOOP_* variables say; an empty one counts as unset."""
        values: dict[str, Any] = {}
        reader = Reader(self._problems, self.locations, {})
        for name, flag in flags.items():
            variable = f"DEVLOOP_{name.upper()}"
            text = flag if flag is not None else self.env.get(variable) or None
            if text is None:
                continue
            place = self.locations.keys[name,] = Location(variable if flag is None else f"--{name}")
            value = reader.read(literal(text, place), USER.keys[name].kind, (name,))
            if value is not MISSING:
                values[name] = value
        return values

    def project(self, path: Path, values: dict[str, Any]) -> Project:
        """Raises `ConfigErrors` with everything found so far."""
        scope = ServiceScope(
            file=path, variables=self.variables, locations=self.locations, problems=self._problems
        )
        project = make(ALL, values, scope)
        for name in self.profiles.unused:
            self._check_profile(name, path)
        if self._problems or not isinstance(project, Project):
            found = self._problems.sorted()
            if self._incomplete:
                # Without env_file any variable may look unset.
                found = tuple(each for each in found if each.code != Code.CONFIG_VARIABLE) or found
            raise ConfigErrors(found, self.files)
        return project

    def _check_profile(self, name: str, path: Path) -> None:
        """Report what would be wrong if the profile counted alone."""
        found = Problems()
        root, _ = with_profiles(self._file, MERGED, self.profiles, [name], found)
        root = apply_sets(root, MERGED, self._sets, Problems())
        locations = Locations(self.locations.file)
        values = Reader(found, locations, self.variables).read(root, PROJECT, ())
        if isinstance(values, dict):
            scope = ServiceScope(
                file=path, variables=self.variables, locations=locations, problems=found
            )
            make(ALL, values, scope)
        within = self.profiles.region(name)
        for each in found.sorted():
            # A variable may be there where the profile is used.
            own = each.location is not None and within(each.location)
            if own and each.code != Code.CONFIG_VARIABLE:
                self._problems.take(each)

    def _read(self, root: Keys, kind: Block, variables: Mapping[str, str]) -> dict[str, Any]:
        values = Reader(self._problems, self.locations, variables).read(root, kind, ())
        return values if isinstance(values, dict) else {}

    def _root(self, text: str, shown: str) -> Keys | None:
        """The file's mapping; None when there is none, reported unless the file is empty."""
        nodes = compose_documents(text, shown, self._problems)
        if len(nodes) > 1:
            message = "the file holds more than one document"
            hint = "remove what follows the line ---"
            self._problems.add(Code.CONFIG_PARSE, message, nodes[1].location, hint)
        root = next(iter(nodes), None)
        if root is None or isinstance(root, Keys):
            return root
        message = f"the file must be a mapping (`key: value` lines), not {describe(root)}"
        self._problems.add(Code.CONFIG_TYPE, message, root.location)
        return None

    def _skaffold(self, path: Path, shown: str, text: str, around: Circumstances) -> Keys | None:
        """The file's mapping where it is Skaffold's. Raises `ConfigErrors`."""
        from devloop.config.skaffold.source import (  # noqa: PLC0415 - for a skaffold.yaml only
            is_skaffold,
            read_skaffold,
        )

        if not is_skaffold(text):
            return None
        found = read_skaffold(
            path,
            shown,
            text,
            show=lambda other: show_path(other, self.cwd),
            env=self.env,
            profiles=around.named,
            command=around.command,
            context=self.given_context,
            supports=service_has,
            problems=self._problems,
            report=self._report,
        )
        if found is None or self._problems:
            raise ConfigErrors(self._problems.sorted(), self.files)
        self.notes = found.notes
        self.files += [file for file in found.files if file not in self.files]
        return found.root

    def _read_env_file(self, root: Keys, directory: Path) -> None:
        """Adds env_file's variables below the environment's own."""
        entry = root.get("env_file")
        if entry is None:
            return
        quiet = Reader(Problems(), Locations(Location("")), self.env)
        named = quiet.read(entry.value, PROJECT.keys["env_file"].kind, ())
        if named is MISSING:
            return
        path = Path(os.path.normpath(directory / named))
        shown = show_path(path, self.cwd)
        found = Problems()
        self.files.append(path)
        try:
            text = read_text(path, shown)
        except DevloopError as error:
            code = error.code if error.code != Code.CONFIG_NOT_FOUND else Code.CONFIG_FILE_MISSING
            self._problems.add(
                code,
                f"env_file: {error.diagnosis.message}",
                entry.value.location,
                "create it, or remove `env_file`",
                cause=error.diagnosis.cause,
            )
            self._incomplete = True
            return
        self.variables = parse_dotenv(text, shown, self.env, found) | self.variables
        for each in found.sorted():
            self._incomplete = True
            self._problems.take(each)
