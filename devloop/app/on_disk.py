"""What is on disk now, as a session would see it, for whoever looks while none runs.

Only looks, and asks a registry only for a base image that Docker does not have. What a session
would take for another content than the one before is another one here too, so services are made as
`session` makes them, and their sources as the wiring does.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.app.session import as_written, built_for
from devloop.app.sources import source_of
from devloop.base.cancel import Cancel
from devloop.builders.base_moves import BaseLookup, BaseMoves
from devloop.cluster.api.log_stream import node_platforms
from devloop.cluster.deploy.project_configs import ProjectConfigs
from devloop.errors import DevloopError
from devloop.registry.client import Registries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Rendering


def fingerprints_on_disk(
    project: Project,
    renderings: Mapping[str, Rendering],
    connection: Connection,
    *,
    mode: str,
    built: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> dict[str, str]:
    """For each service what `events.Serving.fingerprint` is once a session of `mode` serves what is
    on disk; without those that cannot be read, or whose build uses the image of another service
    that also runs. `built` are fingerprint and image of services that are only built, as they were
    last. Errors: cluster/*."""
    services = built_for(project.services, node_platforms(connection))
    if mode == "run":
        services = as_written(services)
    configs = ProjectConfigs(renderings, connection.namespace)
    registries = Registries()
    lookup = BaseLookup(registries, "", pull=False)
    bases = BaseMoves(
        {name: service.build for name, service in services.items()},
        lookup,
        project.state_dir,
        report=lambda _: None,
        patience=None,
        lasting=False,
    )
    found: dict[str, str] = {}
    for name, service in _needs_first(services):
        try:
            source = source_of(
                service,
                project.root,
                configs.watched(name) if name in renderings else None,
                bases=bases,
                lookup=lookup,
                open_registry=registries,
                target="",
            )
            images = {
                need: image
                for need, (fingerprint, image) in built.items()
                # Another one makes an image that nobody knows yet.
                if need in service.needs and found.get(need) == fingerprint
            }
            scan = source.scan(None, Cancel(), needs=images)
            # Of one that runs a session knows which of its images is meant.
            if all(project.only_built(need) and need in built for need in scan.needs):
                found[name] = scan.fingerprint.whole
        except DevloopError:
            continue
    return found


def _needs_first(services: Mapping[str, Service]) -> Iterator[tuple[str, Service]]:
    """Each after those that it needs; there are no circles among them."""
    left = dict(services)
    while left:
        name = next(n for n, service in left.items() if not left.keys() & set(service.needs))
        yield name, left.pop(name)
