"""What a session asks at its start, all in one place: before it begins, and what the cluster can
answer while the adapters are imported.

Whatever is imported here is waited for before the first request goes out: nothing that only a
session at work needs. Must not build or deploy.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, TypeVar

from devloop.app import find_registry
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import report_bug
from devloop.builders.preflight import preflight
from devloop.cluster.api.log_stream import node_platforms, server_time
from devloop.cluster.api.view import ClusterView
from devloop.errors import Code, DevloopError
from devloop.model import PushTarget
from devloop.registry.client import RegistryClient
from devloop.registry.discovery import check as check_registry

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Project, Service
    from devloop.errors import Diagnosis
    from devloop.model import WorkloadRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a session found around it: where images go, a client of the registry there (None when
    images are loaded into the nodes), what the nodes run (OS/ARCH), and the API server's clock when
    the session began (RFC 3339; "" when it did not tell). `refused` is what the registry said to
    the login that there is; None where it takes it, or does not answer."""

    target: PushTarget
    registry: RegistryClient | None
    platforms: tuple[str, ...]
    began: str
    refused: Diagnosis | None = None


def preflight_environment(
    project: Project,
    services: Mapping[str, Service],
    connection: Connection,
    cancel: Cancel,
    stack: contextlib.ExitStack,
    *,
    meanwhile: Callable[[], T],
    patient: bool = False,
    images: Literal["built", "pushed", "given"] = "built",
) -> tuple[Environment, T]:
    """Find out at once, and side by side, what is not there: Docker, cluster, registry; and the
    nodes' platforms. `meanwhile` is called once all are asked, and what it returns comes with what
    was found. `patient` sessions begin without a registry that is away or refuses the login, as
    they go on without it later: the first push says so. Where `images` are not to be built, Docker
    is not asked; given ones need no registry from here. Errors: env/*, cluster/*, registry/*."""

    def client_of(target: PushTarget) -> RegistryClient | None:
        return stack.enter_context(RegistryClient(target.push)) if target.push else None

    with ThreadPoolExecutor(4, thread_name_prefix="devloop-preflight") as pool:
        found = pool.submit(find_registry, project, connection)
        cluster = pool.submit(node_platforms, connection)
        docker = pool.submit(preflight, services.values() if images == "built" else ())
        # One that is named is the one to push to, whatever the cluster says of it.
        named = PushTarget(push=project.registry or "" if images != "given" else "")
        registry = client_of(named)
        answer = pool.submit(check_registry, named, registry, cancel)
        found_meanwhile = meanwhile()
        target, refused = _found(found, images), None
        try:
            answer.result()
            if registry is None and images != "given":
                registry = client_of(target)
                check_registry(target, registry, cancel)
        except DevloopError as error:
            if error.code is Code.REGISTRY_UNAUTHORIZED:
                refused = error.diagnosis
            if not (patient and (refused or error.code.transient)):
                raise
        docker.result()
        platforms = cluster.result()
        began = server_time(connection)
        environment = Environment(
            target=target, registry=registry, platforms=platforms, began=began, refused=refused
        )
        return environment, found_meanwhile


def _found(found: Future[PushTarget], images: str) -> PushTarget:
    try:
        return found.result()
    except DevloopError as error:
        # The nodes pull given images from where those say.
        if images != "given" or error.code is not Code.REGISTRY_UNREACHABLE:
            raise
        return PushTarget()


def watch_workloads(
    workloads: Iterable[WorkloadRef], connection: Connection, stack: contextlib.ExitStack
) -> ClusterView:
    """The cluster as it is watched from now on; returns at once."""
    view = ClusterView(connection, on_bug=report_bug)
    stack.callback(view.close)
    for ref in workloads:
        view.begin(ref)
    return view
