"""What belongs to a build context: Docker's rules plus what devloop itself leaves out.

Everybody who asks "does this path count?" asks here: the scan, the set of directories to watch and
the filter for events, so that the three can never disagree. Looks at names only, never at the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.editor_files import LEFT_OUT_DIRECTORIES, has_mark, is_temporary

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.ignore_rules import IgnoreRules
    from devloop.base.read_patterns import ReadPatterns


class ContextRules:
    """`IgnoreRules` with editors' files, `.git` and `.devloop` taken out.

    Paths are relative to the context, with slashes. A walker that goes down the tree uses
    `directory` and `file`, which want what the parent's `directory` gave for `inherited` (0 at the
    top)."""

    def __init__(self, ignore: IgnoreRules, *, git: bool = False) -> None:
        """With `git`, `.git` is in whatever the ignore file says of it."""
        self.ignore = ignore
        self._left_out = frozenset(
            name
            for name in LEFT_OUT_DIRECTORIES
            if name == ".devloop" or not (git or ignore.names_exception(name))
        )

    def file(self, inherited: int, path: str, name: str) -> bool:
        """Whether the file or symlink `path` (whose base name is `name`) is in the context."""
        return not (
            self.ignore.step(inherited, path)[0] or is_temporary(name) or name in self._left_out
        )

    def temporary_file(self, inherited: int, path: str, name: str) -> bool:
        """Whether the file `path` is left out for its temporary-looking name alone."""
        return is_temporary(name) and not self.ignore.step(inherited, path)[0]

    def files_in(self, inherited: int) -> Callable[[str, str], bool]:
        """`file` for the files of one directory, as a function of path and name; quicker."""
        may_match, ignored = self.ignore.quick(inherited)
        left_out = self._left_out
        special = has_mark

        def inside(path: str, name: str) -> bool:
            if may_match(path) or special(name) or name in left_out:
                return self.file(inherited, path, name)
            return not ignored

        return inside

    def directory(self, inherited: int, path: str, name: str) -> tuple[bool, bool, int]:
        """Whether the directory itself is in, whether anything beneath may be, what that
        inherits."""
        if name in self._left_out:
            return False, False, 0
        ignored, bits = self.ignore.step(inherited, path)
        return not ignored, not ignored or self.ignore.excepted_beneath(path, bits), bits

    def may_contain(self, directory: str) -> bool:
        """False only if nothing beneath `directory` can be in the context; "" is the top."""
        return not directory or (
            self._left_out.isdisjoint(directory.split("/")) and self.ignore.may_contain(directory)
        )

    def concerns(self, path: str) -> bool:
        """Whether a change of `path`, of unknown type, may change the context."""
        parent, _, name = path.rpartition("/")
        if not self.may_contain(parent) or name in self._left_out:
            return False
        if self.ignore.ignored(path):
            return self.ignore.may_contain(path)
        return not is_temporary(name)

    def only_temporary(self, path: str) -> bool:
        """Whether `path` is left out for its temporary-looking name alone, were it a file."""
        parent, _, name = path.rpartition("/")
        return is_temporary(name) and self.may_contain(parent) and not self.ignore.ignored(path)


class NarrowRules(ContextRules):
    """`ContextRules` without the paths that no instruction reads: what no builder asks for need not
    be read, watched or sent.

    `inherited` has one bit more than there, the lowest: all in the directory is read."""

    def __init__(self, wide: ContextRules, reads: ReadPatterns) -> None:
        super().__init__(wide.ignore)
        self.reads = reads
        self._wide = wide

    def file(self, inherited: int, path: str, name: str) -> bool:
        read = inherited & 1 or self.reads.may_read(path)
        return bool(read) and self._wide.file(inherited >> 1, path, name)

    def temporary_file(self, inherited: int, path: str, name: str) -> bool:
        read = inherited & 1 or self.reads.may_read(path)
        return bool(read) and self._wide.temporary_file(inherited >> 1, path, name)

    def files_in(self, inherited: int) -> Callable[[str, str], bool]:
        inside = self._wide.files_in(inherited >> 1)
        if inherited & 1:
            return inside
        may_read = self.reads.may_read
        return lambda path, name: may_read(path) and inside(path, name)

    def directory(self, inherited: int, path: str, name: str) -> tuple[bool, bool, int]:
        covered = inherited & 1
        if not covered and not self.reads.may_read(path):
            return False, False, 0
        included, look_inside, bits = self._wide.directory(inherited >> 1, path, name)
        return included, look_inside, bits << 1 | (covered or self.reads.covers(path))

    def may_contain(self, directory: str) -> bool:
        return self._wide.may_contain(directory) and (
            not directory or self.reads.may_read(directory)
        )

    def concerns(self, path: str) -> bool:
        return self.reads.may_read(path) and self._wide.concerns(path)

    def only_temporary(self, path: str) -> bool:
        return self.reads.may_read(path) and self._wide.only_temporary(path)
