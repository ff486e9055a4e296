"""Composition root: config and flags become a wired engine; the only place that names adapters.

A session is started here, run to its end, and taken down in the reverse order. It decides nothing:
what a change means is the engine's, what is shown is the ui's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from devloop import __version__
from devloop.app.config_notice import ConfigNotice
from devloop.app.filesync import file_sync
from devloop.app.housekeeping import KEPT, Housekeeper, find_leftovers, remove
from devloop.app.lock import only_session
from devloop.app.pods import PodFeed
from devloop.build.made import Ledger, Recorded
from devloop.build.select import make_builder, preflight
from devloop.cluster.connection import Connection
from devloop.cluster.deployer import Deployments
from devloop.cluster.guard import check_context, check_namespace
from devloop.cluster.in_use import digests_in_use
from devloop.cluster.logstream import (
    node_platforms,
    open_log,
    registry_hosting,
    server_time,
)
from devloop.cluster.podports import PodPorts
from devloop.cluster.view import ClusterView
from devloop.config.files import check_files
from devloop.config.problems import ConfigErrors, nearest
from devloop.engine.bus import EventBus
from devloop.engine.cancel import Cancel
from devloop.engine.loop import Engine, ServicePorts
from devloop.errors import Cancelled, DevloopError, ExitStatus
from devloop.events import DiagnosticRaised, SessionEnded, SessionStarted
from devloop.forward.door import FrontDoor
from devloop.logs.follower import LogFollower
from devloop.model import WorkloadRef
from devloop.registry.client import Client
from devloop.registry.discovery import check as check_registry
from devloop.registry.discovery import discover
from devloop.registry.kindload import KindLoader
from devloop.registry.registries import Registries
from devloop.ui import make_sink, say_early
from devloop.ui.session_file import SessionFile
from devloop.watch.hints import WatchHints
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Hints
    from devloop.errors import Diagnosis
    from devloop.model import PodView, PushTarget
    from devloop.sync import FileSync
    from devloop.ui import Color, OutputKind

__all__ = ["Session", "connect", "find_registry", "ledger_of", "workload_of"]


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
        flag=None,
        config=project.registry,
        hosting=registry_hosting(connection),
        kind_cluster=_kind_cluster(connection.context),
    )


def ledger_of(project: Project) -> Ledger:
    """The list of the images made for the project."""
    return Ledger(project.state_dir / "made.jsonl")


# How many services are called by their names while a session starts.
_NAMED = 8

# How long the end may take to hand out what was said last.
_DRAIN = 0.5


class Session:
    """One `devloop dev` or `devloop run`, from loading its project to its last event.

    `run` belongs to the main thread and returns the exit status; `stop` may come from any thread,
    before or while it runs, and makes it end soon."""

    def __init__(
        self,
        load: Callable[[], LoadedProject],
        *,
        mode: Literal["dev", "run"],
        only: tuple[str, ...] = (),
        output: OutputKind = "auto",
        color: Color = "auto",
        tail: bool = False,
    ) -> None:
        self._load = load
        self._mode = mode
        self._only = only
        self._tail = tail
        self._say = functools.partial(
            say_early, output=output, stream=sys.stdout, color=color, env=os.environ
        )
        self._sink = make_sink(output, sys.stdout, color=color, env=os.environ)
        self._bus = EventBus(on_lost=self._reader_gone)
        self._cancel = Cancel()
        self._stopped: tuple[ExitStatus, str] | None = None
        self._engine: Engine | None = None
        self._status = ExitStatus.BUG
        self._bug: BaseException | None = None

    @property
    def _stays(self) -> bool:
        """Whether it lasts until it is stopped: then logs are followed and ports kept open."""
        return self._mode == "dev" or self._tail

    def stop(self, status: ExitStatus, why: str = "") -> None:
        if self._stopped is None:
            self._stopped = (status, why)
        self._cancel.set()
        if self._engine is not None:
            self._engine.stop(status, why)

    def run(self) -> ExitStatus:
        """Raises whatever was a bug, after everything is taken down."""
        self._bus.subscribe("output", self._sink, batch=self._sink.batch)
        # Not in the main thread: that one must be free to run the signal handlers.
        thread = threading.Thread(target=self._run, name="devloop-session", daemon=True)
        thread.start()
        thread.join()
        why = self._stopped[1] if self._stopped else ""
        self._bus.publish(SessionEnded(exit_code=int(self._status), why=why))
        self._bus.close(_DRAIN)
        with contextlib.suppress(OSError):
            self._sink.close()
        if self._bug is not None:
            raise self._bug
        return self._status

    def _say_early(self, text: str) -> None:
        try:
            self._say(text)
        except OSError as error:
            self._reader_gone("output", error)
            raise Cancelled from error

    def _reader_gone(self, name: str, error: Exception) -> None:
        """Nobody reads what a session says any more (`| head`): it ends as if stopped."""
        del name
        if isinstance(error, OSError):
            self.stop(ExitStatus.DONE, "the reader of the output went away")
        else:
            self._bug = error
            self.stop(ExitStatus.BUG, "the output failed")

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._status = self._start_and_run(stack)
        except Cancelled:
            self._status = self._stopped[0] if self._stopped else ExitStatus.BUG
        except DevloopError as error:
            for diagnosis in getattr(error, "diagnoses", (error.diagnosis,)):
                self._warn(diagnosis)
            self._status = error.exit_status
        except Exception as error:  # noqa: BLE001 - carried to the main thread
            self._bug = error
            self._status = ExitStatus.BUG

    def _start_and_run(self, stack: contextlib.ExitStack) -> ExitStatus:
        loaded = self._load()
        project = loaded.project
        services = _chosen(project, self._only)
        if problems := check_files(loaded):
            raise ConfigErrors(problems)
        stack.enter_context(only_session(project))
        self._say_early(f"{_names(project, services)}: asking the cluster, its registry and Docker")
        self._bus.subscribe("session-file", SessionFile(project.state_dir))
        connection = stack.enter_context(connect(project))
        target, registry, platforms = self._preflight(project, services, connection, stack)
        services = _built_for(services, platforms)
        view = ClusterView(connection, on_bug=self._bug_in_listener)
        stack.callback(view.close)
        feed = PodFeed(
            view,
            {s.name: workload_of(s, connection.namespace) for s in services.values()},
            publish=self._bus.publish,
        )
        self._bus.publish(
            SessionStarted(
                version=__version__,
                mode=self._mode,
                project=project.name,
                root=str(project.root),
                context=connection.context,
                namespace=connection.namespace,
                registry=str(target),
                services=tuple(services),
                pid=os.getpid(),
            )
        )
        self._open_front_door(services, connection, feed, stack)
        self._follow_logs(services, connection, feed, stack)
        feed.start()
        deployments = Deployments(
            project,
            connection,
            view,
            in_place_by_default=self._mode == "dev",
            show=loaded.show,
        )
        stack.callback(deployments.close)
        for diagnosis in deployments.heal():
            self._warn(diagnosis)
        sources = {name: ServiceSource(s, project.root) for name, s in services.items()}
        ledger = ledger_of(project)
        registries = stack.enter_context(Registries(registry))
        housekeeper = self._keep_house(project, connection, ledger, registry, stack)
        syncers = self._syncers(services, connection, feed, stack)
        builders = {
            name: make_builder(
                service,
                project,
                target,
                verify=sources[name].unchanged,
                manifests=registry,
                loader=KindLoader(target.kind_cluster) if target.kind_cluster else None,
                open_registry=registries,
            )
            for name, service in services.items()
        }
        for builder in builders.values():
            stack.callback(builder.close)
        self._engine = Engine(
            {
                name: ServicePorts(
                    source=sources[name],
                    builder=Recorded(name, builders[name], ledger, housekeeper.made),
                    deployer=deployments.deployer(service),
                    syncer=syncers.get(name),
                    roll_back=(service.deploy.on_failure or _ON_FAILURE[self._mode]) == "rollback",
                )
                for name, service in services.items()
            },
            mode=self._mode,
            root=project.root,
            publish=self._bus.publish,
            hints=self._hints(loaded, sources, view) if self._mode == "dev" else None,
        )
        return self._run_engine(self._engine)

    def _hints(
        self, loaded: LoadedProject, sources: Mapping[str, ServiceSource], view: ClusterView
    ) -> Hints:
        watched = WatchHints(
            tuple(sources.values()), files=loaded.files, warn=self._warn, woke=view.reconnect
        )
        return ConfigNotice(watched, loaded.files, show=loaded.show, tell=self._warn)

    def _run_engine(self, engine: Engine) -> ExitStatus:
        if self._stopped is not None:
            return self._stopped[0]
        status = engine.run()
        if self._tail and status is ExitStatus.DONE:
            while not self._cancel.wait(3600):
                pass
        return self._stopped[0] if self._stopped else status

    def _preflight(
        self,
        project: Project,
        services: Mapping[str, Service],
        connection: Connection,
        stack: contextlib.ExitStack,
    ) -> tuple[PushTarget, Client | None, tuple[str, ...]]:
        """Find out at once, and side by side, what is not there: Docker, cluster, registry; and
        the nodes' platforms."""
        with ThreadPoolExecutor(2, thread_name_prefix="devloop-preflight") as pool:
            docker = pool.submit(preflight, services.values())
            platforms = pool.submit(node_platforms, connection)
            target = find_registry(project, connection)
            registry = None
            if target.push:
                registry = stack.enter_context(Client(target.push))
            check_registry(target, registry, self._cancel)
            docker.result()
            return target, registry, platforms.result()

    def _syncers(
        self,
        services: Mapping[str, Service],
        connection: Connection,
        feed: PodFeed,
        stack: contextlib.ExitStack,
    ) -> dict[str, FileSync]:
        made: dict[str, FileSync] = {}
        for service in services.values() if self._mode == "dev" else ():
            syncer = file_sync(service, connection, feed, self._warn)
            if syncer is not None:
                stack.callback(syncer.close)
                made[service.name] = syncer
        return made

    def _keep_house(
        self,
        project: Project,
        connection: Connection,
        ledger: Ledger,
        registry: Client | None,
        stack: contextlib.ExitStack,
    ) -> Housekeeper:
        def tidy(cancel: Cancel) -> None:
            found = find_leftovers(
                ledger,
                project.state_dir,
                host=registry.host if registry else "",
                keep=KEPT,
                in_use=digests_in_use(connection),
                cancel=cancel,
            )
            remove(found, ledger, registry, cancel)

        housekeeper = Housekeeper(ledger, tidy)
        housekeeper.start()
        stack.callback(housekeeper.close)
        return housekeeper

    def _open_front_door(
        self,
        services: Mapping[str, Service],
        connection: Connection,
        feed: PodFeed,
        stack: contextlib.ExitStack,
    ) -> None:
        ports = [(s.name, p.local, p.container) for s in services.values() for p in s.ports]
        if not ports or not self._stays:
            return
        dial = PodPorts(connection)
        stack.callback(dial.close)
        door = FrontDoor(ports, dial, feed, self._bus.publish)
        door.start()
        stack.callback(door.close)

    def _follow_logs(
        self,
        services: Mapping[str, Service],
        connection: Connection,
        feed: PodFeed,
        stack: contextlib.ExitStack,
    ) -> None:
        if not self._stays:
            return

        def read(
            pod: PodView, container: str, *, since_time: str | None, previous: bool, cancel: Cancel
        ) -> Iterator[bytes]:
            return open_log(
                connection,
                pod.namespace,
                pod.name,
                container,
                since_time=since_time,
                previous=previous,
                cancel=cancel,
            )

        follower = LogFollower(
            read,
            self._bus.publish,
            patterns={s.name: s.logs.containers for s in services.values()},
            since=server_time(connection),
        )
        stack.callback(follower.close)
        stack.callback(feed.listen(follower.pods_changed))

    def _warn(self, diagnosis: Diagnosis) -> None:
        self._bus.publish(DiagnosticRaised.of(diagnosis))

    def _bug_in_listener(self, error: BaseException) -> None:
        self._bug = error
        self.stop(ExitStatus.BUG, "a follower of the cluster failed")


