"""Words of a Dockerfile: quotes and escapes taken away, lines split, and what variables stand for
where ENV, ARG and WORKDIR are replayed.

Pure; no shell is asked, and nothing is known here of what words mean. The rules are those of
BuildKit's shell lexer (frontend/dockerfile/shell/lex.go), of its line parser (parseWords in
parser/line_parsers.go) and of dispatchEnv, dispatchArg and dispatchWorkdir. What BuildKit refuses,
or what only some of its releases know, is `NeedsFullBuild`; so is a variable whose value cannot be
known here, where a word asks for it, not before.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What BuildKit sets PATH to where an image does not."""

_SPECIAL = "@*#?-$!"
_SPACE = re.compile(r"[\t\v\f\r ]+")
# BuildKit gives a value to these, which depends on the platform and the target.
_PLATFORM = tuple(
    f"{prefix}{what}"
    for prefix in ("TARGET", "BUILD")
    for what in ("PLATFORM", "OS", "ARCH", "VARIANT")
)


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """`word` as BuildKit takes it: quotes and escapes are gone, $X, ${X}, ${X:-d}, ${X:+d}, ${X-d},
    ${X+d}, ${X:?m} and ${X?m} are replaced; a variable that is not set is empty.

    `escape` is the file's escape character. Raises `NeedsFullBuild` for an open quote or brace, for
    a variable that has to be set and is not, and for the forms that replace parts of a value."""
    if "$" not in word and escape not in word and '"' not in word and "'" not in word:
        return word
    return _Lexer(word, variables, escape).until("")


class _Lexer:
    def __init__(self, word: str, variables: Mapping[str, str], escape: str) -> None:
        self._word = word
        self._variables = variables
        self._escape = escape
        self._at = 0

    def _peek(self) -> str:
        return self._word[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _refused(self, why: str) -> NeedsFullBuild:
        return NeedsFullBuild(f"the word {self._word} {why}")

    def until(self, stop: str) -> str:
        """Up to `stop`, which is taken too; "" stands for the end."""
        quoted = stop == '"'
        found: list[str] = []
        while char := self._peek():
            if char == stop:
                self._next()
                return "".join(found)
            if char == "'" and not quoted:
                found.append(self._single())
                continue
            if char == "$":
                found.append(self._dollar())
                continue
            self._next()
            if char == '"':
                char = self.until('"')
            # Inside double quotes the escape character stands for itself before anything else.
            elif char == self._escape and (not quoted or self._peek() in ('"', "$", char)):
                char = self._next()
            found.append(char)
        if stop:
            raise self._refused("has an open quote" if quoted else f"has no closing {stop}")
        return "".join(found)

    def _single(self) -> str:
        end = self._word.find("'", self._at + 1)
        if end < 0:
            raise self._refused("has an open quote")
        found = self._word[self._at + 1 : end]
        self._at = end + 1
        return found

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        if self._peek() in ("", "{", "}", ":"):
            raise self._refused("is no substitution")
        name = self._name()
        kind = self._next()
        if kind == "}":
            return self._variables.get(name, "")
        null_is_unset = kind == ":"
        if null_is_unset:
            kind = self._next()
        if kind not in ("-", "+", "?"):
            raise self._refused("has a substitution that is not known here")
        other = self.until("}")
        value = self._variables.get(name)
        unset = value is None or (null_is_unset and not value)
        if kind == "+":
            return "" if unset else other
        if unset and kind == "?":
            raise self._refused(f"needs {name}")
        return other if value is None or unset else value

    def _name(self) -> str:
        first = self._peek()
        if first and first in _SPECIAL:
            return self._next()
        start = self._at
        if first.isdecimal():
            while self._peek().isdecimal():
                self._next()
        else:
            while (char := self._peek()) and (char == "_" or char.isalpha() or char.isdecimal()):
                self._next()
        return self._word[start : self._at]


def json_form(instruction: Instruction) -> list[str] | None:
    """The strings of an instruction's JSON form, None when it is not that. Raises
    `NeedsFullBuild`."""
    value = instruction.value
    if not value.startswith("["):
        return None
    try:
        found, end = json.JSONDecoder().raw_decode(value)
    except ValueError:
        return None
    if value[end:].strip():
        raise NeedsFullBuild(f"{instruction} is not understood: there is more after its JSON list")
    if not all(isinstance(item, str) for item in found):
        raise NeedsFullBuild(f"{instruction} is not understood: its list has more than strings")
    return list(found)


def split(text: str, escape: str = "\\") -> list[str]:
    """The words of an ENV, LABEL or ARG, with their quotes and escapes still in them."""
    found: list[str] = []
    word, quote, inside, at = "", "", False, 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if inside:
                found.append(word)
                word, inside = "", False
            continue
        inside = True
        if char == escape and quote != "'":
            if at == len(text):
                # An escape that is the last thing of all is dropped.
                continue
            word += char + text[at]
            at += 1
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        word += char
    return [*found, word] if inside and word else found


def joined(*parts: str) -> str:
    """An absolute, clean path. POSIX lets two slashes at the start stand; Go does not."""
    return "/" + posixpath.normpath(posixpath.join(*parts)).lstrip("/")


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
        self.enter_stage()

    def enter_stage(self) -> None:
        """Go on with a stage that starts here: ENV hides what an ARG said in the one before."""
        self._variables.known |= self._env

    def value(self, name: str) -> str | None:
        """What a variable stands for: "" where that is in doubt, None where nothing sets it."""
        found = self._variables.known.get(name)
        return "" if isinstance(found, NeedsFullBuild) else found

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
        while path and path not in self.directories:
            self.directories.add(path)
            path = path.rpartition("/")[0]

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
