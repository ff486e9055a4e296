"""The adapters of one session and what connects them; the only module that names them all.

Everything that is opened here is put on the session's stack to be closed in the reverse order.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

from devloop.app.config_notice import ConfigNotice, problems_now, targets_of
from devloop.app.forward_targets import ForwardTargets
from devloop.app.housekeeping import KEPT, UNKNOWN_SECONDS, Housekeeper, find_leftovers, remove
from devloop.app.pods import PodFeed
from devloop.app.project_paths import project_paths
from devloop.app.sources import source_of
from devloop.base.lazy_dataclass import dataclass
from devloop.builders.base_moves import BaseLookup, BaseMoves
from devloop.builders.built_images import BuiltImages, RecordingBuilder
from devloop.builders.dev_image import DevImages
from devloop.builders.select import make_builder
from devloop.cluster.api.log_stream import open_log
from devloop.cluster.api.node_logs import NodeLogs
from devloop.cluster.api.pod_ports import PodPorts
from devloop.cluster.deploy.check import check_manifests
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.deploy.guard import local_reason
from devloop.cluster.deploy.project_configs import ProjectConfigs
from devloop.cluster.deploy.status import digests_in_use
from devloop.engine.loop import Engine, ServicePorts
from devloop.engine.state import ChangedOutside, Hinted
from devloop.events import DiagnosticRaised, HoldStarted, StepProgress
from devloop.logs.follower import LogFollower
from devloop.model import Step
from devloop.registry.client import Registries
from devloop.registry.kindload import KindLoader
from devloop.watch.hints import WatchHints

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devloop.app.preflight import Environment
    from devloop.base.cancel import Cancel
    from devloop.builders.delta.builder import DeltaBuilder
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Service
    from devloop.engine.ports import Hints, Rendering
    from devloop.errors import Diagnosis
    from devloop.events import Event
    from devloop.model import PodView, WorkloadRef
    from devloop.sync.syncer import FileSync
    from devloop.watch.source import ServiceSource


_LAST_LINES = 0.3  # seconds that the logs of containers that ended get at the end of a run
# How long, in seconds, a session's start waits at most for registries to say whether base images
# moved.
_PULL_PATIENCE = 15.0
_RUN_PATIENCE = 0.5
_ON_FAILURE = {"dev": "keep", "run": "rollback"}


@dataclass(eq=False)
class Wiring:
    """One session's adapters. `renderings` are the project's, `workloads` what runs each service as
    far as its manifests say now, the picked one first. `publish` takes events, `load` reads the
    configuration once more."""

    loaded: LoadedProject
    services: Mapping[str, Service]
    connection: Connection
    environment: Environment
    view: ClusterView
    renderings: Mapping[str, Rendering]
    workloads: Mapping[str, tuple[WorkloadRef, ...]]
    mode: Literal["dev", "run"]
    publish: Callable[[Event], None]
    stack: contextlib.ExitStack
    load: Callable[[], LoadedProject]
    pull: bool = False

    def __post_init__(self) -> None:
        self._project = self.loaded.project
        self._registries = self.stack.enter_context(Registries(self.environment.registry))
        target = self.environment.target.push
        self._lookup = BaseLookup(self._registries, target, pull=self.pull)
        self._bases = self._look_at_bases()
        self._feed = PodFeed(self.view, self.workloads, publish=self.publish)

    def open_port_forwards(self) -> None:
        """Errors: env/port-busy."""
        wanted = [
            (service.name, port) for service in self.services.values() for port in service.ports
        ]
        if not wanted:
            return
        # Imported late: asyncio takes a while, and many sessions have no ports.
        from devloop.port_forward.forwarder import PortForwarder  # noqa: PLC0415

        targets = ForwardTargets(
            self._feed.picked,
            self._places([(name, port.target) for name, port in wanted if port.target]),
            view=self.view,
            connection=self.connection,
        )
        dial = PodPorts(self.connection, number_of=targets.port_of)
        self.stack.callback(dial.close)
        forwarder = PortForwarder(
            [(name, port.local, port.shown, port.address, port.target) for name, port in wanted],
            dial,
            targets,
            self.publish,
        )
        forwarder.start()
        self.stack.callback(targets.close)
        targets.start()
        self.stack.callback(forwarder.close)

    def _places(self, targets: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The namespace of each object that a service's ports lead to: the one of its own picked
        workload. What two services name is where the first one's is."""
        places: dict[str, str] = {}
        for name, target in targets:
            refs = self.workloads.get(name, ())
            places.setdefault(target, refs[0].namespace if refs else self.connection.namespace)
        return places

    def follow_logs(self) -> None:
        def read(pod: PodView, container: str, **how: Any) -> Iterator[bytes]:
            return open_log(self.connection, pod.namespace, pod.name, container, **how)

        follower = LogFollower(
            read,
            self.publish,
            patterns={s.name: s.logs.containers for s in self.services.values()},
            since=self.environment.began,
            files=NodeLogs(self.connection),
        )
        self.stack.callback(follower.close)
        if self.mode == "run":
            # It ends by itself when a rollout failed: what the app wrote last is the reason.
            self.stack.callback(follower.drain, _LAST_LINES)
        self.stack.callback(self._feed.listen(follower.pods_changed))

    def engine(self) -> Engine:
        """The engine with everything it needs. What an earlier session left half done in the
        cluster is recovered first."""
        self._feed.start()
        configs = ProjectConfigs(self.renderings, self.connection.namespace)
        sources = {
            name: source_of(
                service,
                self._project.root,
                configs.watched(name) if name in self.renderings else None,
                bases=self._bases,
                lookup=self._lookup,
                open_registry=self._registries,
                target=self.environment.target.push,
                check=functools.partial(self._check_manifests, service),
                progress=functools.partial(self._scan_progress, name),
                warn=functools.partial(self._warn, service=name),
            )
            for name, service in self.services.items()
        }
        paths = {
            name: project_paths(service.build, sources[name].last_snapshot)
            for name, service in self.services.items()
        }
        deployments = Deployments(
            self._project,
            self.connection,
            self.view,
            in_place_by_default=self.mode == "dev",
            renderings=self.renderings,
            configs=configs,
            project_paths=paths,
            runs=self._feed.follow,
        )
        self._deployments = deployments
        for diagnosis in deployments.recover():
            self._warn(diagnosis)
        builders, inner = self._builders(sources)
        syncers = self._syncers(paths, inner)
        # Closed first: what is paused must run again, whatever else takes too long to close.
        self.stack.callback(deployments.close)
        engine = Engine(
            {
                name: ServicePorts(
                    source=sources[name],
                    builder=builders[name],
                    deployer=deployments.deployer(service),
                    syncer=syncers.get(name),
                    roll_back=(service.deploy.on_failure or _ON_FAILURE[self.mode]) == "rollback",
                )
                for name, service in self.services.items()
            },
            mode=self.mode,
            root=self._project.root,
            publish=self.publish,
            hints=self._hints(sources) if self.mode == "dev" else None,
        )
        self._bases.on_move(functools.partial(self._base_moved, engine))
        if self.mode == "dev":
            self._deployments.outside.start(
                lambda service, change: engine.post(ChangedOutside(service, change)),
                lambda service, restart: self._warn(restart, service),
            )
        return engine

    def _look_at_bases(self) -> BaseMoves:
        """At once, while others answer. Who asked for it waits for the registry; a `run`, which
        ends with what it sees at its start, for a moment."""
        patience = _PULL_PATIENCE if self.pull else _RUN_PATIENCE if self.mode == "run" else None
        bases = BaseMoves(
            {name: service.build for name, service in self.services.items()},
            self._lookup,
            self._project.state_dir,
            report=self._warn,
            patience=patience,
            lasting=self.mode == "dev",
        )
        self.stack.callback(bases.close)
        bases.start()
        return bases

    def _scan_progress(self, service: str, message: str) -> None:
        self.publish(StepProgress(iter=None, service=service, step=Step.SCAN, message=message))

    def _base_moved(self, engine: Engine, service: str) -> None:
        where = frozenset({self.services[service].build.dockerfile})
        engine.post(Hinted(service=service, paths=where))

    def hand_over(self, cancel: Cancel) -> None:
        """Wait a moment until Services lead to new pods only, for whoever calls them next."""

        def report(service: str, reason: str) -> None:
            self.publish(
                HoldStarted(service=service, iter=None, reason=reason, code="", until=None)
            )

        self._deployments.hand_over(report, cancel)

    def _check_manifests(self, service: Service, cancel: Cancel) -> None:
        """Before anything is built for them."""
        if (rendering := self.renderings.get(service.name)) is not None:
            check_manifests(
                rendering.objects(cancel),
                service,
                self._project.services,
                allow_namespaces=self._project.allow_namespaces,
            )

    def _builders(
        self, sources: Mapping[str, ServiceSource]
    ) -> tuple[dict[str, RecordingBuilder], dict[str, DeltaBuilder]]:
        """The builders, and the ones inside them that know what the image shows that each built
        last."""
        target = self.environment.target
        built = BuiltImages(self._project.state_dir)
        housekeeper = self._keep_house(built)
        made: dict[str, RecordingBuilder] = {}
        inner: dict[str, DeltaBuilder] = {}
        for name, service in self.services.items():
            builder = make_builder(
                service,
                self._project,
                target,
                written_since=sources[name].written_since,
                registry=self.environment.registry,
                loader=KindLoader(target.kind_cluster) if target.kind_cluster else None,
                open_registry=self._registries,
                once=self.mode == "run",
                pull=self.pull,
            )
            self.stack.callback(builder.close)
            inner[name] = builder
            made[name] = RecordingBuilder(name, builder, built, housekeeper.building)
            if self._supervised(service):
                assert self.environment.registry is not None  # noqa: S101 - else it is not
                platforms = self.environment.platforms
                platform = service.build.platform or next(iter(platforms), None)
                dev = DevImages(made[name], self.environment.registry, platform)
                made[name] = RecordingBuilder(name, dev, built, housekeeper.building)
        return made, inner

    def _supervised(self, service: Service) -> bool:
        """Whether the service's image gets devloop's supervisor: for people at work on a cluster of
        their own."""
        connection = self.connection
        reason = local_reason(connection.context, connection.server, lambda: connection.local_tool)
        local = reason is not None
        registry = self.environment.registry is not None
        return self.mode == "dev" and local and registry and service.deploy.supervise

    def _keep_house(self, built: BuiltImages) -> Housekeeper:
        registry = self.environment.registry

        def tidy(cancel: Cancel) -> None:
            found = find_leftovers(
                built,
                self._project.state_dir,
                host=registry.host if registry else "",
                keep=KEPT,
                in_use=digests_in_use(self.connection),
                unknown_since=UNKNOWN_SECONDS,
                cancel=cancel,
            )
            remove(found, built, registry, cancel)

        housekeeper = Housekeeper(built, tidy)
        housekeeper.start()
        self.stack.callback(housekeeper.close)
        return housekeeper

    def _syncers(
        self,
        paths: Mapping[str, ProjectPaths],
        builders: Mapping[str, DeltaBuilder],
    ) -> dict[str, FileSync]:
        hot = {
            name
            for name, service in self.services.items()
            if not service.sync
            and service.deploy.replace in ("auto", "hot")
            and self._supervised(service)
        }
        in_dev = self.services.values() if self.mode == "dev" else ()
        wanted = [service for service in in_dev if service.sync or service.name in hot]
        if not wanted:
            return {}
        # Imported late: most sessions have none, and every import delays the start.
        from devloop.app.file_sync import file_sync  # noqa: PLC0415

        made: dict[str, FileSync] = {}
        for service in wanted:
            notify = functools.partial(self._warn, service=service.name)
            made[service.name] = file_sync(
                service,
                self.connection,
                self._feed,
                notify,
                paths=paths[service.name],
                builder=builders[service.name],
                hot=service.name in hot,
                contents=self._project.state_dir / "contents",
            )
            self.stack.callback(made[service.name].close)
        return made

    def _hints(self, sources: Mapping[str, ServiceSource]) -> Hints:
        files = self.loaded.files
        watched = WatchHints(
            tuple(sources.values()),
            files=(*files, *(target for file in files for target in targets_of(file))),
            warn=self._warn,
            woke=self.view.reconnect,
        )
        return ConfigNotice(
            watched,
            files,
            show=self.loaded.show,
            check=functools.partial(problems_now, self.load),
            publish=self.publish,
        )

    def _warn(self, diagnosis: Diagnosis, service: str | None = None) -> None:
        self.publish(DiagnosticRaised.of(diagnosis, service=service))
