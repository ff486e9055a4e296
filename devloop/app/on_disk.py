"""What is on disk now, as a session would see it, for whoever looks while none runs.

Only looks; asks no registry. What a session would take for another content than the one before is
another one here too, so services are made as `session` makes them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from devloop.app.project_paths import may_read
from devloop.app.session import as_written, built_for
from devloop.base.cancel import Cancel
from devloop.builders.base_moves import BaseLookup, BaseMoves
from devloop.cluster.api.log_stream import node_platforms
from devloop.cluster.deploy.project_configs import ProjectConfigs
from devloop.errors import DevloopError
from devloop.registry.client import Registries
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Project
    from devloop.engine.ports import Rendering


def fingerprints_on_disk(
    project: Project, renderings: Mapping[str, Rendering], connection: Connection, *, mode: str
) -> dict[str, str]:
    """For each service what `events.Serving.fingerprint` is once a session of `mode` serves what is
    on disk; without those that cannot be read. Errors: cluster/*."""
    services = built_for(project.services, node_platforms(connection))
    if mode == "run":
        services = as_written(services)
    configs = ProjectConfigs(renderings, connection.namespace)
    bases = BaseMoves(
        {name: service.build for name, service in services.items()},
        BaseLookup(Registries(), "", pull=False),
        project.state_dir,
        report=lambda _: None,
        patience=None,
        lasting=False,
    )
    found: dict[str, str] = {}
    for name, service in services.items():
        try:
            source = ServiceSource(
                service,
                project.root,
                configs.watched(name) if name in renderings else None,
                needed=functools.partial(may_read, service.build),
                bases=functools.partial(bases.marks, name),
            )
            found[name] = source.scan(None, Cancel()).fingerprint.whole
        except DevloopError:
            continue
    return found
