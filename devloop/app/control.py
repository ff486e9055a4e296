"""What a session does when somebody asks it to over its control socket, or with a key."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from devloop.control.history import History
from devloop.control.protocol import (
    SOCKET,
    EventsRequest,
    PauseRequest,
    ResumeRequest,
    StatusRequest,
    TriggerRequest,
    check_service,
)
from devloop.control.server import ControlServer
from devloop.engine.state import Asked, Continued, Paused
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from devloop.control.protocol import Request
    from devloop.engine.loop import Engine
    from devloop.events import Record


_BY_COMMAND = "paused by `devloop pause`: `devloop resume` goes on"
_BY_KEY = "paused: p or `devloop resume` goes on"


class SessionControl:
    """What a session can be asked for, and its control socket; `close` it after the session's last
    event. `problem` is why there is no socket, None where there is one."""

    def __init__(self, state_dir: Path, services: Iterable[str]) -> None:
        self.problem: Diagnosis | None = None
        self._engine: Engine | None = None  # once there is one
        self._services = tuple(services)
        self._ids = itertools.count(1)
        self._history = History()
        self._server: ControlServer | None = None
        try:
            self._server = ControlServer(state_dir / SOCKET, self._history, self._handle)
        except OSError as error:
            self.problem = Diagnosis(
                code=Code.ENV_CONTROL,
                severity="warning",
                message="this session has no control socket: `devloop logs` and its like do not "
                "reach it",
                cause=error.strerror or str(error),
            )

    def steer(self, engine: Engine) -> None:
        """From now on requests reach `engine`, and its services are what there is: also those that
        the manifests of the named ones use."""
        self._services = tuple(engine.services)
        self._engine = engine

    def take(self, records: Sequence[Record]) -> None:
        """Note what has happened: all of it, in its order."""
        self._history.extend(records)
        if self._server is not None:
            self._server.notify()

    def withdraw(self) -> None:
        """The next session may have the socket's place."""
        if self._server is not None:
            self._server.withdraw()

    def close(self, seconds: float) -> None:
        """Hand out the last events, for so many seconds, and end."""
        if self._server is not None:
            self._server.close(seconds)

    def rebuild(self) -> None:
        """Another try of every service. Errors: usage/paused, env/session-starting."""
        self._trigger(TriggerRequest())

    def pause_or_resume(self) -> None:
        """Whichever it is not. Errors: env/session-starting."""
        self._at_work().post(Continued() if self._paused else Paused(_BY_KEY))

    @property
    def _paused(self) -> bool:
        return bool(self._history.state().get("paused"))

    def _handle(self, request: Request) -> Mapping[str, Any]:
        match request:
            case StatusRequest():
                return {"state": self._history.state()}
            case EventsRequest():
                check_service(request.service, self._services)
                return {"services": self._services, "state": self._history.state()}
            case TriggerRequest():
                return self._trigger(request)
            case PauseRequest():
                self._at_work().post(Paused(_BY_COMMAND))
            case ResumeRequest():
                self._at_work().post(Continued())
        return {}

    def _trigger(self, request: TriggerRequest) -> Mapping[str, Any]:
        check_service(request.service, self._services)
        services = (request.service,) if request.service else self._services
        engine = self._unpaused()
        number = next(self._ids)
        for service in services:
            engine.post(Asked(service=service, id=number, fresh=request.fresh))
        return {"id": number, "services": services}

    def _unpaused(self) -> Engine:
        if self._paused:
            raise DevloopError.of(
                Code.USAGE_PAUSED,
                "the session is paused, so nothing is built or deployed",
                suggestions=("`devloop resume`, then ask again",),
            )
        return self._at_work()

    def _at_work(self) -> Engine:
        if self._engine is None:
            raise DevloopError.of(
                Code.ENV_SESSION_STARTING,
                "the session has not begun to work yet",
                cause="it waits for the cluster, its registry or Docker",
                suggestions=("try again in a moment",),
            )
        return self._engine
