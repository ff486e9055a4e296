"""What a build can read of its context, as soon as an image has shown it.

A path that no instruction can read changes no image, so it need not end a build. The Dockerfile
alone does not show that: a base image's ONBUILD may copy, too. So what is read is known only once
an image of the same recipe was looked at. Asks nobody and reads no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.editor_files import is_temporary
from devloop.base.read_patterns import leads_through, may_match

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.model import Scan


class ContextReads:
    """For one service. Known for one recipe at a time; used by several threads."""

    def __init__(self) -> None:
        self._known: tuple[str, tuple[str, ...]] | None = None

    def learn(self, recipe: str, patterns: tuple[str, ...]) -> None:
        """An image of `recipe` (see `Scan`) reads nothing but what `patterns` name."""
        self._known = (recipe, patterns)

    def may_read(self, scan: Scan, paths: Iterable[str]) -> bool:
        """Whether an image of `scan` may depend on one of `paths`, relative to the context. True
        where it is not known."""
        known = self._known
        if known is None or known[0] != scan.recipe:
            return True
        entries = scan.snapshot.entries
        links = tuple(path for path, entry in entries.items() if entry.type == "symlink")
        return first_read(known[1], paths, links) is not None

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """Whether the images of two scans may differ."""
        changed = {
            path
            for path in after.snapshot.changed_since(before.snapshot)
            if not is_temporary(path.rpartition("/")[2])
        }
        # A symlink may be on the way before or after.
        return before.recipe != after.recipe or any(
            self.may_read(scan, changed) for scan in (before, after)
        )


def first_read(
    patterns: Iterable[str], paths: Iterable[str], links: Iterable[str] = ()
) -> str | None:
    """The first of `paths` that an instruction which names `patterns` may read, broadly judged:
    what might does. `links` are the symlinks of the context: behind one it may read anything."""
    lost = any(leads_through(pattern, link) for pattern in patterns for link in links)
    return next(
        (
            path
            for path in sorted(paths)
            if lost or any(may_match(pattern, path) for pattern in patterns)
        ),
        None,
    )
