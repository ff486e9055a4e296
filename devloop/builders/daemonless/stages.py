"""What the stages of a Dockerfile come to, instruction by instruction, where none of them runs.

From Dockerfile, snapshot and base images to a config and the entries of layers. The only bytes that
are read are those of /etc/passwd and /etc/group. Making layers and sending them is full.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from devloop.base.file_content import VerifiedFiles
from devloop.base.platforms import own_platform
from devloop.builders.daemonless.file_tree import Tree
from devloop.builders.dockerfile import Dockerfile, Stage
from devloop.builders.image.copies import StageState, place, stage_copies
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import (
    CONFIGURING,
    ImageConfig,
    InstructionText,
    apply_instruction,
    platform_arguments,
    scratch,
    started,
)
from devloop.builders.image.tar_writer import reading_context
from devloop.builders.image.text import expand, split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.builders.dockerfile import Instruction
    from devloop.builders.image.base_image import Base
    from devloop.builders.image.copies import Copy, FileEntry
    from devloop.builders.image.listing import Listing
    from devloop.config.schema import Build
    from devloop.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class StageImage:
    """A stage. `layers` are the entries of the layers over those of `base`, the lowest first; None
    stands for FROM scratch."""

    base: Base | None
    config: ImageConfig
    tree: Tree
    layers: tuple[tuple[FileEntry, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageImages:
    """The images that stages start from: by name and platform, and the paths in one."""

    find: Callable[[str, str], Base]
    listing: Callable[[Base], Listing]


def make(
    dockerfile: Dockerfile, build: Build, snapshot: Snapshot, images: StageImages
) -> StageImage:
    """The target stage. Raises `NeedsFullBuild`, and what `images` raises."""
    maker = _Maker(dockerfile, build, snapshot, images)
    target = dockerfile.stage(build.target) if build.target else dockerfile.stages[-1]
    if target is None:
        raise NeedsFullBuild(f"there is no stage {build.target}")
    return maker.stage(target)


class _Maker:
    def __init__(
        self, dockerfile: Dockerfile, build: Build, snapshot: Snapshot, images: StageImages
    ) -> None:
        self._dockerfile = dockerfile
        self._build = build
        self._snapshot = snapshot
        self._images = images
        self._platform = build.platform or own_platform()
        self._escape = dockerfile.directives.get("escape", "\\")
        self._outer = self._arguments()
        self._made: dict[int, StageImage] = {}

    def _expand(self, word: str, variables: Mapping[str, str]) -> str:
        return expand(word, variables, self._escape)

    def _arguments(self) -> dict[str, str]:
        """The variables that FROM may name."""
        found = platform_arguments(self._platform, own_platform()) | {
            key: value
            for key, value in self._build.args.items()
            if key in platform_arguments(self._platform, own_platform())
        }
        for instruction in self._dockerfile.arguments:
            for declaration in split(instruction.value, self._escape):
                name, equals, default = declaration.partition("=")
                if name in self._build.args:
                    found[name] = self._build.args[name]
                elif equals:
                    found[name] = self._expand(default, found)
        return found

    def stage(self, stage: Stage) -> StageImage:
        if stage.index not in self._made:
            made = self._from(stage)
            for instruction in stage.instructions[1:]:
                made = self._next(made, instruction, stage)
            self._made[stage.index] = made
        return self._made[stage.index]

    def _from(self, stage: Stage) -> StageImage:
        name = self._expand(stage.base, self._outer)
        platform = self._expand(stage.platform, self._outer) or self._platform
        if platform != self._platform:
            raise NeedsFullBuild(f"FROM {name} is for another platform, {platform}")
        if name == "scratch":
            return StageImage(base=None, config=scratch(platform), tree=Tree())
        before = [s for s in self._dockerfile.stages[: stage.index] if s.name]
        if any(s.name.lower() == name.lower() for s in before):
            found = [s for s in before if s.name.lower() == name]
            if not found:
                raise NeedsFullBuild(f"FROM {name} writes the name of a stage in another way")
            made = self.stage(found[-1])
            if made.config.config.get("OnBuild"):
                raise NeedsFullBuild(f"the stage {name} has ONBUILD triggers")
            # ARGs go on into it; whether there was a CMD is asked of each stage alone.
            return replace(made, config=replace(made.config, cmd=False))
        base = self._images.find(name, platform)
        config = started(base.image.config)
        return StageImage(base=base, config=config, tree=Tree(base=self._images.listing(base)))

    def _next(self, made: StageImage, instruction: Instruction, stage: Stage) -> StageImage:
        if instruction.keyword in ("COPY", "ADD"):
            return self._copy(made, instruction, stage)
        if instruction.keyword not in CONFIGURING:
            raise NeedsFullBuild(f"line {instruction.start}: {instruction.keyword}")
        text = InstructionText(
            expand=self._expand, escape=self._escape, given=self._build.args, outer=self._outer
        )
        after = replace(made, config=apply_instruction(made.config, instruction, text))
        if instruction.keyword != "WORKDIR" or after.config.workdir == "/":
            return after
        user = after.config.user
        owner = made.tree.owner(user, self._read) if user else (0, 0)
        tree, entries = made.tree.with_directories(after.config.workdir, owner)
        if not entries:
            return after
        history = made.config.with_history(f"WORKDIR {after.config.workdir}", layer=True).history
        return replace(
            after,
            config=replace(after.config, history=history),
            tree=tree,
            layers=(*made.layers, entries),
        )

    def _copy(self, made: StageImage, instruction: Instruction, stage: Stage) -> StageImage:
        origin = instruction.flag("from")
        bare = replace(
            instruction, flags=tuple(flag for flag in instruction.flags if flag[0] != "from")
        )
        copy = self._understood(made, bare)
        source = None if origin is None else self._origin(origin, instruction, stage)
        landing = self._landing(made.tree, copy)
        owner = self._owner(made.tree, copy)
        if source is None:
            placed = place(landing, self._snapshot, owner, self._head)
        else:
            placed = _from_stage(source.tree, landing, owner)
        tree, entries = made.tree.with_layer(placed, link=copy.link)
        return replace(
            made,
            config=made.config.with_history(_created_by(copy), layer=True),
            tree=tree,
            layers=(*made.layers, entries),
        )

    def _understood(self, made: StageImage, instruction: Instruction) -> Copy:
        """The instruction by itself, with the variables as they are here."""
        begin = replace(instruction, keyword="FROM", value="base", flags=(), heredocs=())
        alone = (replace(begin, stage=0), replace(instruction, stage=0))
        state = StageState(
            env=made.config.variables, workdir=made.config.workdir, user=made.config.user
        )
        stage = Stage(index=0, base="base", name="", platform="", instructions=alone)
        dockerfile = Dockerfile(
            directives=self._dockerfile.directives, instructions=alone, stages=(stage,)
        )
        return stage_copies(dockerfile, None, {}, state)[0]

    def _origin(self, origin: str, instruction: Instruction, stage: Stage) -> StageImage:
        if origin.isdecimal():
            found = [s for s in self._dockerfile.stages if s.index == int(origin)]
        else:
            found = [s for s in self._dockerfile.stages if s.name.lower() == origin.lower()]
        found = [s for s in found if s.index < stage.index]
        if not found:
            raise NeedsFullBuild(f"line {instruction.start}: {instruction.keyword} --from={origin}")
        return self.stage(found[-1])

    def _landing(self, tree: Tree, copy: Copy) -> Copy:
        """`copy` with the place that its destination really is in the image."""
        real = tree.real(copy.dest)
        if copy.link and f"/{real}" != copy.dest:
            raise NeedsFullBuild(f"COPY --link to {copy.dest}, which is a symlink")
        there = tree.find(real)
        directory = not real or (there is not None and there.type == "dir")
        # A builder that lays it over the rest does not see the directory.
        unclear = copy.unclear or (copy.link and directory and not copy.directory)
        return replace(
            copy,
            dest=f"/{real}",
            directory=copy.directory or (directory and not copy.link),
            unclear=unclear,
        )

    def _owner(self, tree: Tree, copy: Copy) -> tuple[int, int]:
        if copy.chown is None:
            return 0, 0
        if copy.link and not copy.chown.replace(":", "").isdecimal():
            raise NeedsFullBuild(f"COPY --link --chown={copy.chown}")
        return tree.owner(copy.chown, self._read)

    def _head(self, path: str) -> bytes:
        try:
            with (self._build.context / path).open("rb") as file:
                return file.read(512)
        except OSError:
            # Making the layer will say what is wrong with it.
            return b""

    def _read(self, placed: FileEntry) -> bytes:
        return read_source(self._build.context, placed)


def read_source(context: Path, placed: FileEntry) -> bytes:
    """The bytes of a small file as they were scanned. Raises build/context-changed."""
    with VerifiedFiles(context) as files, reading_context():
        return b"".join(files.read(placed.source, placed.size, placed.digest)[1])


def _from_stage(tree: Tree, copy: Copy, owner: tuple[int, int]) -> dict[str, FileEntry]:
    """COPY --from: as from a context, but owners are kept and directories above are root's."""
    placed = place(copy, tree.snapshot(copy.sources), owner)
    owners = tree.owners(copy.sources) if copy.chown is None else frozenset({owner})
    if len(owners) > 1:
        raise NeedsFullBuild("COPY --from takes files of several owners")
    uid, gid = next(iter(owners), owner)
    found = {}
    for path, entry in placed.items():
        kept = entry if entry.implied else replace(entry, uid=uid, gid=gid)
        if entry.source:
            origin = tree.placed[entry.source]
            kept = replace(kept, source=origin.source)
        found[path] = kept
    return found


def _created_by(copy: Copy) -> str:
    flags = "".join(
        f" --{name}={value}"
        for name, value in (("chown", copy.chown), ("chmod", copy.chmod))
        if value is not None
    )
    parents = " --parents" if copy.parents else ""
    sources = " ".join(copy.sources)
    return f"{copy.instruction.keyword}{parents}{flags} {sources} {copy.dest} # buildkit"
