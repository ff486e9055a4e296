"""`devloop build`: the images of a project, made by the same engine and builders as everywhere
else, with nothing deployed.

It works in CI, where there is no cluster: one is asked only to learn where to push, when nobody
says so. Keeps no lock and writes nothing that belongs to a session which runs beside it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import KW_ONLY, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from devloop import __version__
from devloop.app import connect, find_registry, prepare_state_dir
from devloop.app.given_images import GivenImages, GivenSource
from devloop.app.image_file import check_place, images_for
from devloop.app.project_paths import project_paths
from devloop.app.service_hooks import service_hooks
from devloop.app.service_test import service_tester
from devloop.app.session import (
    Session,
    as_written,
    built_for,
    chosen,
    names_of,
    needed_by,
    with_profiles,
)
from devloop.app.sources import source_of
from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import ignore_line
from devloop.base.platforms import own_platform
from devloop.builders.base_moves import BaseLookup, BaseMoves
from devloop.builders.built_images import BuiltImages
from devloop.builders.local_tags import tag_local
from devloop.builders.preflight import preflight
from devloop.builders.select import make_builder
from devloop.cluster.api.log_stream import node_platforms
from devloop.engine.loop import Engine
from devloop.engine.tasks import ServicePorts
from devloop.errors import Code, DevloopError, Diagnosis, ExitStatus
from devloop.events import DiagnosticRaised, SessionStarted, StepProgress
from devloop.model import PushTarget, Step
from devloop.registry.client import Registries, RegistryClient
from devloop.registry.discovery import check as check_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.base.cancel import Cancel
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Project, Service
    from devloop.model import ImageRef
    from devloop.watch.source import ServiceSource

# How long, in seconds, a build waits for registries to say whether base images moved.
_PULL_PATIENCE = 15.0
_PATIENCE = 0.5


@dataclass(eq=False)
class BuildSession(Session):
    """Builds, and with `push` pushes, the images of the services `only`; `built` has them after
    it has run. `more` adds the services that come along, `finish` is called with the images once
    all of them are there. `tag` is one more name for each."""

    _: KW_ONLY
    push: bool = False
    tag: str = ""
    more: Callable[[LoadedProject, Mapping[str, Service], PushTarget], Mapping[str, Service]] = (
        lambda _loaded, services, _target: services
    )
    tests: bool = False  # run the services' tests as well, in the images of `images` if it is given
    writes: Path | None = None  # what `finish` writes
    finish: Callable[[LoadedProject, Mapping[str, ImageRef]], None] = lambda _loaded, _images: None
    built: dict[str, ImageRef] = field(default_factory=dict, init=False)
    _sources: dict[str, ServiceSource] = field(default_factory=dict, init=False)

    def _start_and_run(self, stack: contextlib.ExitStack) -> ExitStatus:
        loaded = self.load()
        project = loaded.project
        services = self._asked_for(loaded)
        given = None
        if self.images is not None:
            tested = {name: each for name, each in services.items() if each.test.command}
            given, services = images_for(self.images, tested), tested
        what = f"{names_of(project, services, self.only)}{with_profiles(loaded)}"
        self._report_early(f"{what}: asking the registry and Docker")
        prepare_state_dir(project.state_dir)
        target, platforms = self._target(project)
        services = as_written(built_for(self.more(loaded, services, target), platforms))
        if given is None:
            self._check_trust(loaded, services)
        registry = None
        if target.push:
            registry = stack.enter_context(RegistryClient(target.push))
            check_registry(target, registry, self._cancel)
        preflight(services.values(), self._cancel, pushed=bool(target.push))
        builds = [service.build for service in services.values()]
        platform = {each for b in builds for each in b.all_platforms or (own_platform(),)}
        self._bus.publish(
            SessionStarted(
                version=__version__,
                mode="test" if self.tests else "build",
                project=project.name,
                root=str(project.root),
                context="",
                namespace="",
                registry=target.push,
                services=tuple(services),
                pid=os.getpid(),
                platform=", ".join(sorted(platform)),
            )
        )
        if given is None:
            ports = self._ports(project, services, target, registry, stack)
        else:
            ports = {name: self._given(project, services[name], given[name]) for name in given}
        self._engine = Engine(
            ports,
            mode="run",
            until="test" if self.tests else "build",
            root=project.root,
            publish=self._bus.publish,
        )
        status = ExitStatus.DONE if self._cancel.is_set() else self._engine.run()
        if status is not ExitStatus.DONE or self._cancel.is_set():
            return self._stopped[0] if self._stopped else status
        self._warn_of_what_is_written(services)
        if self.tag:
            for name, image in self.built.items():
                self.built[name] = _tagged(image, self.tag, registry, self._cancel)
        if target.push:
            pushed = [(image.repository, image.digest) for image in self.built.values()]
            BuiltImages(project.state_dir).release(pushed)
        self.finish(loaded, {name: self.built[name] for name in services})
        return status

    def _asked_for(self, loaded: LoadedProject) -> Mapping[str, Service]:
        """The services, once nothing stands in the way that can be seen without any work."""
        if self.writes is not None:
            check_place(self.writes)
        if self.images is None:
            services = self._checked(loaded)
        else:  # nothing of the file runs on this computer
            services = needed_by(loaded.project, chosen(loaded.project, self.only))
        if self.tests and not any(each.test.command for each in services.values()):
            raise _no_tests(loaded, services)
        return services

    def _target(self, project: Project) -> tuple[PushTarget, tuple[str, ...]]:
        """Where to, and the platforms of the nodes where a cluster had to be asked for that."""
        if not self.push:
            return PushTarget(), ()
        if project.registry:
            return PushTarget(push=project.registry), ()
        with _asked_for_its_registry(), connect(project) as connection:
            target = find_registry(project, connection)
            if not target.push:
                raise DevloopError.of(
                    Code.REGISTRY_UNREACHABLE,
                    "there is no registry to push to",
                    cause="devloop.yaml names none, and the cluster describes none (KEP-1755)",
                    suggestions=(
                        "name one: `registry: HOST` in devloop.yaml, or --registry HOST",
                        "devloop run loads images into the nodes of a kind cluster",
                    ),
                )
            return target, node_platforms(connection)

    def _ports(
        self,
        project: Project,
        services: Mapping[str, Service],
        target: PushTarget,
        registry: RegistryClient | None,
        stack: contextlib.ExitStack,
    ) -> dict[str, ServicePorts]:
        registries = stack.enter_context(Registries(registry))
        lookup = BaseLookup(registries, target.push, pull=self.pull)
        bases = BaseMoves(
            {name: service.build for name, service in services.items()},
            lookup,
            project.state_dir,
            report=self._warn,
            patience=_PULL_PATIENCE if self.pull else _PATIENCE,
            lasting=False,
        )
        stack.callback(bases.close)
        bases.start()
        found: dict[str, ServicePorts] = {}
        for name, service in services.items():
            source = source_of(
                service,
                project.root,
                None,
                bases=bases,
                lookup=lookup,
                open_registry=registries,
                target=target.push,
                progress=partial(self._scan_progress, name),
                warn=partial(self._warn, service=name),
            )
            builder = make_builder(
                service,
                project,
                target,
                written_since=source.written_since,
                registry=registry,
                open_registry=registries if target.push else None,
                once=True,
                pull=self.pull,
            )
            stack.callback(builder.close)
            self._sources[name] = source
            tester = None
            if self.tests and service.test.command:
                paths = project_paths(service.build, source.last_snapshot)
                tester = service_tester(service, project, None, paths, self._bus.publish)
            found[name] = ServicePorts(
                source=source,
                builder=builder,
                built=partial(self.built.__setitem__, name),
                needs=service.needs,
                hooks=service_hooks(service, project, source=source, publish=self._bus.publish),
                tester=tester,
            )
        return found

    def _given(self, project: Project, service: Service, image: ImageRef) -> ServicePorts:
        """To test an image that is there."""
        paths = project_paths(service.build, lambda: None)
        return ServicePorts(
            source=GivenSource(image, lambda _: None),
            builder=GivenImages(image, PushTarget(), None, here=True),
            built=partial(self.built.__setitem__, service.name),
            tester=service_tester(service, project, None, paths, self._bus.publish),
        )

    def _warn_of_what_is_written(self, services: Mapping[str, Service]) -> None:
        """Once it is known what the images are built from: before, any path may be part of it."""
        if self.writes is None:
            return
        for name, source in self._sources.items():
            # Not as it is typed: `..` leads out of a context.
            if source.concerns(_normal(self.writes)):
                self._warn(_in_the_context(self.writes, services[name]), name)

    def _scan_progress(self, service: str, message: str) -> None:
        self._bus.publish(StepProgress(iter=None, service=service, step=Step.SCAN, message=message))

    def _warn(self, diagnosis: Diagnosis, service: str | None = None) -> None:
        self._bus.publish(DiagnosticRaised.of(diagnosis, service=service))


@contextlib.contextmanager
def _asked_for_its_registry() -> Iterator[None]:
    """A cluster is asked only because nobody says where to push, which is the quicker cure."""
    try:
        yield
    except DevloopError as error:
        diagnosis = error.diagnosis
        hint = "or say where to push: --registry HOST, or `registry: HOST` in devloop.yaml"
        if "--registry" not in " ".join(diagnosis.suggestions):
            diagnosis = replace(diagnosis, suggestions=(*diagnosis.suggestions, hint))
        raise DevloopError(diagnosis) from error


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _no_tests(loaded: LoadedProject, services: Mapping[str, Service]) -> DevloopError:
    name = next(iter(services))
    return DevloopError.of(
        Code.CONFIG_VALUE,
        "there is nothing to test" if len(services) > 1 else f"`{name}` has no `test`",
        location=loaded.locate("services", name),
        cause=None if len(services) == 1 else "no service has a `test`",
        suggestions=("test: [pytest, -q]",),
    )


def _in_the_context(path: Path, service: Service) -> Diagnosis:
    line = ignore_line(os.path.relpath(path, service.build.context))
    return Diagnosis(
        code=Code.BUILD_KEEPS_CHANGING,
        severity="warning",
        message=f"{path} is part of what {service.name} is built from",
        cause="once it is written, the next build makes another image",
        suggestions=(f"add a line to .dockerignore: {line}", "or write it elsewhere"),
    )


def _tagged(image: ImageRef, tag: str, registry: RegistryClient | None, cancel: Cancel) -> ImageRef:
    """The image with one more tag, where it is. Errors: registry/*, env/*."""
    if registry is None or not image.digest:
        tag_local(f"{image.repository}:{image.tag}", f"{image.repository}:{tag}", cancel)
        return replace(image, tag=tag)
    name = registry.name(image.repository)
    manifest = registry.get_manifest(name, image.digest, cancel)
    if manifest is None:
        raise DevloopError.of(
            Code.REGISTRY_PUSH_FAILED, f"the registry does not have {image.pinned} any more"
        )
    registry.put_manifest(name, tag, manifest.body, manifest.media_type, cancel)
    return replace(image, tag=tag)
