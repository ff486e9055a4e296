"""`devloop clean` from its options to its result: connects, looks, removes."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.app import connect, find_registry, only_session
from devloop.app.docker import docker_host
from devloop.app.housekeeping import Cleanup, Leftovers, find_leftovers, remove
from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.builders.built_images import BuiltImages
from devloop.cluster.deploy.status import digests_in_use
from devloop.errors import DevloopError
from devloop.local_cluster.garbage import collect, owned_registry
from devloop.registry.client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from devloop.config.schema import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """`removed` is None after a dry run; `blobs` counts what the registry's collector freed."""

    host: str
    dry_run: bool
    found: Leftovers
    removed: Cleanup | None = None
    blobs: int = 0


def clean(
    project: Project, *, keep: int, dry_run: bool, confirm: Callable[[str, tuple[str, ...]], None]
) -> Cleaning:
    """Look, and remove unless `dry_run`.

    A registry that devloop made is stopped for a moment to free its space. Where others have images
    in it, `confirm(host, their repositories)` is called before anything is removed; what it raises
    ends the cleaning. Errors: cluster/*, registry/*, safety/context, and env/session-running while
    a session of the project is at work (not for a dry run)."""
    cancel = Cancel()
    built = BuiltImages(project.state_dir)
    with connect(project) as connection:
        target = find_registry(project, connection)
        found = find_leftovers(
            built,
            project.state_dir,
            host=target.push,
            keep=keep,
            in_use=digests_in_use(connection),
            cancel=cancel,
        )
    host = target.push.partition("/")[0]
    looked = Cleaning(host=host, dry_run=dry_run, found=found)
    if dry_run or not found:
        return looked
    with only_session(project), contextlib.ExitStack() as stack:
        if not target.push:
            return replace(looked, removed=remove(found, built, None, cancel))
        registry = stack.enter_context(RegistryClient(target.push))
        collector = _collector(host, stack, cancel) if found.manifests else None
        if collector is not None:
            mine = {target.repository(service.image) for service in project.services.values()}
            mine |= {made.repository for made in built.all()}
            if others := _others(registry, mine, cancel):
                confirm(host, others)
        removed = remove(found, built, registry, cancel)
        blobs = 0
        if collector is not None and removed.manifests:
            with contextlib.suppress(DevloopError):
                blobs = collector()
    return replace(looked, removed=removed, blobs=blobs)


def _collector(host: str, stack: contextlib.ExitStack, cancel: Cancel) -> Callable[[], int] | None:
    """Frees the registry's space; None without Docker, or for a registry that devloop did not make:
    space is a bonus."""
    with contextlib.suppress(DevloopError):
        docker = stack.enter_context(docker_host(cancel))
        if (container := owned_registry(docker, host)) is not None:
            return functools.partial(collect, docker, container)
    return None


def _others(registry: RegistryClient, mine: Collection[str], cancel: Cancel) -> tuple[str, ...]:
    try:
        listed = registry.repositories(cancel)
    except DevloopError:
        return ()
    return tuple(name for name in listed if name not in {registry.name(each) for each in mine})
