"""What is reported of a scan that lasts: what it is at, and afterwards what made it last.

A build context with gigabytes in it is usually one by mistake, and a silent devloop looks hung.
Reads nothing; what is big is known from what the scan found.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from devloop.base.patterns import ignore_line
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.base.cancel import Cancel
    from devloop.model import ContextEntry, Snapshot


LASTING = 2.0
"""From so many seconds on a scan is reported."""

_EVERY = 5.0
# What a file costs beside its bytes, as so many bytes.
_FILE = 30_000
# As many are named, each with such a share of it all; one that has most of its parent's stands for
# it.
_NAMED = 3
_SHARE = 0.1
_MOST = 0.8


class ScanProgress:
    """For one scan. `at` is the path where it is, `files` counts those that were read."""

    __slots__ = ("_cancel", "_clock", "_due", "_report", "at", "files")

    def __init__(
        self,
        cancel: Cancel,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.at = ""
        self.files = 0
        self._cancel = cancel
        self._report = report
        self._clock = clock
        self._due = clock() + LASTING

    def check(self) -> None:
        """Raises `Cancelled`."""
        self._cancel.check()
        now = self._clock()
        if now >= self._due:
            self._due = now + _EVERY
            self._report(f"{self.files:,} files read, at {self.at or '.'}")


def large_context(snapshot: Snapshot, seconds: float, service: str) -> Diagnosis:
    """What to say after a scan that took so long."""
    files = [(path, e) for path, e in snapshot.entries.items() if e.type == "file"]
    named = [(path, *_sums(found)) for path, found in _biggest(files)]
    return Diagnosis(
        code=Code.BUILD_LARGE_CONTEXT,
        severity="warning",
        message=f"reading the build context of {service} took {seconds:.0f} s: "
        + _amount(*_sums(files)),
        cause="most of it: " + "; ".join(f"{path} ({_amount(*sums)})" for path, *sums in named)
        if named
        else None,
        suggestions=tuple(
            "if the image does not need it, add this line to .dockerignore: "
            f"{ignore_line(path.rstrip('/'))}"
            for path, *_ in named
        ),
    )


_Files = list[tuple[str, "ContextEntry"]]


def _biggest(files: _Files) -> Iterable[tuple[str, _Files]]:
    """The top directories (ending in a slash) and files that cost the most."""
    total = _cost(files)
    parts = sorted(_parts("", files).items(), key=lambda part: -_cost(part[1]))
    for path, found in parts[:_NAMED]:
        if _cost(found) >= total * _SHARE:
            yield _narrowed(path, found)


def _narrowed(path: str, files: _Files) -> tuple[str, _Files]:
    while path.endswith("/"):
        inner, found = max(_parts(path, files).items(), key=lambda part: _cost(part[1]))
        if len(found) == len(files) or _cost(found) < _cost(files) * _MOST:
            break
        path, files = inner, found
    return path, files


def _parts(above: str, files: _Files) -> dict[str, _Files]:
    parts: defaultdict[str, _Files] = defaultdict(list)
    for path, entry in files:
        name, slash, _ = path[len(above) :].partition("/")
        parts[above + name + slash].append((path, entry))
    return parts


def _cost(files: _Files) -> int:
    return sum(entry.size + _FILE for _, entry in files)


def _sums(files: _Files) -> tuple[int, int]:
    return len(files), sum(entry.size for _, entry in files)


def _amount(files: int, size: int) -> str:
    shown, unit = size / 2**20, "MiB"
    if shown >= 1024:
        shown, unit = shown / 1024, "GiB"
    return f"{files:,} {'file' if files == 1 else 'files'}, {shown:.1f} {unit}"
