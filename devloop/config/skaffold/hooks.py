"""Lifecycle hooks and tests as the `hooks` of services. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devloop.base.yaml_tree import MappingEntry
    from devloop.config.skaffold.notes import Module, Translating


def hooks_of(
    modules: Sequence[Module], services: Mapping[str, str], use: Translating
) -> dict[str, MappingEntry]:
    """The `hooks` of each service by its name; `services` are the services' names by image."""
    del modules, services
    if not use.supports("hooks"):
        return {}
    return {}
