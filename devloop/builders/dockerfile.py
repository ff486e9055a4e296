"""A model of a Dockerfile: what stands on which line and what it reads from the build context.

It exists so that a builder's error can name a line, and so that devloop knows which files a build
looks at. It must never decide whether a Dockerfile is valid: BuildKit does, and frontends named by
`# syntax=` may know more than this module. So `parse` takes any text, keeps what it does not know
as raw instructions and lists what looks wrong in `Dockerfile.problems`.

Rules of the format: https://docs.docker.com/reference/dockerfile/ and BuildKit's own parser.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from dataclasses import field, replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError, Location, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


KEYWORDS = (
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)

# The instructions that BuildKit shows as numbered steps of a stage, besides FROM.
_STEPS = frozenset({"ADD", "COPY", "RUN", "WORKDIR"})
_WITH_FLAGS = frozenset({"ADD", "COPY", "FROM", "HEALTHCHECK", "RUN"})
_WITH_HEREDOC = frozenset({"ADD", "COPY", "RUN"})

_DIRECTIVE = re.compile(r"^#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*$")
_FLAG = re.compile(r"--([A-Za-z][A-Za-z0-9-]*)(?:=(\"[^\"]*\"|'[^']*'|\S*))?(?:\s+|$)")
# As buildkit's `reHeredoc` in frontend/dockerfile/parser: any word but for `<`.
_HEREDOC = re.compile(r"(?<!\S)\d*<<(-?)(\"[^\"<\s]+\"|'[^'<\s]+'|[^<\s'\"][^<\s'\"]*)(?=\s|$)")
_REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|git@)", re.IGNORECASE)
_OFFICIAL_SYNTAX = re.compile(r"^(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::|@|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """A here-document: `<<EOF` up to a line that is `EOF`. `text` keeps its line breaks."""

    name: str
    text: str
    start: int
    end: int
    expand: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction. Lines count from 1, `end` is its last line. `raw` is the text as written,
    `value` what follows keyword and flags, with continuations joined and comments removed. Flags
    keep their order; one without `=` has the value "". `stage` is the index of the stage it belongs
    to, -1 before the first FROM."""

    keyword: str
    value: str
    raw: str
    start: int
    end: int
    column: int = 1
    flags: tuple[tuple[str, str], ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    stage: int = -1

    def flag(self, name: str) -> str | None:
        return next((value for key, value in self.flags if key == name), None)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words of `value`, or the strings of its JSON form."""
        if self.value.startswith("["):
            try:
                words = json.loads(self.value)
            except ValueError:
                words = None
            if isinstance(words, list) and all(isinstance(w, str) for w in words):
                return tuple(words)
        return tuple(self.value.split())

    @property
    def mounts(self) -> tuple[dict[str, str], ...]:
        """The `--mount` flags of a RUN as key -> value; `type` is always there."""
        found = []
        for name, value in self.flags:
            if name == "mount":
                pairs = (part.partition("=") for part in value.strip("\"'").split(","))
                found.append({"type": "bind"} | {key: val for key, _, val in pairs if key})
        return tuple(found)

    @property
    def sources(self) -> tuple[str, ...]:
        """The paths and patterns that a COPY, ADD or RUN reads from the build context."""
        if self.keyword == "RUN":
            return tuple(
                mount.get("source", mount.get("src", "."))
                for mount in self.mounts
                if mount["type"] == "bind" and "from" not in mount
            )
        if self.keyword not in ("ADD", "COPY") or self.flag("from") is not None:
            return ()
        return tuple(
            word
            for word in self.arguments[:-1]
            if not _HEREDOC.fullmatch(word) and not (self.keyword == "ADD" and _REMOTE.match(word))
        )

    @property
    def elsewhere(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What a COPY or RUN reads from other stages, images and named contexts: whose name, and
        the paths and patterns there."""
        if self.keyword == "RUN":
            return tuple(
                (mount["from"], (mount.get("source", mount.get("src", ".")),))
                for mount in self.mounts
                if mount.get("from")
            )
        origin = self.flag("from")
        return ((origin, self.arguments[:-1]),) if origin else ()

    def __str__(self) -> str:
        return " ".join(f"{self.keyword} {self.value}".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A build stage. `base` is the text after FROM (variables not replaced); `name` is "" for a
    stage without AS."""

    index: int
    base: str
    name: str
    platform: str
    instructions: tuple[Instruction, ...]

    @property
    def steps(self) -> tuple[Instruction, ...]:
        """FROM and the instructions that BuildKit numbers, in the order of its `[stage 2/5]`.

        A stage from scratch has no step for its FROM."""
        first = 1 if self.base == "scratch" else 0
        head = self.instructions[first:1]
        return head + tuple(i for i in self.instructions[1:] if i.keyword in _STEPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something the parser does not understand, at a 1-based line and column."""

    line: int
    column: int
    message: str
    suggestion: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """`directives` maps lower-case names (syntax, escape, check) to values; `arguments` holds the
    ARG instructions before the first FROM."""

    directives: dict[str, str] = field(default_factory=dict)
    instructions: tuple[Instruction, ...] = ()
    stages: tuple[Stage, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def arguments(self) -> tuple[Instruction, ...]:
        return tuple(i for i in self.instructions if i.stage < 0 and i.keyword == "ARG")

    @property
    def custom_syntax(self) -> bool:
        """Whether another frontend than Docker's reads this file."""
        syntax = self.directives.get("syntax")
        return syntax is not None and not _OFFICIAL_SYNTAX.match(syntax)

    def at(self, line: int) -> Instruction | None:
        """The instruction that covers `line`."""
        return next((i for i in self.instructions if i.start <= line <= i.end), None)

    def stage(self, name: str) -> Stage | None:
        """A stage by name (case does not matter) or by its number as text; the last one wins."""
        found = [s for s in self.stages if s.name.lower() == name.lower() != ""]
        if not found and name.isdecimal():
            found = [s for s in self.stages if s.index == int(name)]
        return found[-1] if found else None

    def needed(self, target: str | None = None) -> tuple[Stage, ...]:
        """The stages that `target` (default: the last) is made from, itself included, in order.

        A name that is not a stage (an image, a variable) needs no stage here."""
        last = self.stage(target) if target else (self.stages[-1] if self.stages else None)
        if last is None:
            return self.stages
        wanted: set[int] = set()
        queue = [last]
        while queue:
            stage = queue.pop()
            if stage.index in wanted:
                continue
            wanted.add(stage.index)
            for name in _references(stage):
                other = self.stage(name)
                # A stage can only be made from earlier ones; its own name means an image.
                if other is not None and other.index < stage.index:
                    queue.append(other)
        return tuple(s for s in self.stages if s.index in wanted)


def _references(stage: Stage) -> Iterator[str]:
    yield stage.base
    for instruction in stage.instructions:
        origin = instruction.flag("from")
        if origin:
            yield origin
        yield from (mount["from"] for mount in instruction.mounts if mount.get("from"))


def load(path: Path, shown: str) -> Dockerfile:
    """Read and parse; `shown` is the path as the user would type it, for errors.

    Raises config/dockerfile-missing and env/file-unreadable."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        raise DevloopError.of(
            Code.CONFIG_DOCKERFILE_MISSING, f"{shown} does not exist", location=Location(shown)
        ) from None
    except OSError as error:
        raise unreadable(shown, error) from None
    return parse(text)


def parse(text: str) -> Dockerfile:
    """Never raises, whatever the text."""
    lines = text.removeprefix("\ufeff").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    directives, first = _directives(lines)
    reader = _DockerfileReader(lines, "`" if directives.get("escape") == "`" else "\\")
    groups: list[list[Instruction]] = [[]]
    for instruction in reader.instructions(first):
        if instruction.keyword == "FROM":
            groups.append([])
        groups[-1].append(replace(instruction, stage=len(groups) - 2))
    result = Dockerfile(
        directives=directives,
        instructions=tuple(itertools.chain(*groups)),
        stages=tuple(itertools.starmap(_stage, enumerate(groups[1:]))),
    )
    if result.custom_syntax:
        return result
    problems = sorted((*reader.problems, *_check(result)), key=lambda p: (p.line, p.column))
    return replace(result, problems=tuple(problems))


def _directives(lines: list[str]) -> tuple[dict[str, str], int]:
    """The parser directives and the index of the first line after them."""
    found: dict[str, str] = {}
    for index, line in enumerate(lines):
        match = _DIRECTIVE.match(line)
        name = match[1].lower() if match else ""
        if not match or name not in ("syntax", "escape", "check") or name in found:
            return found, index
        found[name] = match[2]
    return found, len(lines)


class _DockerfileReader:
    """Turns lines into instructions: joins continuations, drops comments, takes heredocs."""

    def __init__(self, lines: list[str], escape: str) -> None:
        self._lines = lines
        self._continued = re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*$")
        self.problems: list[Problem] = []

    def instructions(self, index: int) -> Iterator[Instruction]:
        while index < len(self._lines):
            if _nothing_in(self._lines[index]):
                index += 1
                continue
            instruction, index = self._one(index)
            yield instruction

    def _one(self, first: int) -> tuple[Instruction, int]:
        parts: list[str] = []
        last = first
        for index in range(first, len(self._lines)):
            line = self._lines[index]
            # Comments and (with a warning from BuildKit) empty lines do not end a continuation.
            if index > first and _nothing_in(line):
                continue
            match = self._continued.search(line)
            parts.append(line[: match.start()] if match else line)
            last = index
            if not match:
                break
        word, *rest = "".join(parts).strip().split(None, 1) or [""]
        keyword, value = word.upper(), "".join(rest)
        flags, value = _flags(value) if keyword in _WITH_FLAGS else ((), value)
        heredocs: tuple[Heredoc, ...] = ()
        if keyword in _WITH_HEREDOC or (keyword == "ONBUILD" and "<<" in value):
            heredocs = self._heredocs(value, last + 1)
            last = max([last, *(h.end - 1 for h in heredocs)])
        indent = len(self._lines[first]) - len(self._lines[first].lstrip())
        instruction = Instruction(
            keyword=keyword,
            value=value,
            raw="\n".join(self._lines[first : last + 1]),
            start=first + 1,
            end=last + 1,
            column=indent + 1,
            flags=flags,
            heredocs=heredocs,
        )
        return instruction, last + 1

    def _heredocs(self, value: str, index: int) -> tuple[Heredoc, ...]:
        found = []
        for match in _HEREDOC.finditer(value):
            name = match[2].strip("\"'")
            start = index
            body = []
            while index < len(self._lines):
                line = self._lines[index].lstrip("\t") if match[1] else self._lines[index]
                index += 1
                if line == name:
                    break
                body.append(line)
            else:
                self.problems.append(
                    Problem(line=start, column=1, message=f"unterminated heredoc {name}")
                )
            found.append(
                Heredoc(
                    name=name,
                    text="".join(f"{line}\n" for line in body),
                    start=start + 1,
                    end=index,
                    expand=match[2] == name,
                )
            )
        return tuple(found)


def _nothing_in(line: str) -> bool:
    """Whether it is empty or a comment."""
    return not line.strip() or line.strip().startswith("#")


def _flags(rest: str) -> tuple[tuple[tuple[str, str], ...], str]:
    found = []
    while match := _FLAG.match(rest):
        found.append((match[1], (match[2] or "").strip("\"'")))
        rest = rest[match.end() :]
    return tuple(found), rest


def _stage(index: int, instructions: list[Instruction]) -> Stage:
    words = instructions[0].arguments
    named = len(words) >= 3 and words[1].lower() == "as"
    return Stage(
        index=index,
        base=words[0] if words else "",
        name=words[2] if named else "",
        platform=instructions[0].flag("platform") or "",
        instructions=tuple(instructions),
    )


def _check(dockerfile: Dockerfile) -> Iterator[Problem]:
    if not dockerfile.instructions:
        yield Problem(line=1, column=1, message="the file has no instructions")
        return
    for each in dockerfile.instructions:
        message, hint = _wrong_with(each)
        if message:
            yield Problem(line=each.start, column=each.column, message=message, suggestion=hint)


def _wrong_with(instruction: Instruction) -> tuple[str, str]:
    word = instruction.keyword
    if word not in KEYWORDS:
        near = difflib.get_close_matches(word, KEYWORDS, n=1)
        return f"unknown instruction: {word}", f"did you mean {near[0]}?" if near else ""
    if instruction.stage < 0 and word != "ARG":
        return f"{word} stands before the first FROM", ""
    if word == "FROM" and len(instruction.arguments) not in (1, 3):
        return "FROM takes an image, or an image AS a name", ""
    if not instruction.value and not instruction.heredocs:
        return f"{word} needs at least one argument", ""
    return "", ""
