"""What a COPY, or an ADD of local files, puts where in the image's file system.

Pure: from a Dockerfile and a `Snapshot` to paths, types, modes, owners. Reads no file and knows no
layer format. The rules are BuildKit's (dockerfile2llb and fsutil's copy).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.build.dockerfile import Dockerfile, Instruction
    from devloop.model import Snapshot

__all__ = ["Copy", "Placed", "StageState", "place", "stage_copies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """What the image below a stage's first instruction says. `workdir` is absolute."""

    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    workdir: str = "/"
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One COPY or ADD with every variable replaced. `sources` are relative to the context and may
    be patterns; `dest` is absolute and clean; `folder` says that it has to be a folder (it ended in
    a slash). `chown` is `user[:group]` as written, None without the flag; `chmod` likewise."""

    instruction: Instruction
    sources: tuple[str, ...]
    dest: str
    folder: bool
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One path in the image, relative to / and without a leading slash. `source` is the path in the
    context that its bytes come from, "" for what has none. `implied` marks a folder that is only
    made, with this mode and owner, where it does not exist yet."""

    path: str
    type: Literal["file", "dir", "symlink"]
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    digest: str = ""
    link: str = ""
    source: str = ""
    implied: bool = False


def stage_copies(
    dockerfile: Dockerfile,
    target: str | None,
    args: Mapping[str, str],
    base: StageState | None,
) -> tuple[Copy, ...]:
    """The local COPY and ADD instructions of the target's stage, in order, variables replaced.

    `base` is the state of the image that the stage starts from, None when it is not known. Raises
    `Unprovable` for what cannot be worked out (a relative WORKDIR on an unknown base, a remote ADD
    source, an archive, a heredoc, a flag not known here)."""
    raise NotImplementedError


def place(copy: Copy, snapshot: Snapshot, owner: tuple[int, int]) -> Mapping[str, Placed]:
    """What `copy` puts into the image, by path, in the order in which a layer lists it.

    `owner` is the uid and gid that `copy.chown` stands for (0, 0 without it)."""
    raise NotImplementedError
