"""Which changes of the context need no builder, by the Dockerfile alone.

A changed file may go straight into a layer when nothing runs on it: only COPYs of the final stage
read it, with no RUN after them. Who reads what is judged by the names in the instructions, broadly:
what might read a path does. No file and no image is looked at here.
"""

from __future__ import annotations

import fnmatch
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.build.inprocess.copies import stage_copies
from devloop.build.inprocess.unprovable import Unprovable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from devloop.build.dockerfile import Dockerfile, Instruction, Stage
    from devloop.build.inprocess.copies import Copy, StageState

__all__ = ["Rules", "may_match", "rules"]

# What makes a pattern more than names and the wildcards * and ?.
_HARD = frozenset("$\\\"'[")

# What adds a layer to an image; builders differ in whether an instruction without effect does.
_LAYERS = frozenset({"ADD", "COPY", "RUN", "WORKDIR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """`patterns` are read from the context, which makes a full build necessary; `words` say who."""

    patterns: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`copies` are the COPYs on which nothing runs, the lowest first; their layers are among the
    `depth` uppermost of the image. No more than `own` layers come from the Dockerfile."""

    copies: tuple[Copy, ...]
    depth: int
    own: int
    readers: tuple[_Reader, ...]

    def check(self, changed: Iterable[str]) -> None:
        """Raise `Unprovable` when something other than the `copies` reads one of the paths, which
        are relative to the context."""
        if not self.readers:
            return
        for path in sorted(changed):
            for reader in self.readers:
                if any(may_match(pattern, path) for pattern in reader.patterns):
                    raise Unprovable(f"{reader.words} reads {path}")


def rules(
    dockerfile: Dockerfile,
    target: str | None,
    args: Mapping[str, str],
    base: StageState | None,
    shown: str,
) -> Rules:
    """`shown` is the Dockerfile as the user would type it, `base` what is known of the image that
    the final stage starts from. Raises `Unprovable` for a Dockerfile that is not understood."""
    if dockerfile.custom_syntax:
        raise Unprovable(f"{shown} names a frontend of its own")
    if dockerfile.problems:
        raise Unprovable(f"{shown}:{dockerfile.problems[0].line} is not understood")
    for name in sorted(args):
        if name.startswith("BUILDKIT_"):
            raise Unprovable(f"the build argument {name} is the builder's")
    needed = dockerfile.needed(target)
    final = needed[-1] if needed else None
    if final is None or (target and dockerfile.stage(target) is None):
        raise Unprovable(f"{shown} has no stage {target or ''}".rstrip())
    for stage in needed:
        origin = dockerfile.stage(stage.base)
        triggers = [i for i in origin.instructions if i.keyword == "ONBUILD"] if origin else []
        if triggers:
            raise Unprovable(f"{shown}:{triggers[0].start} ONBUILD runs in another stage")
    runs = [i for i in final.instructions if i.keyword == "RUN"]
    after = runs[-1].start if runs else 0
    copies = tuple(
        copy
        for copy in stage_copies(dockerfile, target, args, base)
        if copy.instruction.start > after
    )
    layers = [i for i in final.instructions if i.keyword in _LAYERS]
    first = copies[0].instruction.start if copies else final.instructions[-1].end + 1
    return Rules(
        copies=copies,
        depth=sum(1 for i in layers if i.start >= first),
        own=_own(dockerfile, final),
        readers=tuple(_readers(needed, final, shown)),
    )


def _own(dockerfile: Dockerfile, final: Stage) -> int:
    """How many layers the stage and those that it starts from can have."""
    count = 0
    stage: Stage | None = final
    while stage is not None:
        count += sum(1 for i in stage.instructions if i.keyword in _LAYERS)
        beneath = dockerfile.stage(stage.base)
        stage = beneath if beneath is not None and beneath.index < stage.index else None
    return count


def _readers(needed: Iterable[Stage], final: Stage, shown: str) -> Iterator[_Reader]:
    for stage in needed:
        whose = "" if stage is final else f" of stage {stage.name or stage.index}"
        runs = [i for i in stage.instructions if i.keyword == "RUN"]
        for instruction in stage.instructions:
            if not instruction.sources:
                continue
            by = _run_on(instruction, runs)
            if stage is not final:
                by = by or instruction
            if by is not None:
                yield _Reader(
                    patterns=instruction.sources,
                    words=f"{shown}:{by.start} {by.keyword}{whose}",
                )


def _run_on(instruction: Instruction, runs: Iterable[Instruction]) -> Instruction | None:
    """The RUN that works on what `instruction` reads."""
    if instruction.keyword == "RUN":
        return instruction
    return next((run for run in runs if run.start > instruction.start), None)


def may_match(pattern: str, path: str) -> bool:
    """Whether an instruction that names `pattern` may read `path`, or something in or above it."""
    if "**" in pattern or not _HARD.isdisjoint(pattern):
        return True
    clean = posixpath.normpath("/" + pattern).lstrip("/")
    if not clean:
        return True
    return all(
        fnmatch.fnmatchcase(name, part)
        for part, name in zip(clean.split("/"), path.split("/"), strict=False)
    )
