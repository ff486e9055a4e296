"""Chooses the builder of a service and reports why; the package's entry point for app.py.

It must not build: it looks at what is installed and hands on. A builder is imported when it is
chosen: at most starts the image is there already.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from devloop.builders.built_images import BuiltImage, BuiltImages, CachedImages, CachingBuilder
from devloop.builders.daemonless.builder import DaemonlessBuilder
from devloop.builders.delta.builder import DeltaBuilder
from devloop.builders.docker_cli import ask_docker
from devloop.builders.image.base_image import DockerImages, RegistryImages
from devloop.builders.job import LIMIT, Job, shown_path
from devloop.builders.needs import NeedsBuilder
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.builders.buildx import Buildx
    from devloop.builders.delta.builder import LastBuilt
    from devloop.builders.job import Loader, OpenRegistry, Registry
    from devloop.config.builds import Build
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Builder, Reporter
    from devloop.model import ImageRef, PushTarget, Scan


_VERSION = re.compile(r"\bv?(\d+)\.(\d+)(?:\.\d+)?\b")
# The first with --progress=rawjson, and the one that Debian 13 has.
_OLDEST = (0, 13)
# What stands for buildx with Podman: the same words on the command line, other options and output.
_PODMAN = re.compile(r"\b(?:buildah|podman)\b", re.IGNORECASE)
_WITH_PODMAN = (
    "start Podman's API (systemctl --user start podman.socket) and name it in DOCKER_HOST",
    "or `builder: command` with podman build and podman push",
)
_INSTALL = "install it: https://docs.docker.com/build/install-buildx/"
# PATH and DOCKER_CONFIG with which buildx works: the plugin does not go away during a session.
_WORKING: set[tuple[str, str]] = set()


def make_builder(
    service: Service,
    project: Project,
    target: PushTarget,
    written_since: Callable[[Scan], frozenset[str] | None],
    *,
    registry: Registry | None,
    loader: Loader | None = None,
    open_registry: OpenRegistry | None = None,
    limit: float = LIMIT,
    once: bool = False,
    last_built: LastBuilt | None = None,
    pull: bool = False,
    split_gain: float | None = None,
) -> DeltaBuilder | NeedsBuilder:
    """The builder for one service, good for a whole session; `close` it at the end.

    For `written_since` see `Job`. `registry` is the client of the target's registry, `loader` is
    needed for a target without one; with `open_registry`, images are made without Docker where that
    is provably the same, and parts of images where that saves `split_gain` seconds (None: as many
    as pay). `pull`: see `Job`. `once`: no image follows the first, so none is looked into for how
    to carry it on. The first one carries on that of an earlier session which `last_built` finds.
    What is installed is looked at when the first build begins; no error is raised here."""
    images = CachedImages(project.state_dir / "images.json")

    def make(build: Build) -> DeltaBuilder:
        job = Job(
            build=build,
            image=service.image,
            root=project.root,
            target=target,
            shown=shown_path(build.dockerfile),
            written_since=written_since,
            registry=registry,
            loader=loader,
            limit=limit,
            pull=pull or build.pull,
        )
        split = _split(service, project, job, open_registry, split_gain)
        fallback = CachingBuilder(job, _fallback(job, open_registry, split), images)
        carried_on = registry if target.push else None
        return DeltaBuilder(job, fallback, carried_on, images, once=once, last_built=last_built)

    build = service.build
    return NeedsBuilder(build, make) if build.needs else make(build)


def _split(
    service: Service,
    project: Project,
    job: Job,
    open_registry: OpenRegistry | None,
    gain: float | None,
) -> Callable[[Buildx], Builder]:
    registry, built = job.registry, BuiltImages(project.state_dir)

    def split(buildx: Buildx) -> Builder:
        if open_registry is None or registry is None or not job.target.push:
            return buildx
        from devloop.builders.split.builder import SPLIT_GAIN, SplitBuilder  # noqa: PLC0415 - chosen

        # Not the service's own images, of which so many are kept.
        name = f"{service.name} (base)"
        return SplitBuilder(
            job,
            buildx,
            open_registry,
            record=lambda image: built.add(BuiltImage.of(name, image)),
            gain=SPLIT_GAIN if gain is None else gain,
        )

    return split


def _fallback(
    job: Job, open_registry: OpenRegistry | None, split: Callable[[Buildx], Builder]
) -> Builder:
    if job.build.builder == "command":
        from devloop.builders.command import Command  # noqa: PLC0415 - chosen

        return Command(job)
    docker = _DockerBuilder(job, split)
    if job.build.builder != "auto" or open_registry is None:
        return docker
    local = RegistryImages() if job.pull else DockerImages()
    return DaemonlessBuilder(job, docker, open_registry, local)


class _DockerBuilder:
    """buildx where it works, with what `split` puts in front of it, else the classic API, unless
    the config demands one of them. Chosen when the first build begins."""

    def __init__(self, job: Job, split: Callable[[Buildx], Builder]) -> None:
        self._job = job
        self._split = split
        self._builder: Builder | None = None

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        if self._builder is None:
            self._builder = self._chosen(reporter, cancel)
        return self._builder.build(scan, reporter, cancel)

    def _chosen(self, reporter: Reporter, cancel: Cancel) -> Builder:
        wanted = self._job.build.builder
        if wanted != "classic":
            problem = buildx_problem(cancel)
            if problem is None:
                from devloop.builders.buildx import Buildx  # noqa: PLC0415 - chosen

                return self._split(Buildx(self._job))
            if wanted == "buildx":
                raise DevloopError.of(
                    Code.ENV_TOOL_MISSING,
                    "docker buildx cannot be used",
                    cause=problem,
                    suggestions=_WITH_PODMAN
                    if _PODMAN.search(problem)
                    else (_INSTALL, "or set builder: auto in devloop.yaml"),
                )
            reporter.diagnostic(
                Diagnosis(
                    code=Code.ENV_TOOL_MISSING,
                    severity="info",
                    message="building with Docker's classic builder",
                    cause=problem,
                    suggestions=_WITH_PODMAN if _PODMAN.search(problem) else (_INSTALL,),
                )
            )
        if self._job.build.cache:
            from devloop.builders.cache_mounts import no_effect  # noqa: PLC0415 - few need it

            reporter.diagnostic(no_effect("Docker's classic builder"))
        from devloop.builders.classic import Classic  # noqa: PLC0415 - the docker SDK loads slowly

        return Classic(self._job)


def buildx_problem(cancel: Cancel) -> str | None:
    """Why buildx cannot be used, None when it can."""
    where = (os.environ.get("PATH", ""), os.environ.get("DOCKER_CONFIG", ""))
    if where in _WORKING:
        return None
    if shutil.which("docker") is None:
        return "the docker CLI is not installed"
    answer = ask_docker("buildx", "version", cancel=cancel, limit=10.0)
    if answer is None:
        return "docker buildx did not answer"
    if answer.status != 0:
        return "the buildx plugin is not installed"
    if _PODMAN.search(answer.out):
        return f"docker is Podman here, whose buildx is another program: {answer.out.strip()[:80]}"
    version = _VERSION.search(answer.out)
    if version and (int(version[1]), int(version[2])) < _OLDEST:
        return f"buildx {version[0]} is older than {_OLDEST[0]}.{_OLDEST[1]}"
    _WORKING.add(where)
    return None
