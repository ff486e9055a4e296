"""Which directories of the context are which in the image, for debuggers, which map whole
directories. By the Dockerfile alone; a guess where a COPY gives files other names.
"""

from __future__ import annotations

import itertools
import posixpath
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.copies import stage_copies
from devloop.builders.image.copy_sources import clean, is_pattern
from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.builders.dockerfile import Dockerfile
    from devloop.builders.image.copies import Copy


@dataclass(frozen=True, slots=True)
class _Root:
    """`whole`: the directory is copied, and not a file of it."""

    local: str
    remote: str
    whole: bool


def source_roots(
    dockerfile: Dockerfile,
    target: str | None,
    args: Mapping[str, str],
    is_directory: Callable[[str], bool],
) -> tuple[tuple[str, str], ...]:
    """(path in the context, absolute path in the image), the deepest first; "" is the context. Each
    directory of the context has one: where several stages or instructions copy it, that of the
    target's stage, of an instruction that copies all of it, the last. Empty where nothing is known.
    `is_directory` is asked about paths of the context."""
    found: dict[str, _Root] = {}
    for name in (target, *(str(stage.index) for stage in reversed(dockerfile.stages))):
        try:
            copies = stage_copies(dockerfile, name, args, None)
        except NeedsFullBuild:
            continue
        of_stage: dict[str, _Root] = {}
        for root in (root for copy in copies for root in _roots(copy, is_directory)):
            known = of_stage.get(root.local)
            if known is None or root.whole >= known.whole:
                of_stage[root.local] = root
        for local, root in of_stage.items():
            known = found.get(local)
            if known is None or root.whole > known.whole:
                found[local] = root
    kept = [root for root in found.values() if not _implied(root, found)]
    kept.sort(key=lambda root: (-len(root.local.split("/")) if root.local else 0, root.local))
    return tuple((root.local, root.remote) for root in kept)


def _roots(copy: Copy, is_directory: Callable[[str], bool]) -> Iterator[_Root]:
    into = copy.directory or len(copy.sources) > 1
    for source in copy.sources:
        path = clean(source)
        above, _, name = path.rpartition("/")
        if copy.parents:
            yield _Root("", copy.dest, whole=False)
        elif is_pattern(path):
            plain = itertools.takewhile(lambda part: not is_pattern(part), path.split("/"))
            yield _Root("/".join(plain), copy.dest, whole=False)
        elif not path or is_directory(path):
            yield _Root(path, copy.dest, whole=True)
        elif into:
            yield _Root(above, copy.dest, whole=False)
        elif copy.dest.rpartition("/")[2] == name:
            yield _Root(above, copy.dest.rpartition("/")[0] or "/", whole=False)


def _implied(root: _Root, found: Mapping[str, _Root]) -> bool:
    """Whether a directory above it says the same."""
    above = root.local
    while above:
        above = above.rpartition("/")[0]
        if above in found:
            below = posixpath.relpath(root.local, above or ".")
            return posixpath.join(found[above].remote, below) == root.remote
    return False
