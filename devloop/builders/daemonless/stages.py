"""What the stages of a Dockerfile come to, instruction by instruction, where none of them runs.

From Dockerfile, snapshot and base images to a config and the entries of layers. The only bytes that
are read are those of /etc/passwd and /etc/group. Making layers and sending them is images.py's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from devloop.base.file_content import VerifiedFiles
from devloop.base.lazy_dataclass import dataclass
from devloop.base.platforms import own_platform
from devloop.builders.daemonless.file_tree import Tree
from devloop.builders.image.copies import place, understood
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
from devloop.builders.image.text import Scope, expand, outer_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage
    from devloop.builders.image.base_image import Base
    from devloop.builders.image.copies import Copy, FileEntry
    from devloop.builders.image.listing import Listing
    from devloop.config.builds import Build
    from devloop.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class StageImage:
    """A stage. `layers` are the entries of the layers over those of `base`, the lowest first; None
    stands for FROM scratch."""

    base: Base | None
    config: ImageConfig
    tree: Tree
    layers: tuple[tuple[FileEntry, ...], ...] = ()


class StageMaker:
    """`find` gives the image that a stage starts from, by name and platform, `listing` the paths in
    one."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        build: Build,
        snapshot: Snapshot,
        *,
        find: Callable[[str, str], Base],
        listing: Callable[[Base], Listing],
        built_here: bool = True,
    ) -> None:
        """`built_here` says that a builder would run on this computer, so that what BuildKit says
        of platforms is known. Raises `NeedsFullBuild`."""
        self._dockerfile = dockerfile
        self._build = build
        self._snapshot = snapshot
        self._find = find
        self._listing = listing
        self._platform = build.platform or own_platform()
        escape = dockerfile.directives.get("escape", "\\")
        self._expand = partial(expand, escape=escape)
        known = platform_arguments(self._platform, own_platform()) if built_here else None
        self._outer = outer_arguments(dockerfile, build.args, known)
        self._text = InstructionText(
            expand=self._expand, escape=escape, given=build.args, outer=self._outer
        )
        self._made: dict[int, StageImage] = {}

    def target(self) -> StageImage:
        """The target stage. Raises `NeedsFullBuild`, and what `find` and `listing` raise."""
        name = self._build.target
        target = self._dockerfile.stage(name) if name else self._dockerfile.stages[-1]
        if target is None:
            raise NeedsFullBuild(f"there is no stage {name}")
        return self._stage(target)

    def carried_on(
        self, made: StageImage, stage: Stage, instructions: Iterable[Instruction]
    ) -> StageImage:
        """What `instructions` of `stage`, which follow those that came to `made`, come to. Raises
        as `target` does."""
        for instruction in instructions:
            made = self._next(made, instruction, stage)
        return made

    def _stage(self, stage: Stage) -> StageImage:
        if stage.index not in self._made:
            self._made[stage.index] = self.carried_on(
                self._from(stage), stage, stage.instructions[1:]
            )
        return self._made[stage.index]

    def _from(self, stage: Stage) -> StageImage:
        name = self._expand(stage.base, self._outer)
        platform = self._expand(stage.platform, self._outer) or self._platform
        if platform != self._platform:
            raise NeedsFullBuild(f"FROM {name} is for another platform, {platform}")
        if name == "scratch":
            return StageImage(base=None, config=scratch(platform), tree=Tree())
        before = self._dockerfile.stages[: stage.index]
        if any(s.name.lower() == name.lower() != "" for s in before):
            found = [s for s in before if s.name.lower() == name]
            if not found:
                raise NeedsFullBuild(f"FROM {name} writes the name of a stage in another way")
            made = self._stage(found[-1])
            if made.config.config.get("OnBuild"):
                raise NeedsFullBuild(f"the stage {name} has ONBUILD triggers")
            # ARGs go on into it; whether there was a CMD is asked of each stage alone.
            return replace(made, config=replace(made.config, cmd=False))
        base = self._find(name, platform)
        config = started(base.image.config)
        return StageImage(base=base, config=config, tree=Tree(base=self._listing(base)))

    def _next(self, made: StageImage, instruction: Instruction, stage: Stage) -> StageImage:
        if instruction.keyword in ("COPY", "ADD"):
            return self._copy(made, instruction, stage)
        if instruction.keyword not in CONFIGURING:
            raise NeedsFullBuild(f"line {instruction.start}: {instruction.keyword}")
        after = replace(made, config=apply_instruction(made.config, instruction, self._text))
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
        flags = tuple(flag for flag in instruction.flags if flag[0] != "from")
        scope = Scope(self._dockerfile, {})
        scope.start(made.config.variables, made.config.workdir)
        copy = understood(replace(instruction, flags=flags), scope)
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

    def _origin(self, origin: str, instruction: Instruction, stage: Stage) -> StageImage:
        found = self._dockerfile.stages[: stage.index]
        if origin.isdecimal():
            found = found[int(origin) : int(origin) + 1]
        else:
            found = tuple(s for s in found if s.name.lower() == origin.lower())
        if not found:
            raise NeedsFullBuild(f"line {instruction.start}: {instruction.keyword} --from={origin}")
        return self._stage(found[-1])

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
        """The bytes of a small file as they were scanned. Raises build/context-changed."""
        with VerifiedFiles(self._build.context) as files, reading_context():
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
        source = tree.placed[entry.source].source if entry.source else ""
        kept = entry if entry.implied else replace(entry, uid=uid, gid=gid)
        found[path] = replace(kept, source=source)
    return found


def _created_by(copy: Copy) -> str:
    flags = {"chown": copy.chown, "chmod": copy.chmod}
    words = [copy.instruction.keyword, *(["--parents"] if copy.parents else [])]
    words += [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return " ".join((*words, *copy.sources, copy.dest, "# buildkit"))
