"""Which rules hold for a context now: those of its ignore file, and where something lies in it that
no build reads, those of the Dockerfile, too.

A path that no instruction names changes no image, and so must neither end a build nor begin one.
To leave it out takes a proof that no base image's ONBUILD reads it, which has to be asked for.
Reads names, and no file but the ignore file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Protocol

from devloop.base.ignore_rules import IgnoreFileError, IgnoreRules
from devloop.base.read_patterns import ReadPatterns
from devloop.errors import Code, DevloopError, Location, unreadable
from devloop.watch.rules import ContextRules, NarrowRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devloop.base.cancel import Cancel


class BuildReads(Protocol):
    """What a service's build reads of its context."""

    def named(self) -> Sequence[str] | None:
        """The patterns that the instructions name, None when they do not tell. Quick."""
        ...

    def nothing_else(self, cancel: Cancel) -> bool:
        """Whether the base images are sure to read nothing. Asks for them; raises Cancelled."""
        ...


class ReadsAnything:
    """Nobody knows what the build reads."""

    def named(self) -> Sequence[str] | None:
        return None

    def nothing_else(self, cancel: Cancel) -> bool:  # noqa: ARG002 - the interface
        return False


class RulesInForce:
    """The rules of one context, worked out again when something changed. Safe for several
    threads."""

    def __init__(
        self,
        context: str,
        candidates: tuple[str, str],
        extra: tuple[str, ...],
        project: str,
        reads: BuildReads,
        *,
        git: bool = False,
    ) -> None:
        """`candidates` are the ignore files of which the first that is there applies, `extra`
        patterns to add to it. `git`: see `ContextRules`."""
        self._git = git
        self.candidates = candidates
        self._context = context
        self._extra = extra
        self._project = project
        self._reads = reads
        self._lock = threading.Lock()
        self._known: tuple[str, bytes] | None = None
        self._wide: ContextRules | None = None
        # What `_narrow` was made of.
        self._made_of: tuple[ContextRules, Sequence[str] | None] | None = None
        self._narrow: NarrowRules | None = None
        self._unread = False
        self._last: ContextRules | None = None

    def rules(self, cancel: Cancel, *, look: bool = True) -> ContextRules:
        """The rules as the disk has them now; the same object while nothing changed. With `look`,
        what lies there is looked at. Raises `config/value`, `env/file-unreadable` and
        Cancelled."""
        with self._lock:
            wide = self._read_ignored()
            named = self._reads.named()
            if self._made_of != (wide, named):
                self._made_of, self._narrow = (wide, named), None
                if named is not None and (reads := ReadPatterns.plain(named)) is not None:
                    self._narrow = NarrowRules(wide, reads)
            narrow = self._narrow
            if narrow is not None and look and not self._unread:
                self._unread = _unread(self._context, wide, narrow.reads, cancel)
            proven = narrow and self._unread and self._reads.nothing_else(cancel)
            self._last = narrow if narrow is not None and proven else wide
            return self._last

    def widen(self) -> ContextRules:
        """Leave out only what the ignore file does, until it or the Dockerfile changes."""
        with self._lock:
            self._narrow = None
            self._last = self._read_ignored()
            return self._last

    def last_rules(self, cancel: Cancel | None = None) -> ContextRules:
        """The last good rules, for those who only want to know where to look: no error but
        Cancelled. With `cancel` they are worked out again."""
        if cancel is not None or self._last is None:
            with contextlib.suppress(DevloopError):
                if cancel is None:
                    with self._lock:
                        return self._read_ignored()
                return self.rules(cancel)
        return self._last or ContextRules(IgnoreRules(()))

    def _read_ignored(self) -> ContextRules:
        path, data = self._read()
        if self._wide is None or self._known != (path, data):
            text = data.decode("utf-8", "surrogateescape")
            try:
                self._wide = ContextRules(IgnoreRules.parse(text, self._extra), git=self._git)
            except IgnoreFileError as error:
                raise _refused(error, os.path.relpath(path, self._project)) from error
            self._known = path, data
        return self._wide

    def _read(self) -> tuple[str, bytes]:
        for path in self.candidates:
            try:
                # A pipe of that name must not make devloop wait.
                with open(path, "rb", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as file:
                    return path, file.read()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise unreadable(path, error) from error
        return self.candidates[-1], b""


def _refused(error: IgnoreFileError, shown: str) -> DevloopError:
    return DevloopError.of(
        Code.CONFIG_VALUE,
        str(error),
        location=Location(shown, error.line, error.column) if error.line else None,
        cause="Docker would refuse the build with it",
        suggestions=(r"write \[ or \\ for a bracket or a backslash that stands for itself",),
    )


def _unread(top: str, rules: ContextRules, reads: ReadPatterns, cancel: Cancel) -> bool:
    """Whether the rules leave something in that no instruction names."""
    todo = [(top, "", 0)]
    while todo:
        cancel.check()
        path, prefix, inherited = todo.pop()
        in_context = rules.files_in(inherited)
        for entry in _entries(path):
            inner = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                _, look_inside, bits = rules.directory(inherited, inner, entry.name)
                if look_inside and not reads.covers(inner):
                    todo.append((entry.path, f"{inner}/", bits))
            elif not reads.may_read(inner) and in_context(inner, entry.name):
                return True
    return False


def _entries(directory: str) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            return list(listing)
    except OSError:
        # Gone, or not for us to read: the scan is the one to complain.
        return ()
