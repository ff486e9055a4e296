"""What the words of a stage's instructions stand for: ENV, ARG and WORKDIR replayed.

Pure. Follows BuildKit's dispatchEnv, dispatchArg and dispatchWorkdir. A variable whose value cannot
be known here, or is another from one release to the next, is `NeedsFullBuild` where a word asks for
it, not before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import PATH, expand, joined, json_form, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage


_SPACE = re.compile(r"[\t\v\f\r ]+")
# BuildKit gives a value to these, which depends on the platform and the target.
_PLATFORM = tuple(
    f"{prefix}{what}"
    for prefix in ("TARGET", "BUILD")
    for what in ("PLATFORM", "OS", "ARCH", "VARIANT")
)


class Variables(Mapping[str, str]):
    """Values by name; asking for one that is in doubt raises `NeedsFullBuild`. `complete` says that
    there are no others."""

    def __init__(self, known: Mapping[str, str | NeedsFullBuild], *, complete: bool = True) -> None:
        self.known = dict(known)
        self.complete = complete

    def __getitem__(self, name: str) -> str:
        if name not in self.known and not self.complete:
            raise NeedsFullBuild(f"{name} may be set by the base image")
        value = self.known[name]
        if isinstance(value, NeedsFullBuild):
            raise NeedsFullBuild(value.reason)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class Scope:
    """The state of one stage while its instructions are gone through.

    `directories` are the absolute paths that are known to be directories in the image."""

    def __init__(self, dockerfile: Dockerfile, args: Mapping[str, str]) -> None:
        self._escape = dockerfile.directives.get("escape", "\\")
        self._args = args
        self._outer = outer_arguments(dockerfile, args).known
        self._variables = Variables({}, complete=False)
        self._env: dict[str, str | NeedsFullBuild] = {}
        self._workdir: str | None = None
        self.directories: set[str] = {"/"}

    def start(self, env: Mapping[str, str], workdir: str) -> None:
        """Begin with what the base image says."""
        self._env = {"PATH": PATH, **env}
        self._variables.complete = True
        self._workdir = joined("/", workdir)

    def enter_stage(self) -> None:
        """Go on with a stage that starts here: ENV hides what an ARG said in the one before."""
        self._variables.known |= self._env

    def expand(self, word: str) -> str:
        """Raises `NeedsFullBuild`."""
        return expand(word, self._variables, self._escape)

    def path(self, text: str) -> str:
        """An absolute, clean path in the image. Raises `NeedsFullBuild`."""
        if not text.startswith("/") and self._workdir is None:
            raise NeedsFullBuild(f"{text or '.'} is relative to the base image's WORKDIR")
        return joined(self._workdir or "/", text)

    def note_directory(self, path: str) -> None:
        """Take it that `path` is a directory from here on, and all above it."""
        while path not in self.directories:
            self.directories.add(path)
            path = path.rpartition("/")[0] or "/"

    def replay(self, instruction: Instruction) -> None:
        """Follow an instruction other than COPY and ADD. Raises `NeedsFullBuild`."""
        if instruction.keyword == "ENV":
            self._replay_env(instruction)
        elif instruction.keyword == "ARG":
            self._replay_arg(instruction)
        elif instruction.keyword == "WORKDIR":
            self._workdir = self.path(self.expand(instruction.value))
            self.note_directory(self._workdir)

    def _attempt(self, word: str, variables: Mapping[str, str]) -> str | NeedsFullBuild:
        try:
            return expand(word, variables, self._escape)
        except NeedsFullBuild as needed:
            return needed

    def _replay_env(self, instruction: Instruction) -> None:
        words = split(instruction.value, self._escape)
        if words and "=" not in words[0]:
            # The old form, of one name and all the rest.
            name, *rest = _SPACE.split(instruction.value, maxsplit=1)
            words = [f"{name}={''.join(rest)}"]
        pairs = {
            self.expand(name): self._attempt(value, self._variables)
            for name, _, value in (word.partition("=") for word in words)
        }
        self._env |= pairs
        self._variables.known |= pairs

    def _replay_arg(self, instruction: Instruction) -> None:
        before = Variables(self._variables.known, complete=self._variables.complete)
        for word in split(instruction.value, self._escape):
            name, equals, default = word.partition("=")
            value: str | NeedsFullBuild | None = None
            if name.startswith("BUILDKIT_"):
                value = NeedsFullBuild(f"{name} is the builder's")
            elif name in self._args:
                value = self._args[name]
            elif equals:
                value = self._attempt(default, self._variables)
                if value != self._attempt(default, before) and isinstance(value, str):
                    value = NeedsFullBuild(f"{name} is made of what the same ARG says")
            else:
                value = self._outer.get(name)
            if value is None:
                continue
            if name in self._env and self._env[name] != value:
                # What is documented is not what all releases do.
                value = NeedsFullBuild(f"{name} is an ENV and an ARG")
            self._variables.known[name] = value


def outer_arguments(
    dockerfile: Dockerfile, args: Mapping[str, str], platform: Mapping[str, str] | None = None
) -> Variables:
    """The ARGs before the first FROM that have a value, as FROM sees them. `platform` is what
    BuildKit says of platforms; with it, what cannot be known here is raised at once."""
    escape = dockerfile.directives.get("escape", "\\")
    outer = Variables({"TARGETSTAGE": NeedsFullBuild("TARGETSTAGE depends on the target")})
    known = outer.known
    known |= {name: NeedsFullBuild(f"{name} depends on the platform") for name in _PLATFORM}
    known |= platform or {}
    known |= {name: value for name, value in args.items() if name in known}
    for instruction in dockerfile.arguments:
        for word in split(instruction.value, escape):
            name, equals, default = word.partition("=")
            if name in args:
                known[name] = args[name]
            elif equals:
                try:
                    known[name] = expand(default, outer, escape)
                except NeedsFullBuild as needed:
                    if platform is not None:
                        raise
                    known[name] = needed
    return outer


def stages_of(
    dockerfile: Dockerfile, target: str | None, args: Mapping[str, str]
) -> tuple[Stage, ...]:
    """The target's stage, the one it starts from before it, and so on. Raises `NeedsFullBuild`."""
    if dockerfile.custom_syntax:
        raise NeedsFullBuild("the Dockerfile names a frontend of its own")
    if dockerfile.problems:
        problem = dockerfile.problems[0]
        raise NeedsFullBuild(f"line {problem.line}: {problem.message}")
    stage = dockerfile.stage(target) if target else (dockerfile.stages or (None,))[-1]
    if stage is None:
        raise NeedsFullBuild(f"there is no stage {target or ''}".rstrip())
    outer = outer_arguments(dockerfile, args)
    found = [stage]
    while True:
        name = expand(found[0].base, outer, dockerfile.directives.get("escape", "\\"))
        earlier = dockerfile.stages[: found[0].index]
        below = [s for s in earlier if s.name and s.name.lower() == name.lower()]
        if not below:
            return tuple(found)
        if below[-1].name.lower() != name:
            # Only the name that is asked for is taken as it stands.
            raise NeedsFullBuild(f"FROM {name} writes the name of a stage in another way")
        if any(i.keyword == "ONBUILD" for i in below[-1].instructions):
            raise NeedsFullBuild(f"the stage {name} has ONBUILD triggers")
        found.insert(0, below[-1])


def words_of(instruction: Instruction) -> list[str]:
    """The words of a COPY or ADD, or the strings of its JSON form. Raises `NeedsFullBuild`."""
    found = json_form(instruction)
    # What only looks like JSON is a pattern, more likely: BuildKit goes on with words then.
    return _SPACE.split(instruction.value) if found is None else found
