"""What works for one service: its source, builder, deployer and syncer, made together, exchanged
together when devloop.yaml has other settings for it, and closed together.

Everything that is opened for a service is here, so that an edit of devloop.yaml leaves nothing of
it behind. Which service is to have other parts is decided elsewhere, see reload.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, Literal

from devloop.app.debugging import supervision_blocker
from devloop.app.given_images import GivenImages, GivenSource, PushedImages
from devloop.app.good_images import ServiceImages, image_exists
from devloop.app.project_paths import project_paths
from devloop.app.service_hooks import deployed_only, service_hooks
from devloop.app.sources import source_of
from devloop.base.lazy_dataclass import dataclass
from devloop.builders.built_images import RecordingBuilder
from devloop.builders.dev_image import DevImages, debug_off
from devloop.builders.select import make_builder
from devloop.cluster.deploy.check import check_manifests
from devloop.engine.tasks import ServicePorts
from devloop.events import DiagnosticRaised, StepProgress
from devloop.model import Step
from devloop.registry.node_images import NodeImageLoader
from devloop.sync.contents import RememberedContents

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.app.housekeeping import Housekeeper
    from devloop.app.pods import PodFeed
    from devloop.app.preflight import Environment
    from devloop.base.cancel import Cancel
    from devloop.builders.base_moves import BaseLookup, BaseMoves
    from devloop.builders.built_images import BuiltImages
    from devloop.builders.delta.builder import DeltaBuilder
    from devloop.builders.needs import NeedsBuilder
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.deployments import Deployments
    from devloop.cluster.deploy.project_configs import ProjectConfigs
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Hooks, Rendering, ServiceBuilder, Source, Tester
    from devloop.errors import Diagnosis, Severity
    from devloop.events import Event
    from devloop.model import ImageRef
    from devloop.registry.client import Registries
    from devloop.sync.syncer import FileSync
    from devloop.watch.source import ServiceSource


_ON_FAILURE = {"dev": "keep", "run": "rollback"}

# How long, in seconds, workers that were cancelled are waited for before their parts are closed.
_CANCELLED = 1.0


@dataclass(eq=False, kw_only=True)
class ServiceParts:
    """The parts of all services of a session. `renderings` are the project's; `close` closes them.
    `sources`, `paths` and `dockerfiles` are by service. `images` are there already, by service or
    in the registry; None: they are built. For one thread at a time."""

    project: Project
    connection: Connection
    environment: Environment
    renderings: Mapping[str, Rendering]
    configs: ProjectConfigs
    mode: Literal["dev", "run"]
    pull: bool
    publish: Callable[[Event], None]
    registries: Registries
    lookup: BaseLookup
    bases: BaseMoves
    feed: PodFeed
    built: BuiltImages
    housekeeper: Housekeeper
    attached: Callable[[str], bool] = lambda _: False
    images: Mapping[str, ImageRef] | Literal["pushed"] | None = None

    def __post_init__(self) -> None:
        self.sources: dict[str, ServiceSource] = {}
        self.paths: dict[str, ProjectPaths] = {}
        self.dockerfiles: dict[str, Path] = {}
        self._ports: dict[str, set[int]] = {}
        self._stacks: dict[str, contextlib.ExitStack] = {}
        # What was exchanged, each with the event that says when nobody uses it any more.
        self._left: list[tuple[threading.Event, contextlib.ExitStack]] = []

    def make(
        self, service: Service, deployments: Deployments, *, first: bool = True
    ) -> ServicePorts:
        """The parts of a service, in place of any that it has; what those hold is to be taken with
        `held` before. `first`: what runs may be an earlier session's."""
        stack = contextlib.ExitStack()
        name = service.name
        if self.images is not None and self.images != "pushed":
            return self._given(service, self.images[name], deployments)
        try:
            source = self._source(service)
            paths = project_paths(service.build, source.last_snapshot)
            contents = RememberedContents(self.project.state_dir / "contents", name)
            builder, inner = self.builder(service, source, stack, contents)
            syncer = self.syncer(service, paths, inner, stack, contents, first=first)
        except BaseException:
            stack.close()
            raise
        self.sources[name], self.paths[name] = source, paths
        self.dockerfiles[name] = service.build.dockerfile
        self._stacks[name] = stack
        if service.debug is not None and (reason := self._unsupervised(service)):
            severity: Severity = "info" if self.mode == "run" else "warning"
            self._warn(name, debug_off(service.debug, reason, severity))
        if self.images == "pushed":
            target = self.environment.target
            pushed = PushedImages(service, target, self.environment.registry)
            return self._service_ports(service, source, pushed, deployments)
        ports = self._service_ports(service, source, builder, deployments, syncer)
        hooks = self._hooks(service, source)
        return dataclasses.replace(ports, hooks=hooks, tester=self._tester(service, paths))

    def _given(self, service: Service, image: ImageRef, deployments: Deployments) -> ServicePorts:
        """The parts for an image that is there; what is on disk plays no part."""
        target = self.environment.target
        loader = NodeImageLoader(target.nodes) if target.nodes else None
        source = GivenSource(image, functools.partial(self._check_manifests, service))
        builder = GivenImages(image, target, loader)
        return self._service_ports(service, source, builder, deployments)

    def _service_ports(
        self,
        service: Service,
        source: Source,
        builder: ServiceBuilder,
        deployments: Deployments,
        syncer: FileSync | None = None,
    ) -> ServicePorts:
        name = service.name
        deployer = deployments.deployer(service)
        return ServicePorts(
            source=source,
            builder=builder,
            deployer=deployer,
            built=deployer.image_built,
            syncer=syncer,
            roll_back=self.rolls_back(service),
            needs=service.needs,
            hooks=self._hooks(deployed_only(service), None),
            exists=functools.partial(image_exists, self.environment.registry),
            good=ServiceImages(
                self.project.state_dir, self.connection.context, self.connection.namespace, name
            ),
        )

    def _hooks(self, service: Service, source: ServiceSource | None) -> Hooks | None:
        return service_hooks(
            service,
            self.project,
            self.connection,
            self.feed,
            source=source,
            repository=self.environment.target.pull_repository(service.image),
            publish=self.publish,
        )

    def _tester(self, service: Service, paths: ProjectPaths) -> Tester | None:
        if not service.test.command:
            return None
        # Imported late, as the syncer's.
        from devloop.app.service_test import service_tester  # noqa: PLC0415

        return service_tester(service, self.project, self.connection, paths, self.publish)

    def rolls_back(self, service: Service) -> bool:
        """Whether a failed rollout of the service is taken back."""
        return (service.deploy.on_failure or _ON_FAILURE[self.mode]) == "rollback"

    def held(self, name: str) -> contextlib.ExitStack:
        """What is open for a service; it is the caller's from now on, see `leave`."""
        return self._stacks.pop(name, contextlib.ExitStack())

    def forget(self, name: str) -> None:
        """The service is gone."""
        self.sources.pop(name, None)
        self.paths.pop(name, None)
        self.dockerfiles.pop(name, None)
        self._ports.pop(name, None)

    def connect_to(self, service: Service) -> None:
        """A process that starts anew is to listen on what the service's ports lead to."""
        # One that is given by its name is among those that the container declares.
        now = {p.container for p in service.ports if isinstance(p.container, int) and not p.target}
        known = self._ports.setdefault(service.name, set())
        known |= now
        known &= now

    def leave(self, released: threading.Event, stack: contextlib.ExitStack) -> None:
        """Close what a service had, once no worker uses it: soon, or with a later `tidy`."""
        self._left.append((released, stack))
        released.wait(_CANCELLED)
        self.tidy()

    def tidy(self) -> None:
        """Close what nobody uses any more."""
        done = [stack for released, stack in self._left if released.is_set()]
        self._left = [each for each in self._left if not each[0].is_set()]
        for stack in done:
            stack.close()

    def close(self) -> None:
        with contextlib.ExitStack() as all_:
            for stack in (*(stack for _, stack in self._left), *self._stacks.values()):
                all_.callback(stack.close)
            self._left, self._stacks = [], {}

    # --- one by one ----------------------------------------------------------------------------

    def _source(self, service: Service) -> ServiceSource:
        name = service.name
        return source_of(
            service,
            self.project.root,
            self.configs.watched(name) if name in self.renderings else None,
            bases=self.bases,
            lookup=self.lookup,
            open_registry=self.registries,
            target=self.environment.target.push,
            check=functools.partial(self._check_manifests, service),
            progress=functools.partial(self._scan_progress, name),
            warn=functools.partial(self._warn, name),
        )

    def builder(
        self,
        service: Service,
        source: ServiceSource,
        stack: contextlib.ExitStack,
        contents: RememberedContents,
    ) -> tuple[RecordingBuilder, DeltaBuilder | NeedsBuilder]:
        """The service's builder, and the one inside it that knows what the image shows that it
        built last."""
        target = self.environment.target
        inner = make_builder(
            service,
            self.project,
            target,
            written_since=source.written_since,
            registry=self.environment.registry,
            loader=NodeImageLoader(target.nodes) if target.nodes else None,
            open_registry=self.registries,
            once=self.mode == "run",
            last_built=contents.last_built,
            pull=self.pull,
        )
        stack.callback(inner.close)
        under_way = self.housekeeper.building
        made = RecordingBuilder(service.name, inner, self.built, under_way, contents.built)
        if not self._supervised(service):
            return made, inner
        assert self.environment.registry is not None  # noqa: S101 - else it is not
        platform = service.build.platform or next(iter(self.environment.platforms), None)
        dev = DevImages(made, self.environment.registry, platform, service.debug)
        return RecordingBuilder(service.name, dev, self.built, under_way), inner

    def _supervised(self, service: Service) -> bool:
        """Whether the service's image gets devloop's supervisor."""
        return not self._unsupervised(service)

    def _unsupervised(self, service: Service) -> str:
        registry = self.environment.registry is not None
        if service.build.platforms and len(self.environment.platforms) > 1:
            return "the image is for several platforms, and so are the nodes"
        if self.project.only_built(service.name):
            return "nothing of it runs: it is built for others"
        return supervision_blocker(service, self.mode, self.connection, registry=registry)

    def syncer(
        self,
        service: Service,
        paths: ProjectPaths,
        inner: DeltaBuilder | NeedsBuilder,
        stack: contextlib.ExitStack,
        contents: RememberedContents,
        *,
        first: bool = True,
    ) -> FileSync | None:
        """What writes the service's files into containers, None where nothing does."""
        hot = (
            not service.sync
            and service.deploy.replace in ("auto", "hot")
            and self._supervised(service)
        )
        if self.mode != "dev" or not (service.sync or hot) or service.test.command:
            # What is tested is an image, and nothing is served before.
            return None
        # Imported late: most sessions have none, and every import delays the start.
        from devloop.app.file_sync import file_sync  # noqa: PLC0415

        self.connect_to(service)
        made = file_sync(
            service,
            self.connection,
            self.feed,
            functools.partial(self._warn, service.name),
            paths=paths,
            builder=inner,
            hot=hot,
            contents=contents,
            ports=self._ports[service.name],
            early=first,
            halted=functools.partial(self.attached, service.name),
        )
        stack.callback(made.close)
        return made

    def _check_manifests(self, service: Service, cancel: Cancel) -> None:
        """Before anything is built for them."""
        if (rendering := self.renderings.get(service.name)) is not None:
            check_manifests(
                rendering.objects(cancel),
                service,
                self.project.services,
                allow_namespaces=self.project.allow_namespaces,
            )

    def _scan_progress(self, service: str, message: str) -> None:
        self.publish(StepProgress(iter=None, service=service, step=Step.SCAN, message=message))

    def _warn(self, service: str, diagnosis: Diagnosis) -> None:
        self.publish(DiagnosticRaised.of(diagnosis, service=service))
