"""The adapters of one session and what connects them; the only module that names them all.

Everything that is opened here is put on the session's stack to be closed in the reverse order.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

from devloop.app.config_notice import ConfigNotice, with_targets
from devloop.app.debugging import DebuggerNotices, supervision_blocker
from devloop.app.forwards import Forwards
from devloop.app.housekeeping import KEPT, UNKNOWN_SECONDS, Housekeeper, find_leftovers, remove
from devloop.app.pods import PodFeed
from devloop.app.reload import Reload
from devloop.app.service_parts import ServiceParts
from devloop.base.lazy_dataclass import dataclass
from devloop.builders.base_moves import BaseLookup, BaseMoves
from devloop.builders.built_images import BuiltImages
from devloop.cluster.api.log_stream import open_log
from devloop.cluster.api.node_logs import NodeLogs
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.deploy.project_configs import ProjectConfigs
from devloop.cluster.deploy.status import digests_in_use
from devloop.engine.facts import ChangedOutside, Hinted
from devloop.engine.loop import Engine
from devloop.events import DiagnosticRaised, HoldStarted
from devloop.logs.follower import LogFollower
from devloop.manifests import releases_of
from devloop.registry.client import Registries
from devloop.watch.hints import WatchHints

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from devloop.app.preflight import Environment
    from devloop.base.cancel import Cancel
    from devloop.base.current import Current
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.cluster.deploy.session_lease import SessionLeases
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.events import Event
    from devloop.model import ImageRef, PodView, WorkloadRef


_LAST_LINES = 0.3  # seconds that the logs of containers that ended get at the end of a run
# How long, in seconds, a session's start waits at most for registries to say whether base images
# moved.
_PULL_PATIENCE = 15.0
_RUN_PATIENCE = 0.5


@dataclass(eq=False)
class Wiring:
    """One session's adapters. `renderings` are the project's, `workloads` what runs each service as
    far as its manifests say now, the picked one first. `publish` takes events, `load` reads the
    configuration once more; `contents` are those of the files that it was read from. `images`: see
    `ServiceParts`."""

    loaded: LoadedProject
    services: Mapping[str, Service]
    connection: Connection
    environment: Environment
    view: ClusterView
    renderings: Current[str, Rendering]
    workloads: Mapping[str, tuple[WorkloadRef, ...]]
    mode: Literal["dev", "run"]
    publish: Callable[[Event], None]
    stack: contextlib.ExitStack
    load: Callable[[], LoadedProject]
    contents: Mapping[Path, bytes | None]
    pull: bool = False
    images: Mapping[str, ImageRef] | Literal["pushed"] | None = None
    check_trust: Callable[[LoadedProject, Iterable[str]], None] = lambda _loaded, _services: None
    suspend_gitops: bool = False

    def __post_init__(self) -> None:
        self._project = self.loaded.project
        self._registries = self.stack.enter_context(Registries(self.environment.registry))
        target = self.environment.target.push
        self._lookup = BaseLookup(self._registries, target, pull=self.pull)
        self.bases = self._look_at_bases()
        self.feed = PodFeed(self.view, self.workloads, publish=self.publish)
        # Those of a session that stays.
        self.forwards: Forwards | None = None
        self.follower: LogFollower | None = None
        self.debuggers = DebuggerNotices(self.services, self.publish)

    def open_port_forwards(self) -> None:
        """Errors: env/port-busy."""
        registry = self.environment.registry is not None
        self.forwards = Forwards(
            self.feed,
            self.view,
            self.connection,
            self.publish,
            attachable=lambda service: (
                not supervision_blocker(service, self.mode, self.connection, registry=registry)
            ),
        )
        self.stack.callback(self.forwards.close)
        self.forwards.use(self.services)

    def _attached(self, service: str) -> bool:
        return self.forwards is not None and self.forwards.attached(service)

    def follow_logs(self) -> None:
        def read(pod: PodView, container: str, **how: Any) -> Iterator[bytes]:
            return open_log(self.connection, pod.namespace, pod.name, container, **how)

        follower = self.follower = LogFollower(
            read,
            self.debuggers.take,
            patterns={s.name: s.logs.containers for s in self.services.values()},
            since=self.environment.began,
            files=NodeLogs(self.connection),
        )
        self.stack.callback(follower.close)
        if self.mode == "run":
            # It ends by itself when a rollout failed: what the app wrote last is the reason.
            self.stack.callback(follower.drain, _LAST_LINES)
        self.stack.callback(self.feed.listen(follower.pods_changed))

    def engine(self, leases: SessionLeases, *, only: tuple[str, ...] = ()) -> Engine:
        """The engine with everything it needs. What an earlier session left half done in the
        cluster is recovered first. `leases` are those of the services' workloads, `only` the
        services that were asked for, none for all."""
        self.feed.start()
        configs = ProjectConfigs(self.renderings, self.connection.namespace)
        built = BuiltImages(self._project.state_dir)
        parts = ServiceParts(
            project=self._project,
            connection=self.connection,
            environment=self.environment,
            renderings=self.renderings,
            configs=configs,
            mode=self.mode,
            pull=self.pull,
            publish=self.publish,
            registries=self._registries,
            lookup=self._lookup,
            bases=self.bases,
            feed=self.feed,
            built=built,
            housekeeper=self._keep_house(built),
            attached=self._attached,
            images=self.images,
        )
        self.stack.callback(parts.close)
        deployments = Deployments(
            self._project,
            self.connection,
            self.view,
            in_place_by_default=self.mode == "dev",
            renderings=self.renderings,
            configs=configs,
            project_paths=parts.paths,
            runs=self.feed.follow,
            attached=self._attached,
            releases=functools.partial(
                releases_of,
                context=self.connection.context,
                namespace=self.connection.namespace,
                state_dir=self._project.state_dir,
            ),
            suspend_gitops=self.suspend_gitops,
            report=self._warn,
        )
        self._deployments = deployments
        for diagnosis in deployments.recover():
            self._warn(diagnosis)
        services = {
            name: parts.make(service, deployments) for name, service in self.services.items()
        }
        # Closed first: what is paused must run again, whatever else takes too long to close.
        self.stack.callback(deployments.close)
        if self.mode == "run":
            # It is refused before anything is built. A `dev` has its image ready meanwhile.
            refs = dict.fromkeys(ref for own in self.workloads.values() for ref in own)
            seen = (self.view.workload(ref).get(ref.name) for ref in refs)
            deployments.gitops.check(seen, self._warn)
        watched = self._watch(parts)
        engine = Engine(
            services,
            mode=self.mode,
            root=self._project.root,
            publish=self.publish,
            hints=watched,
        )
        if watched is not None:
            reload = Reload(self, parts, deployments, leases, engine, only=only)
            watched.take_over_by(reload.take)
        self.bases.on_move(functools.partial(self._base_moved, engine, parts))
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
        builds = self.images is None or self.images == "pushed"
        bases = BaseMoves(
            {name: service.build for name, service in self.services.items() if builds},
            self._lookup,
            self._project.state_dir,
            report=self._warn,
            patience=patience,
            lasting=self.mode == "dev",
        )
        self.stack.callback(bases.close)
        bases.start()
        return bases

    def _base_moved(self, engine: Engine, parts: ServiceParts, service: str) -> None:
        if (dockerfile := parts.dockerfiles.get(service)) is not None:
            engine.post(Hinted(service=service, paths=frozenset({dockerfile})))

    def hand_over(self, cancel: Cancel) -> None:
        """Wait a moment until Services lead to new pods only, for whoever calls them next."""

        def report(service: str, reason: str) -> None:
            self.publish(
                HoldStarted(service=service, iter=None, reason=reason, code="", until=None)
            )

        self._deployments.hand_over(report, cancel)

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

    def _watch(self, parts: ServiceParts) -> ConfigNotice | None:
        if self.mode != "dev":
            return None
        watched = WatchHints(
            parts.sources.values(),
            files=with_targets(self.loaded.files),
            warn=self._warn,
            woke=self.view.reconnect,
        )
        return ConfigNotice(
            watched, self.loaded, load=self.load, publish=self.publish, contents=self.contents
        )

    def _warn(self, diagnosis: Diagnosis, service: str | None = None) -> None:
        self.publish(DiagnosticRaised.of(diagnosis, service=service))
