"""Which changes of the context need no builder, by the Dockerfile alone.

A changed file may go straight into a layer when nothing runs on it: only COPYs of the final stage
read it, with no RUN after them. Who reads what is judged by the names in the instructions, broadly:
what might read a path does. No file and no image is looked at here.

Nor does a `builder: command` count that does more than build the Dockerfile as it stands: a script
may compile first and copy the result; then a changed source means more than a changed layer, and
nothing in the image would show it. Only commands that are plainly a build are believed.
"""

from __future__ import annotations

import itertools
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.context_reads import first_read
from devloop.builders.image.copies import stage_copies
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import stages_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage
    from devloop.builders.image.copies import Copy, StageState


# What adds a layer to an image; builders differ in whether an instruction without effect does.
_LAYERS = frozenset({"ADD", "COPY", "RUN", "WORKDIR"})

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})
_BUILDERS = frozenset({"docker", "podman", "nerdctl", "buildah"})
_VERBS = frozenset({"build", "push", "tag", "bud"})
# What makes the image of something else than the Dockerfile and the context that devloop knows.
_OTHERWISE = ("-f", "--file", "--target", "--build-arg", "--build-context", "--squash", "--no-")


@dataclass(frozen=True, slots=True, kw_only=True)
class _InstructionReader:
    """`patterns` are read from the context, which makes a full build necessary; `shown` is
    where."""

    patterns: tuple[str, ...]
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`copies` are the COPYs on which nothing runs, the lowest first; their layers are among the
    `depth` uppermost of the image. No more than `own` layers come from the Dockerfile."""

    copies: tuple[Copy, ...]
    depth: int
    own: int
    readers: tuple[_InstructionReader, ...]

    @property
    def patterns(self) -> tuple[str, ...]:
        """All that the Dockerfile reads from the context."""
        found = [copy.instruction.sources for copy in self.copies]
        found += [reader.patterns for reader in self.readers]
        return tuple(dict.fromkeys(itertools.chain(*found)))

    def check(self, changed: Iterable[str], links: Iterable[str] = ()) -> None:
        """Raise `NeedsFullBuild` when something other than the `copies` reads one of the paths,
        which are relative to the context; `links` are the symlinks there."""
        for reader in self.readers:
            path = first_read(reader.patterns, changed, links)
            if path is not None:
                raise NeedsFullBuild(f"{reader.shown} reads {path}")


def rules(
    dockerfile: Dockerfile,
    target: str | None,
    args: Mapping[str, str],
    base: StageState | None,
    shown: str,
) -> Rules:
    """`shown` is the Dockerfile as the user would type it, `base` what is known of the image that
    the final stage starts from. Raises `NeedsFullBuild` for a Dockerfile that is not understood."""
    if dockerfile.custom_syntax:
        raise NeedsFullBuild(f"{shown} names a frontend of its own")
    if dockerfile.problems:
        raise NeedsFullBuild(f"{shown}:{dockerfile.problems[0].line} is not understood")
    for name in sorted(args):
        if name.startswith("BUILDKIT_"):
            raise NeedsFullBuild(f"the build argument {name} is the builder's")
    stages = _Stages(dockerfile, target, args, shown)
    mine = [i for i in stages.line if i.start > stages.last_used]
    copies = tuple(
        copy
        for copy in stage_copies(dockerfile, target, args, base)
        if copy.instruction.start > stages.last_used
    )
    first = copies[0].instruction.start if copies else mine[-1].end + 1 if mine else 0
    return Rules(
        copies=copies,
        depth=sum(1 for i in mine if i.keyword in _LAYERS and i.start >= first),
        own=sum(1 for i in stages.line if i.keyword in _LAYERS),
        readers=tuple(stages.readers()),
    )


class _Stages:
    """The stages that the target is made from. `line` are the instructions of the target's stage
    and of those that it starts from, in order; nothing after the line number `last_used` is read
    by anything else in the build."""

    def __init__(
        self, dockerfile: Dockerfile, target: str | None, args: Mapping[str, str], shown: str
    ) -> None:
        self._shown = shown
        self._chain = stages_of(dockerfile, target, args)
        self._final = self._chain[-1]
        # Those that are read from elsewhere, and all that they start from.
        self._used: dict[int, Stage] = {}
        queue = list(self._chain)
        while queue:
            stage = queue.pop()
            for name in self._origins(stage):
                other = dockerfile.stage(name)
                if other is None or other.index >= stage.index:
                    continue
                found = stages_of(dockerfile, str(other.index), args)
                queue += [s for s in found if s.index not in self._used]
                self._used |= {s.index: s for s in found}
        self.line = [i for stage in self._chain for i in stage.instructions[1:]]
        runs = [i.start for i in self.line if i.keyword == "RUN"]
        shared = [s.instructions[-1].end for s in self._chain if s.index in self._used]
        self.last_used = max([0, *shared, *runs])

    def _origins(self, stage: Stage) -> Iterator[str]:
        for instruction in stage.instructions[1:]:
            mounts = [m["from"] for m in instruction.mounts if m.get("from")]
            for name in (instruction.flag("from") or "", *mounts):
                if "$" in name:
                    line = f"{self._shown}:{instruction.start}"
                    raise NeedsFullBuild(f"{line} {instruction.keyword} takes from {name}")
                yield name

    def readers(self) -> Iterator[_InstructionReader]:
        """Who reads from the context, apart from the COPYs after `last_used`: where a RUN follows,
        that, as it has what was copied."""
        chain = {stage.index for stage in self._chain}
        others = [list(s.instructions) for s in self._used.values() if s.index not in chain]
        for group in (self.line, *others):
            runs = [i for i in group if i.keyword == "RUN"]
            for instruction in filter(lambda i: i.sources, group):
                by = instruction
                if instruction.keyword != "RUN":
                    if group is self.line and instruction.start > self.last_used:
                        continue
                    later = (run for run in runs if run.start > instruction.start)
                    by = next(later, instruction)
                yield self._reader(by, instruction.sources)

    def _reader(self, by: Instruction, patterns: tuple[str, ...]) -> _InstructionReader:
        stages = {s.index: s for s in (*self._chain, *self._used.values())}
        stage = stages[by.stage]
        whose = "" if stage is self._final else f" of stage {stage.name or stage.index}"
        return _InstructionReader(
            patterns=patterns, shown=f"{self._shown}:{by.start} {by.keyword}{whose}"
        )


def is_plain_build(argv: Sequence[str], root: Path, context: Path) -> bool:
    """Whether `argv`, run in `root`, is `docker build CONTEXT` (or another builder's) and pushes,
    perhaps as `sh -c 'docker build ... && docker push ...'`."""
    commands = list(_commands(argv))
    if not commands or not all(_plain(words) for words in commands):
        return False
    built = [words for words in commands if "build" in words or "bud" in words]
    return bool(built) and all(_place(words, root) == context for words in built)


def _commands(argv: Sequence[str]) -> Iterator[list[str]]:
    if len(argv) == 3 and Path(argv[0]).name in _SHELLS and argv[1].strip("-eux") == "c":
        try:
            lexer = shlex.shlex(argv[2].replace("\n", ";"), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            yield [""]
            return
        for ends, command in itertools.groupby(words, lambda word: word in ("&&", ";")):
            if not ends:
                yield list(command)
    else:
        yield list(argv)


def _plain(words: Sequence[str]) -> bool:
    if not words:
        return False
    if words[0] == "set":
        return True
    if Path(words[0]).name not in _BUILDERS:
        return False
    if any(set(word) <= set("|&;()<>") or "`" in word or "$(" in word for word in words):
        return False
    if any(word.startswith(_OTHERWISE) for word in words):
        return False
    rest = [word for word in words[1:] if word not in ("buildx", "image")]
    return bool(rest) and rest[0] in _VERBS


def _place(words: Sequence[str], root: Path) -> Path | None:
    """The context: the last word, which has to be a directory."""
    path = Path(os.path.normpath(root / words[-1]))
    return path if path.is_dir() else None
