"""Which services' processes an editor can attach to, and what is said of those where it cannot.

The debugger is started in the container (agent/debug.c and base/debug_hooks): what it cannot do
is a line in the container's log, which is read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from devloop.cluster.deploy.guard import local_reason
from devloop.errors import Code
from devloop.events import DiagnosticRaised, LogLine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Service
    from devloop.events import Event


_MARK = "devloop: debug: not started: "
_ELSEWHERE = {
    "python": ("pip install debugpy, in the Dockerfile or in the requirements it installs",),
    "node": (),
    "go": (
        "RUN go install github.com/go-delve/delve/cmd/dlv@latest, and COPY it to /usr/local/bin",
        "go build -gcflags='all=-N -l', so that breakpoints and variables are where they should",
    ),
}


def supervision_blocker(
    service: Service,
    mode: Literal["dev", "run"],
    connection: Connection,
    *,
    registry: bool,
) -> str:
    """Why the service's image does not get devloop's supervisor, which starts debuggers as well; ""
    for nothing. It is for people at work on a cluster of their own; `registry`: there is one."""
    if mode != "dev":
        return "`devloop run` starts the process as it is; `devloop dev` with a debugger"
    if not service.deploy.supervise:
        return "`deploy: {supervise: false}`, and the supervisor is what starts the debugger"
    if not registry:
        return "there is no registry, so images go to the nodes as they were built"
    if local_reason(connection.context, connection.server, lambda: connection.local_tool) is None:
        return f"the context {connection.context} is not known to be a local cluster"
    return ""


class DebuggerNotices:
    """Takes a session's events on their way and adds a problem where a debugger says in the log
    that it could not be started. Each once."""

    def __init__(self, services: Mapping[str, Service], publish: Callable[[Event], None]) -> None:
        self._services = services
        self._publish = publish
        self._said: set[tuple[str, str]] = set()

    def use(self, services: Mapping[str, Service]) -> None:
        """These are the session's from now on."""
        self._services = services

    def take(self, event: Event) -> None:
        self._publish(event)
        if isinstance(event, LogLine) and event.text.startswith(_MARK):
            self._not_started(event.service, event.text.removeprefix(_MARK))

    def _not_started(self, name: str, reason: str) -> None:
        service = self._services.get(name)
        debug = service.debug if service is not None else None
        if debug is None or (name, reason) in self._said:
            return
        self._said.add((name, reason))
        suggestions = _ELSEWHERE[debug.kind]
        if reason.startswith("port "):
            suggestions = (f"choose another port: `debug: {{kind: {debug.kind}, port: ...}}`",)
        self._publish(
            DiagnosticRaised(
                code=Code.DEBUG_NOT_STARTED,
                severity="warning",
                message=f"no editor can attach to {name}: {reason}",
                service=name,
                location=debug.location,
                cause="the program runs, without a debugger",
                suggestions=suggestions,
            )
        )
