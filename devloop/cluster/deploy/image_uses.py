"""Which services' images the manifests of other services run. Pure."""

from __future__ import annotations

import itertools
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.cluster.deploy.image_owners import containers_of
from devloop.cluster.deploy.objects import owners_of
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from devloop.cluster.deploy.own_workloads import OwnWorkloads
    from devloop.config.schema import Service
    from devloop.model import ManifestObject


def image_uses(
    manifests: Iterable[ManifestObject],
    service: Service,
    services: Mapping[str, Service],
    *,
    own: OwnWorkloads,
    registry: str = "",
) -> frozenset[str]:
    """The other services whose images run in what `service` deploys; `own` and `registry` as of
    `own_workloads`."""
    picked = {workload.manifest.key for workload in own.workloads if workload.manifest}
    found: set[str | None] = set()
    for manifest in manifests:
        if manifest.key in own.left or not any(containers_of(manifest.object)):
            continue
        is_own = manifest.key in picked
        owners = owners_of(manifest.object, service, services, own=is_own, registry=registry)
        found.update(owners.values())
    return frozenset(name for name in found if name is not None and name != service.name)


def with_used(only: Iterable[str], uses: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """`only`, and after them all services whose images they need, and those that these need."""
    found = dict.fromkeys(only)
    todo = list(found)
    while todo:
        for name in sorted(uses.get(todo.pop(0), ())):
            if name not in found:
                found[name] = None
                todo.append(name)
    return tuple(found)


def refuse_cycle(
    uses: Mapping[str, frozenset[str]], needs: Mapping[str, Collection[str]] = MappingProxyType({})
) -> None:
    """Raises config/value for services that wait for each other: `uses` are those whose images the
    manifests of each run, `needs` those that each needs."""
    _refuse_mixed_cycle(uses, needs)
    for start in sorted(uses):
        if (cycle := _way_back(start, uses)) is not None:
            raise DevloopError.of(
                Code.CONFIG_VALUE,
                f"the manifests of {' and '.join(sorted(set(cycle)))} run each other's images",
                cause=f"each waits for the next: {' -> '.join(cycle)}",
                suggestions=(
                    "move what runs both images into the manifests of one of them",
                    "or give all of them the same manifests: each deploys what runs its own image",
                ),
            )


def _refuse_mixed_cycle(
    uses: Mapping[str, frozenset[str]], needs: Mapping[str, Collection[str]]
) -> None:
    every = {n: uses.get(n, frozenset()).union(needs.get(n, ())) for n in {*uses, *needs}}
    for start in sorted(name for name in needs if needs[name]):
        cycle = _way_back(start, every) or ()
        steps = list(itertools.pairwise(cycle))
        if any(b not in uses.get(a, ()) for a, b in steps):
            words = (f"{a} {'needs' if b in needs.get(a, ()) else 'runs'} {b}" for a, b in steps)
            raise DevloopError.of(
                Code.CONFIG_VALUE,
                f"services wait for each other: {' -> '.join(cycle)}",
                cause=f"by `needs`, or as the manifests run the image: {', '.join(words)}",
                suggestions=("take one of them out of `needs`, or out of the manifests",),
            )


def _way_back(start: str, uses: Mapping[str, frozenset[str]]) -> tuple[str, ...] | None:
    """The shortest way from a service through those that it uses back to it."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for name in sorted(uses.get(way[-1], ())):
            if name == start:
                return (*way, start)
            if name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return None
