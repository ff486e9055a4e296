"""What the words of a stage's instructions stand for: ENV, ARG and WORKDIR replayed.

Pure. Follows BuildKit's dispatchEnv, dispatchArg and dispatchWorkdir. A variable whose value cannot
be known here, or is another from one release to the next, is `NeedsFullBuild` where a word asks for
it, not before.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import expand, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SPACE = re.compile(r"[\t\v\f\r ]+")
# BuildKit gives a value to these, which depends on the platform and the target.
_PLATFORM = re.compile(r"(?:TARGET|BUILD)(?:PLATFORM|OS|ARCH|VARIANT)|TARGETSTAGE")


class _Variables(Mapping[str, str]):
    """Values by name; asking for one that is in doubt raises `NeedsFullBuild`."""

    def __init__(self) -> None:
        self.values_: dict[str, str] = {}
        self.doubtful: dict[str, str] = {}
        self.complete = True

    def __getitem__(self, name: str) -> str:
        if name in self.doubtful:
            raise NeedsFullBuild(self.doubtful[name])
        if name not in self.values_ and not self.complete:
            raise NeedsFullBuild(f"{name} may be set by the base image")
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def put(self, name: str, value: str | NeedsFullBuild) -> None:
        if isinstance(value, NeedsFullBuild):
            self.doubtful[name] = value.reason
            self.values_.pop(name, None)
        else:
            self.doubtful.pop(name, None)
            self.values_[name] = value


class Scope:
    """The state of one stage while its instructions are gone through.

    `directories` are the absolute paths that are known to be directories in the image."""

    def __init__(self, dockerfile: Dockerfile, args: Mapping[str, str]) -> None:
        self._escape = dockerfile.directives.get("escape", "\\")
        self._args = args
        self._outer = outer_arguments(dockerfile, args)
        self._variables = _Variables()
        self._variables.complete = False
        self._env: dict[str, str | NeedsFullBuild] = {}
        self._workdir: str | None = None
        self.directories: set[str] = {"/"}

    def start(self, env: Mapping[str, str], workdir: str) -> None:
        """Begin with what the base image says."""
        self._env = {"PATH": _PATH, **env}
        self._variables.complete = True
        self._workdir = _joined("/", workdir)

    def enter_stage(self) -> None:
        """Go on with a stage that starts here: ENV hides what an ARG said in the one before."""
        for name, value in self._env.items():
            self._variables.put(name, value)

    def expand(self, word: str) -> str:
        """Raises `NeedsFullBuild`."""
        return expand(word, self._variables, self._escape)

    def path(self, text: str) -> str:
        """An absolute, clean path in the image. Raises `NeedsFullBuild`."""
        if not text.startswith("/") and self._workdir is None:
            raise NeedsFullBuild(f"{text or '.'} is relative to the base image's WORKDIR")
        return _joined(self._workdir or "/", text)

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
        pairs = [
            (self.expand(name), self._attempt(value, self._variables))
            for name, _, value in (word.partition("=") for word in words)
        ]
        for name, value in pairs:
            self._env[name] = value
            self._variables.put(name, value)

    def _replay_arg(self, instruction: Instruction) -> None:
        before = _Variables()
        before.values_ = dict(self._variables.values_)
        before.doubtful = dict(self._variables.doubtful)
        before.complete = self._variables.complete
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
            self._variables.put(name, value)


def outer_arguments(
    dockerfile: Dockerfile, args: Mapping[str, str]
) -> dict[str, str | NeedsFullBuild]:
    """The ARGs before the first FROM that have a value, as FROM sees them."""
    escape = dockerfile.directives.get("escape", "\\")
    known = _Variables()
    for name in ("PLATFORM", "OS", "ARCH", "VARIANT"):
        for prefix in ("TARGET", "BUILD"):
            known.put(prefix + name, NeedsFullBuild(f"{prefix}{name} depends on the platform"))
    known.put("TARGETSTAGE", NeedsFullBuild("TARGETSTAGE depends on the target"))
    for name, value in args.items():
        if _PLATFORM.fullmatch(name):
            known.put(name, value)
    for instruction in dockerfile.arguments:
        for word in split(instruction.value, escape):
            name, equals, default = word.partition("=")
            if name in args:
                known.put(name, args[name])
            elif equals:
                try:
                    known.put(name, expand(default, known, escape))
                except NeedsFullBuild as needed:
                    known.put(name, needed)
    found: dict[str, str | NeedsFullBuild] = dict(known.values_)
    found |= {name: NeedsFullBuild(reason) for name, reason in known.doubtful.items()}
    return found


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
    outer = _Variables()
    for name, value in outer_arguments(dockerfile, args).items():
        outer.put(name, value)
    found = [stage]
    while True:
        name = expand(found[0].base, outer, dockerfile.directives.get("escape", "\\"))
        below = [
            s
            for s in dockerfile.stages[: found[0].index]
            if s.name and s.name.lower() == name.lower()
        ]
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
    text = instruction.value
    if text.startswith("["):
        try:
            words, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            # A pattern, more likely: BuildKit goes on with words then.
            return _SPACE.split(text)
        if text[end:].strip() or not all(isinstance(word, str) for word in words):
            raise NeedsFullBuild(f"line {instruction.start} is not understood")
        return list(words)
    return _SPACE.split(text)


def _joined(directory: str, path: str) -> str:
    # POSIX lets two slashes at the start stand; Go does not.
    return "/" + posixpath.normpath(posixpath.join(directory, path)).lstrip("/")
