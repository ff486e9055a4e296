"""Composition root: config and flags become a wired engine; the only package that names adapters.

What several commands need stands here; a session is in session.py, its adapters in wiring.py.
Nothing here decides what a change means (the engine does) or what is shown (the ui does).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from devloop.builders.built_images import BuiltImages
from devloop.cluster.api.connection import Connection
from devloop.cluster.api.log_stream import registry_hosting
from devloop.cluster.deploy.guard import check_context, check_namespace
from devloop.model import WorkloadRef
from devloop.registry.discovery import discover

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.config.schema import Project, Service
    from devloop.model import PushTarget

__all__ = ["built_images_of", "connect", "find_registry", "workload_of"]


@contextlib.contextmanager
def connect(project: Project) -> Iterator[Connection]:
    """The project's cluster, if devloop may work with it. Errors: cluster/*, safety/*."""
    connection = Connection.open(project.context, project.namespace)
    try:
        check_context(connection.context, connection.server, project.allow_contexts)
        check_namespace(connection.namespace)
        yield connection
    finally:
        connection.close()


def workload_of(service: Service, namespace: str) -> WorkloadRef:
    return WorkloadRef(service.deploy.workload_kind, service.deploy.workload_name, namespace)


def find_registry(project: Project, connection: Connection) -> PushTarget:
    """Where the project's images go. Errors: registry/*, cluster/*."""
    return discover(
        config=project.registry,
        hosting=registry_hosting(connection),
        kind_cluster=_kind_cluster(connection.context),
    )


def built_images_of(project: Project) -> BuiltImages:
    """The list of the images made for the project."""
    return BuiltImages(project.state_dir)


def _kind_cluster(context: str) -> str | None:
    """The kind cluster behind a context; kind names its contexts `kind-<cluster>`."""
    return context.removeprefix("kind-") if context.startswith("kind-") else None
