"""What an edit of devloop.yaml changes, key by key, and what that asks of a session that runs.

Pure. Values are compared as they were read, so a comment, another order of keys or a default that
is written out is no change; what each key asks for is said where the key is described.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.config.grammar import Block, Map
from devloop.config.schema import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.config.grammar import Change
    from devloop.config.problems import Path
    from devloop.config.schema import Project


@dataclass(frozen=True, slots=True)
class ChangedKey:
    """A key with another value than before: `services.web.build.args.PYTHON`."""

    path: Path
    change: Change

    def __str__(self) -> str:
        return ".".join(map(str, self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`keys` are those of services that were there before as well, by service; `restart` are the
    ones that a running session cannot take over. All in the order of the description."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    keys: dict[str, tuple[ChangedKey, ...]]
    restart: tuple[ChangedKey, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is something to take over."""
        return bool(self.added or self.removed or self.keys)

    @property
    def names(self) -> tuple[str, ...]:
        """All that is taken over, as the user would name it."""
        whole = (f"services.{name}" for name in (*self.added, *self.removed))
        return (*whole, *(str(key) for keys in self.keys.values() for key in keys))


def difference(before: Project, after: Project) -> Difference:
    """How `after` differs from what a session runs with."""
    top = {name: key for name, key in ALL.keys.items() if name != "services"}
    kept = [name for name in after.services if name in before.services]
    services = ALL.keys["services"].kind
    assert isinstance(services, Map)  # noqa: S101 - so they are described
    described = services.value
    assert isinstance(described, Block)  # noqa: S101 - as above
    keys = {
        name: tuple(
            _changed(
                described, before.services[name], after.services[name], ("services", name), None
            )
        )
        for name in kept
    }
    found = (
        ChangedKey((name,), key.change or "restart")
        for name, key in top.items()
        if getattr(before, key.field) != getattr(after, key.field)
    )
    return Difference(
        added=tuple(name for name in after.services if name not in before.services),
        removed=tuple(name for name in before.services if name not in after.services),
        keys={name: changed for name, changed in keys.items() if changed},
        restart=tuple(key for key in found if key.change == "restart"),
    )


def _changed(
    described: Block, before: object, after: object, path: Path, change: Change | None
) -> Iterator[ChangedKey]:
    for name, key in described.keys.items():
        old, new = getattr(before, key.field), getattr(after, key.field)
        where, means = (*path, name), key.change or change or "restart"
        if old == new or (name == "dockerfile" and _same_dockerfile(before, after)):
            continue
        given = old is not None and new is not None
        if given and isinstance(key.kind, Block):
            yield from _changed(key.kind, old, new, where, means)
        elif isinstance(key.kind, Map):
            for each in sorted(old.keys() | new.keys()):
                if old.get(each) != new.get(each):
                    yield ChangedKey((*where, each), means)
        else:
            yield ChangedKey(where, means)


def _same_dockerfile(before: Any, after: Any) -> bool:
    """Whether it only moved with its context, as which it is given."""
    old, new = (os.path.relpath(each.dockerfile, each.context) for each in (before, after))
    return bool(old == new)
