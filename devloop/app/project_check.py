"""What is wrong with a project that can be known without Docker and without a cluster: what
`devloop check` prints, in the words that `devloop run` would use.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from devloop.app.workloads import uses_of
from devloop.base.cancel import Cancel
from devloop.base.ignore_rules import IgnoreFileError, IgnoreRules
from devloop.builders.build_context import ignore_file
from devloop.builders.cache_mounts import advice, as_built
from devloop.builders.dockerfile import load
from devloop.cluster.deploy.check import check_manifests
from devloop.cluster.deploy.image_uses import refuse_cycle
from devloop.config.files import check_files
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.manifests import renderings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.config.builds import Build
    from devloop.config.loader import LoadedProject


def check_project(loaded: LoadedProject) -> tuple[Diagnosis, ...]:
    """All that is found, each once: files that are missing, else what is in them; where nothing is
    wrong, what would be faster."""
    if missing := check_files(loaded):
        return missing
    found: list[Diagnosis] = []
    for build in _builds(loaded).values():
        found += _of_build(loaded, build)
    found += _of_manifests(loaded)
    if not any(each.severity == "error" for each in found):
        found += _hints(loaded)
    return tuple(dict.fromkeys(found))


def _builds(loaded: LoadedProject) -> dict[object, Build]:
    services = loaded.project.services.values()
    return {(s.build.dockerfile, s.build.target): s.build for s in services}


def _of_build(loaded: LoadedProject, build: Build) -> Iterator[Diagnosis]:
    if build.builder == "command":
        return
    shown = loaded.show(build.dockerfile)
    try:
        dockerfile = load(build.dockerfile, shown)
    except DevloopError as error:
        yield from error.diagnoses
        return
    for problem in dockerfile.problems:
        yield Diagnosis(
            code=Code.BUILD_DOCKERFILE_PARSE,
            message=problem.message,
            location=Location(shown, problem.line, problem.column),
            suggestions=(problem.suggestion,) if problem.suggestion else (),
        )
    ignoring = [(ignore_file(build.context, build.dockerfile), build.ignore)]
    # A named context has one at its top alone.
    named = (directory / ".dockerignore" for directory in build.directories.values())
    ignoring += [(file, ()) for file in named if file.is_file()]
    for file, more in ignoring:
        if file is None:
            continue
        try:
            IgnoreRules.parse(file.read_bytes().decode("utf-8", "surrogateescape"), more)
        except IgnoreFileError as error:
            place = Location(loaded.show(file), error.line, error.column) if error.line else None
            yield Diagnosis(code=Code.CONFIG_VALUE, message=str(error), location=place)
        except OSError as error:
            yield Diagnosis(
                code=Code.ENV_FILE_UNREADABLE,
                message=f"cannot read {loaded.show(file)}",
                cause=error.strerror or str(error),
            )


def _of_manifests(loaded: LoadedProject) -> Iterator[Diagnosis]:
    services = loaded.project.services
    # Without a cluster: a chart that asks for its namespace gets the one that is known.
    namespace = loaded.project.namespace or "default"
    renderings = renderings_of(services.values(), show=loaded.show, namespace=namespace)
    try:
        needs = {name: service.needs for name, service in services.items()}
        refuse_cycle(uses_of(loaded.project, renderings), needs)
    except DevloopError as error:
        yield from error.diagnoses
    for name, rendering in renderings.items():
        notes: list[Diagnosis] = []
        try:
            manifests = rendering.objects(Cancel(), notes.append)
            notes += check_manifests(
                manifests,
                services[name],
                services,
                allow_namespaces=loaded.project.allow_namespaces,
            )
        except DevloopError as error:
            yield from error.diagnoses
        yield from notes


def _hints(loaded: LoadedProject) -> Iterator[Diagnosis]:
    """Where a build would be faster with a cache."""
    for build in {build.dockerfile: build for build in _builds(loaded).values()}.values():
        if build.builder in ("auto", "buildx"):
            with contextlib.suppress(OSError):
                yield from advice(as_built(build), build, loaded.show(build.dockerfile))
