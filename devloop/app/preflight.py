"""What a session asks at its start, all in one place: before it begins, and what the cluster can
answer while the adapters are imported.

Whatever is imported here is waited for before the first request goes out: nothing that only a
session at work needs. Must not build or deploy.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from devloop.app import find_registry
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import report_bug
from devloop.builders.preflight import preflight
from devloop.cluster.api.log_stream import node_platforms, server_time
from devloop.cluster.api.view import ClusterView
from devloop.errors import DevloopError
from devloop.registry.client import RegistryClient
from devloop.registry.discovery import check as check_registry

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterable, Mapping

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Project, Service
    from devloop.model import PushTarget, WorkloadRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a session found around it: where images go, a client of the registry there (None when
    images are loaded into the nodes), what the nodes run (OS/ARCH), and the API server's clock when
    the session began (RFC 3339; "" when it did not tell or was not asked)."""

    target: PushTarget
    registry: RegistryClient | None
    platforms: tuple[str, ...]
    began: str


def preflight_environment(
    project: Project,
    services: Mapping[str, Service],
    connection: Connection,
    cancel: Cancel,
    stack: contextlib.ExitStack,
    *,
    lasting: bool,
    patient: bool = False,
) -> Environment:
    """Find out at once, and side by side, what is not there: Docker, cluster, registry; and the
    nodes' platforms. `lasting` sessions want the time as well; `patient` ones wait for a registry
    that is away, as they do later on: the first push says so. Errors: env/*, cluster/*,
    registry/*."""

    def ask_cluster() -> tuple[tuple[str, ...], str]:
        # One after the other, over one connection: the registry takes two requests as well.
        return node_platforms(connection), server_time(connection) if lasting else ""

    with ThreadPoolExecutor(2, thread_name_prefix="devloop-preflight") as pool:
        docker = pool.submit(preflight, services.values())
        cluster = pool.submit(ask_cluster)
        target = find_registry(project, connection)
        registry = stack.enter_context(RegistryClient(target.push)) if target.push else None
        try:
            check_registry(target, registry, cancel)
        except DevloopError as error:
            if not (patient and error.code.transient):
                raise
        docker.result()
        platforms, began = cluster.result()
        return Environment(target=target, registry=registry, platforms=platforms, began=began)


def watch_workloads(
    workloads: Iterable[WorkloadRef], connection: Connection, stack: contextlib.ExitStack
) -> ClusterView:
    """The cluster as it is watched from now on; returns at once."""
    view = ClusterView(connection, on_bug=report_bug)
    stack.callback(view.close)
    for ref in workloads:
        view.begin(ref)
    return view
