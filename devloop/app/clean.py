"""`devloop clean` from its options to its result: connects, looks, removes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.app import connect, find_registry, ledger_of
from devloop.app.docker import docker_host
from devloop.app.housekeeping import Leftovers, Removed, find_leftovers, remove
from devloop.app.lock import only_session
from devloop.base.cancel import Cancel
from devloop.cluster.deploy.in_use import digests_in_use
from devloop.errors import DevloopError
from devloop.local_cluster.garbage import collect, owned_registry
from devloop.registry.client import RegistryClient

if TYPE_CHECKING:
    from devloop.config.schema import Project

__all__ = ["Cleaning", "clean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """`removed` is None after a dry run; `blobs` counts what the registry's collector freed."""

    host: str
    dry_run: bool
    found: Leftovers
    removed: Removed | None = None
    blobs: int = 0


def clean(project: Project, *, keep: int, dry_run: bool) -> Cleaning:
    """Errors: cluster/*, registry/*, safety/context, and env/session-running while a session of
    the project is at work (not for a dry run)."""
    cancel = Cancel()
    ledger = ledger_of(project)
    with connect(project) as connection:
        target = find_registry(project, connection)
        found = find_leftovers(
            ledger,
            project.state_dir,
            host=target.push,
            keep=keep,
            in_use=digests_in_use(connection),
            cancel=cancel,
        )
    host = target.push.partition("/")[0]
    if dry_run or not found:
        return Cleaning(host=host, dry_run=dry_run, found=found)
    with only_session(project):
        if not target.push:
            return Cleaning(
                host=host, dry_run=False, found=found, removed=remove(found, ledger, None, cancel)
            )
        with RegistryClient(target.push) as registry:
            removed = remove(found, ledger, registry, cancel)
        blobs = _free(host, cancel) if removed.manifests else 0
    return Cleaning(host=host, dry_run=False, found=found, removed=removed, blobs=blobs)


def _free(host: str, cancel: Cancel) -> int:
    """Space is a bonus: without Docker, or with somebody else's registry, there is none."""
    try:
        with docker_host(cancel) as docker:
            container = owned_registry(docker, host)
            return collect(docker, container) if container else 0
    except DevloopError:
        return 0
