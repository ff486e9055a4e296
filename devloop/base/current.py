"""A mapping that one thread replaces as a whole while others read it."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Current(Mapping[K, V]):
    """Reads what was there when the reading began: going through it survives a replacement."""

    def __init__(self, now: Mapping[K, V]) -> None:
        self._now = dict(now)

    def replace(self, now: Mapping[K, V]) -> None:
        """From now on it has these entries."""
        self._now = dict(now)

    def __getitem__(self, key: K) -> V:
        return self._now[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    def keys(self) -> KeysView[K]:
        return self._now.keys()

    def values(self) -> ValuesView[V]:
        return self._now.values()

    def items(self) -> ItemsView[K, V]:
        return self._now.items()
