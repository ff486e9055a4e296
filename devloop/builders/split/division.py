"""Where a Dockerfile is cut in two: the part that a builder has to make, and the COPYs after it.

The upper part are local COPYs and ADDs at the end of the final stage and what configures the image
between and after them; nothing runs on what they bring. All else is the builder's. Pure: by the
Dockerfile alone; whether the upper part can really be made without a builder, its maker says.
"""

from __future__ import annotations

import re
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import CONFIGURING
from devloop.builders.image.text import Scope, split, stages_of
from devloop.builders.named_contexts import check_stages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage
    from devloop.builders.image.image_config import ImageConfig
    from devloop.config.builds import Build


_COPYING = ("ADD", "COPY")
_LAYERS = frozenset({"ADD", "COPY", "RUN", "WORKDIR"})
# An ADD of these may be of what is not in the context.
_PERHAPS_REMOTE = ("://", "@", "$")
# What these stand for depends on where the builder runs.
_BUILDERS_OWN = re.compile(r"\b(?:TARGET|BUILD)(?:PLATFORM|OS|ARCH|VARIANT|STAGE)\b|\bBUILDKIT_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """`upper` are the last instructions of `stage`, a COPY or ADD the first of them.

    `args` are the ARGs of the lower part with a value, `doubtful` those whose value only the
    builder knows. `cmd` says whether the lower part of `stage` has set a CMD."""

    dockerfile: Dockerfile
    stage: Stage
    upper: tuple[Instruction, ...]
    args: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    doubtful: frozenset[str] = frozenset()
    cmd: bool = False

    @property
    def patterns(self) -> tuple[str, ...]:
        """What the COPYs of the upper part read from the context."""
        return tuple(source for instruction in self.upper for source in instruction.sources)

    def lower(self, text: str) -> str:
        """The Dockerfile `text` without the upper part; no line moves."""
        gone = {number for i in self.upper for number in range(i.start, i.end + 1)}
        lines = enumerate(text.split("\n"), 1)
        return "\n".join("" if number in gone else line for number, line in lines)

    def check(self, config: ImageConfig) -> None:
        """Raise `NeedsFullBuild` when the upper part names a variable that is in doubt in the
        image of the lower part, whose `config` it is."""
        # BuildKit's releases differ in which of the two later words see.
        env = config.env
        both = {name for name, value in self.args.items() if env.get(name, value) != value}
        for name in sorted(both | self.doubtful):
            if _names(self.upper, name):
                raise NeedsFullBuild(f"only the builder knows what {name} is")


def divide(dockerfile: Dockerfile, build: Build) -> Division:
    """Raises `NeedsFullBuild` for a Dockerfile that has no COPY to cut off, and for one that is not
    understood."""
    if build.platforms:
        raise NeedsFullBuild("several platforms at once")
    check_stages(dockerfile, build, "Dockerfile")
    for name in build.args:
        if name.startswith("BUILDKIT_") or name == "SOURCE_DATE_EPOCH":
            raise NeedsFullBuild(f"the build argument {name} is the builder's")
    chain = stages_of(dockerfile, build.target, build.args)
    stage = chain[-1]
    upper = _upper(stage)
    lower = [i for each in chain for i in each.instructions[1:] if i not in upper]
    if chain[0].base == "scratch" and _LAYERS.isdisjoint(i.keyword for i in lower):
        raise NeedsFullBuild("there is nothing below the COPYs")
    if any(_BUILDERS_OWN.search(instruction.raw) for instruction in upper):
        raise NeedsFullBuild("a COPY may depend on the builder's platform")
    args, doubtful = _arguments(dockerfile, chain, lower, build.args)
    return Division(
        dockerfile=dockerfile,
        stage=stage,
        upper=upper,
        args=args,
        doubtful=doubtful,
        cmd=any(i.keyword == "CMD" and i.stage == stage.index for i in lower),
    )


def _upper(stage: Stage) -> tuple[Instruction, ...]:
    found: list[Instruction] = []
    for instruction in reversed(stage.instructions[1:]):
        if not _needs_no_builder(instruction):
            break
        found.insert(0, instruction)
    # What configures before the first COPY is in good hands with the builder.
    while found and found[0].keyword not in _COPYING:
        found.pop(0)
    if not found:
        raise NeedsFullBuild("no COPY of local files is the last thing that is done")
    return tuple(found)


def _needs_no_builder(instruction: Instruction) -> bool:
    if instruction.heredocs or "<<" in instruction.value:
        return False
    if instruction.keyword in CONFIGURING:
        return True
    if instruction.keyword not in _COPYING or instruction.flag("from") is not None:
        return False
    remote = instruction.keyword == "ADD" and any(c in instruction.value for c in _PERHAPS_REMOTE)
    return not remote


def _arguments(
    dockerfile: Dockerfile,
    chain: Sequence[Stage],
    lower: Sequence[Instruction],
    given: Mapping[str, str],
) -> tuple[dict[str, str], frozenset[str]]:
    """The ARGs that `lower` declares: those with a value, and those that are in doubt."""
    scope = Scope(dockerfile, given)
    names: set[str] = set()
    for stage in chain:
        scope.enter_stage()
        for instruction in (i for i in lower if i.stage == stage.index):
            if instruction.keyword in ("ARG", "ENV"):
                scope.replay(instruction)
            if instruction.keyword == "ARG":
                names.update(_declared(dockerfile, instruction))
    args, doubtful = {}, set()
    for name in names:
        try:
            args[name] = scope.expand(f"${{{name}}}")
        except NeedsFullBuild:
            doubtful.add(name)
    return args, frozenset(doubtful)


def _declared(dockerfile: Dockerfile, instruction: Instruction) -> Iterator[str]:
    for word in split(instruction.value, dockerfile.directives.get("escape", "\\")):
        yield word.partition("=")[0]


def _names(instructions: Sequence[Instruction], name: str) -> bool:
    pattern = re.compile(rf"\b{re.escape(name)}\b")
    return any(pattern.search(instruction.raw) for instruction in instructions)
