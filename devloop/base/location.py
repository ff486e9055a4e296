"""A place in a file, for everything that reports one."""

from __future__ import annotations

from devloop.base.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file. `line` and `column` count from 1; `path` is as the user would type it."""

    path: str
    line: int | None = None
    column: int | None = None

    @classmethod
    def after(cls, before: str, path: str) -> Location:
        """The place in `path` of what comes after the text `before`."""
        return cls(path, before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)

    def __str__(self) -> str:
        if self.line is None:
            return self.path
        return f"{self.path}:{self.line}:{self.column or 1}"