_ON_FAILURE = {"dev": "keep", "run": "rollback"}


def _chosen(project: Project, only: tuple[str, ...]) -> dict[str, Service]:
    """The services named on the command line, all when none is. Errors: config/unknown-service."""
    for name in only:
        if name not in project.services:
            meant = nearest(name, project.services)
            raise DevloopError.of(
                "config/unknown-service",
                f"devloop.yaml has no service {name!r}",
                cause="services: " + ", ".join(project.services),
                suggestions=(f"did you mean {meant}?",) if meant else (),
            )
    return {name: s for name, s in project.services.items() if not only or name in only}


def _names(project: Project, services: Mapping[str, Service]) -> str:
    """What a session works for, in few words."""
    names = ", ".join(services) if len(services) <= _NAMED else f"{len(services)} services"
    return names if names == project.name else f"{project.name} ({names})"


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _built_for(services: Mapping[str, Service], platforms: tuple[str, ...]) -> dict[str, Service]:
    """The services with the nodes' platform, where none is given and this computer's is another.

    Builders make images for their own platform; asking for it by name as well would only keep
    them from the caches that they filled without."""
    own = f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"
    if not platforms or own in platforms:
        return dict(services)
    return {
        name: service.model_copy(
            update={
                "build": service.build.model_copy(
                    update={"platform": service.build.platform or platforms[0]}
                )
            }
        )
        for name, service in services.items()
    }


def _kind_cluster(context: str) -> str | None:
    """The kind cluster behind a context; kind names its contexts `kind-<cluster>`."""
    return context.removeprefix("kind-") if context.startswith("kind-") else None
