"""What `needs` comes to: which services belong together, and where the image of one stands in the
build of another. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.config.builds import Build
    from devloop.config.schema import Service


def with_needs(names: Iterable[str], services: Mapping[str, Service]) -> tuple[str, ...]:
    """`names`, and after them all that these need."""
    found = dict.fromkeys(names)
    todo = list(found)
    while todo:
        for name in services[todo.pop(0)].needs:
            if name not in found:
                found[name] = None
                todo.append(name)
    return tuple(found)


def variable(need: str) -> str:
    """The build argument, and the variable of a build command, that has the image of `need`."""
    return f"{need.upper().replace('-', '_')}_IMAGE"


def placeholder(need: str) -> str:
    """What stands for the image of `need` until that is known."""
    # Pinned, so that nobody asks whether it moved.
    return f"{need}@sha256:{'0' * 64}"


def prepared(build: Build, needs: tuple[str, ...]) -> Build:
    """`build` with its needs and placeholders for their images; arguments that devloop.yaml gives
    itself stay."""
    if not needs:
        return build
    args = {**{variable(name): placeholder(name) for name in needs}, **build.args}
    return replace(build, needs=needs, args=args)
