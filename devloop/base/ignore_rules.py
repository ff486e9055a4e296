"""Which paths of a build context Docker leaves out: .dockerignore read as BuildKit reads it.

The context that devloop fingerprints has to be the one that `docker build` would send, so this is
not "gitignore-like" matching but BuildKit's own walk: every pattern is asked about every path, what
a pattern said about a directory holds for all beneath it, and the last pattern that had a say wins.
It must not look at the disk; watch/scan.py does.

Source of the rules: github.com/moby/patternmatcher (ignorefile.ReadAll, MatchesUsingParentResults)
and the walk in github.com/tonistiigi/fsutil (filter.go).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.base.ignore_pattern import Pattern, PatternError, clean, trim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


_CACHE_LIMIT = 50_000


class IgnoreFileError(ValueError):
    """A pattern that Docker refuses. `line` and `column` count from 1; they are None where the
    pattern does not stand in the file."""

    def __init__(
        self, entry: str, why: PatternError, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(f'"{entry}" is not an ignore pattern: {why}')
        self.line = line
        self.column = column


class IgnoreRules:
    """Compiled rules. Paths are relative to the context, with slashes, without a leading "./".

    A walker that goes down the tree uses `step`, anybody else `ignored` and `may_contain`. Safe to
    use from several threads: the caches hold what can be worked out again."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._bits: dict[str, int] = {"": 0}
        self._inherited: dict[int, bool] = {0: False}
        self._fresh = _union(self.patterns)
        self._fresh_positive = _union(p for p in self.patterns if not p.exception)

    @classmethod
    def parse(cls, text: str, extra: Iterable[str] = ()) -> IgnoreRules:
        """The rules of an ignore file's `text` followed by the patterns in `extra`.

        Raises `IgnoreFileError`."""
        entries: list[tuple[int | None, int | None, str]] = [*_entries(text)]
        entries += [(None, None, entry) for item in extra for _, _, entry in _entries(item)]
        patterns = []
        for line, column, entry in entries:
            try:
                pattern = Pattern.compile(entry)
            except PatternError as error:
                raise IgnoreFileError(entry, error, line, column) from None
            if pattern:
                patterns.append(pattern)
        return cls(patterns)

    def step(self, inherited: int, path: str) -> tuple[bool, int]:
        """Whether `path` is ignored, and what its children inherit.

        `inherited` is what `step` gave for the parent directory (0 at the top): one bit for each
        pattern that matched it or a directory above."""
        # Nearly every path matches no pattern by itself: then nothing changes on the way down.
        may_match, known = self.quick(inherited)
        if not may_match(path):
            return known, inherited
        ignored = False
        bits = inherited
        for index, pattern in enumerate(self.patterns):
            bit = 1 << index
            if not inherited & bit:
                # BuildKit does not ask a pattern that could not change the answer, and so does not
                # know later that it matched here; the results differ, so the order matters.
                if pattern.exception != ignored or not pattern.matches(path):
                    continue
                bits |= bit
            ignored = not pattern.exception
        if bits == inherited:
            self._inherited[bits] = ignored
        return ignored, bits

    def quick(self, inherited: int) -> tuple[Callable[[str], bool], bool]:
        """A cheap test for the children of one directory, and the answer for those it says no to:
        whether they are ignored. For those it says yes to, ask `step`."""
        known = self._inherited.get(inherited)
        if known is None:
            return lambda _path: True, False
        return (self._fresh if inherited else self._fresh_positive), known

    def ignored(self, path: str) -> bool:
        """Whether Docker leaves `path` out (a directory may still be sent for what is beneath
        it)."""
        return self.step(self.inherited(_parent(path)), path)[0]

    def inherited(self, directory: str) -> int:
        """What the children of `directory` inherit; "" is the top."""
        bits = self._bits.get(directory)
        if bits is None:
            bits = self.step(self.inherited(_parent(directory)), directory)[1]
            if len(self._bits) > _CACHE_LIMIT:
                self._bits = {"": 0}
            self._bits[directory] = bits
        return bits

    def may_contain(self, directory: str) -> bool:
        """False only if nothing beneath `directory` can be in the context."""
        return not self.ignored(directory) or self.excepted_beneath(
            directory, self.inherited(directory)
        )

    def excepted_beneath(self, directory: str, inherited: int) -> bool:
        """Whether an exception may bring back something beneath the ignored `directory`, whose
        children inherit `inherited`."""
        # Only exceptions after the pattern that decided can still have a say.
        for index, pattern in reversed([*enumerate(self.patterns)]):
            if not pattern.exception:
                if inherited & (1 << index):
                    return False
            elif pattern.may_match_beneath(directory):
                return True
        return False

    def names_exception(self, name: str) -> bool:
        """Whether an exception is written for `name`: it has that name between its slashes."""
        return any(p.exception and name in p.text.split("/") for p in self.patterns)


def _union(patterns: Iterable[Pattern]) -> Callable[[str], bool]:
    """A quick "certainly not" for many patterns at once; a yes may be wrong."""
    names: set[str] = set()
    starts: list[str] = []
    ends: list[str] = []
    rest: list[str] = []
    for p in patterns:
        if p.kind == "exact":
            names.add(p.text)
        elif p.kind == "prefix":
            starts.append(p.text[:-2])
        elif p.kind == "suffix":
            ends.append(p.text[2:])
            names.add(p.text[3:])
        elif p.text.startswith("**/*") and not re.search(r"[*?\[\]\\/^]", p.text[4:]):
            ends.append(p.text[4:])
        else:
            rest.append(p.regex.pattern)
    exact, heads, tails = frozenset(names), tuple(starts), tuple(ends)
    regex = re.compile("|".join(rest) if rest else r"(?!)", re.ASCII).match

    # A closure, because this is asked of every path of every scan.
    def may_match(path: str) -> bool:
        return (
            path in exact
            or path.endswith(tails)
            or path.startswith(heads)
            or regex(path) is not None
        )

    return may_match


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _entries(text: str) -> Iterator[tuple[int, int, str]]:
    """Line, column and cleaned text of each entry of an ignore file, like ignorefile.ReadAll."""
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r")
        if number == 1:
            line = line.removeprefix("\ufeff")
        entry = trim(line)
        if line.startswith("#") or not entry:
            continue
        column = line.index(entry[0]) + 1
        sign = "!" if entry.startswith("!") else ""
        entry = trim(entry.removeprefix("!")) if sign else entry
        if entry:
            entry = clean(entry)
            if len(entry) > 1:
                entry = entry.removeprefix("/")
        yield number, column, sign + entry
