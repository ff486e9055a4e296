"""A service's `test`, wired: where it runs, and how lines of it become places of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders.failed_place import failed_place
from devloop.builders.tester import DockerTests
from devloop.cluster.api.pod_tests import PodTests
from devloop.cluster.rollout.stack_traces import crash_location
from devloop.hooks.tester import ImageTester

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.cluster.api.connection import Connection
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.schema import Project, Service
    from devloop.errors import Location
    from devloop.events import Event


def service_tester(
    service: Service,
    project: Project,
    connection: Connection | None,
    paths: ProjectPaths,
    publish: Callable[[Event], None],
) -> ImageTester:
    """The tester of a service with a `test`. Without a `connection` there are no pods."""
    docker = DockerTests(service.name, project.root)
    pods = PodTests(connection, service.name, project.name) if connection is not None else None
    places = {
        "docker": (docker,),
        "pod": (pods,) if pods is not None else (docker,),
        "auto": (docker, pods) if pods is not None else (docker,),
    }

    def locate(lines: Sequence[str]) -> Location | None:
        return failed_place(lines, paths) or crash_location(lines, paths)

    return ImageTester(
        service=service.name,
        test_=service.test,
        places=places[service.test.on],
        publish=publish,
        locate=locate,
    )
