"""Hooks, wired: where they run, what they are told, and how a command gets into the containers."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.cluster.api.exec_stream import follow_exec
from devloop.config.commands import PICKED, HookCommand, HookCommands
from devloop.errors import Code, DevloopError
from devloop.hooks.runner import HookRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.app.pods import PodFeed
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Project, Service
    from devloop.events import Event
    from devloop.hooks.runner import InContainer
    from devloop.model import ContainerView, PodView
    from devloop.watch.source import ServiceSource


# A command in a container is a part of an address, which has its limits.
_MOST_CHARACTERS = 2_000


def service_hooks(
    service: Service,
    project: Project,
    connection: Connection | None = None,
    feed: PodFeed | None = None,
    *,
    source: ServiceSource | None,
    repository: str = "",
    publish: Callable[[Event], None],
) -> HookRunner | None:
    """The hooks of a service, None where it has none. `repository` is what its containers run, of
    which there are none without a `connection`; without a `source` nobody looks at the disk."""
    if service.hooks == HookCommands():
        return None
    containers: InContainer = _no_container
    where = {}
    if connection is not None and feed is not None:
        containers = _Containers(service, connection, feed, repository)
        where = {
            "DEVLOOP_CONTEXT": connection.context,
            "DEVLOOP_NAMESPACE": connection.namespace,
        }
    return HookRunner(
        service=service.name,
        hooks=service.hooks,
        root=project.root,
        env={"DEVLOOP_PROJECT": project.name, **where},
        files=_list_of(project, service),
        source=source,
        publish=publish,
        in_container=containers,
        replaces_builds=not service.sync,
    )


def _no_container(
    hook: HookCommand, env: Mapping[str, str], on_line: Callable[[str], None], cancel: Cancel
) -> None:
    del hook, env, on_line, cancel


def deployed_only(service: Service) -> Service:
    """The service with the hooks that are left where an earlier stage has built its image."""
    hooks = replace(service.hooks, before_build=(), after_build=())
    return replace(service, hooks=hooks)


def _list_of(project: Project, service: Service) -> Path:
    return project.state_dir / "changed-files" / service.name


class _Containers:
    """The running containers of a service."""

    def __init__(
        self, service: Service, connection: Connection, feed: PodFeed, repository: str
    ) -> None:
        self._service = service
        self._connection = connection
        self._feed = feed
        self._repository = repository

    def __call__(
        self,
        hook: HookCommand,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        cancel: Cancel,
    ) -> str | None:
        """See hooks.runner.InContainer."""
        pods = [p for p in self._feed.serving.current(self._service.name) if not p.deleting]
        found = [(p, c) for p in pods if (c := self._container(hook, p)) is not None]
        if not found:
            return None
        for pod, container in found:
            try:
                ended = follow_exec(
                    self._connection,
                    pod.namespace,
                    pod.name,
                    container.name,
                    cancel,
                    argv=_with(env, hook.command),
                    limit=hook.timeout,
                    on_line=on_line,
                )
            except ConnectionResetError:
                ended = "the connection to the container broke off"
            if ended:
                return f"{ended} ({pod.name}, {container.name})"
        return ""

    def _container(self, hook: HookCommand, pod: PodView) -> ContainerView | None:
        """The one of a pod that is meant, if it runs. Errors: hook/failed for none of the name."""
        containers = [each for each in pod.containers if not each.init]
        name = self._service.deploy.container or "" if hook.container == PICKED else hook.container
        if name:
            meant = [each for each in pod.containers if each.name == name]
            if not meant and containers:
                names = ", ".join(each.name for each in containers)
                raise DevloopError.of(
                    Code.HOOK_FAILED,
                    f"{pod.name} has no container {name!r}",
                    location=hook.location,
                    cause=f"its containers are {names}",
                )
        else:
            parts = self._repository, f"{self._repository}@", f"{self._repository}:"
            meant = [c for c in containers if c.image == parts[0] or c.image.startswith(parts[1:])]
            meant = meant or containers[:1]
        return next((each for each in meant if each.state == "running"), None)


def _with(env: Mapping[str, str], argv: tuple[str, ...]) -> tuple[str, ...]:
    """A shell gets the variables as well; whether there is another way into a container's
    environment depends on its image."""
    if argv[:2] != ("sh", "-c") or len(argv) != 3:
        return argv
    told = {name: text for name, text in env.items() if name != "DEVLOOP_CHANGED_FILES_LIST"}
    told = {name: text[:_MOST_CHARACTERS] for name, text in told.items()}
    words = " ".join(f"{name}={shlex.quote(text)}" for name, text in told.items())
    return (*argv[:2], f"export {words}\n{argv[2]}")
