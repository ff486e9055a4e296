"""Where each setting stands, for errors that come up long after the file was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from devloop.errors import Location


# A setting's way down from the top of the file: ("services", "web", "ports", 0).
Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Locations:
    """Places of keys and of values by path; `file` stands for what is in no file.

    A path that the file does not have falls back to the nearest one above it: a default of a
    service is shown at the service.
    """

    file: Location
    keys: dict[Path, Location] = field(default_factory=dict)
    values: dict[Path, Location] = field(default_factory=dict)

    def note_key(self, path: Path, location: Location) -> None:
        self.keys[path] = location

    def note_value(self, path: Path, location: Location) -> None:
        self.values[path] = location

    def key(self, path: Path) -> Location:
        """Where the setting is named: its key, or the item of a list."""
        return self._find(path, self.keys, self.values)

    def value(self, path: Path) -> Location:
        """Where the setting's value begins."""
        return self._find(path, self.values, self.keys)

    def _find(
        self, path: Path, first: dict[Path, Location], second: dict[Path, Location]
    ) -> Location:
        while path:
            found = first.get(path) or second.get(path)
            if found is not None:
                return found
            path = path[:-1]
        return self.file
