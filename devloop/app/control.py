"""What a session does when somebody asks it to over its control socket, or with a key."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

from devloop.control.history import History
from devloop.control.protocol import (
    SOCKET,
    EventsRequest,
    PauseRequest,
    ResumeRequest,
    RollbackRequest,
    StatusRequest,
    TriggerRequest,
    check_service,
    done,
    parse_request,
    refused,
    requests,
)
from devloop.control.server import ControlServer
from devloop.engine.facts import Asked, AskedBack, Continued, Paused
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.events import PageOpened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from devloop.control.protocol import Request
    from devloop.engine.loop import Engine
    from devloop.events import Event, Record
    from devloop.web.server import PageServer


_BY_COMMAND = "paused by `devloop pause`: `devloop resume` goes on"
_BY_KEY = "paused: p or `devloop resume` goes on"
_BY_PAGE = "paused on the page: Resume there, p or `devloop resume` goes on"


class SessionControl:
    """What a session can be asked for, its control socket, and its page once somebody wants one;
    `close` it after the session's last event. `problem` is why there is no socket, None where there
    is one. `publish` is told where the page is."""

    def __init__(
        self,
        state_dir: Path,
        services: Iterable[str],
        *,
        publish: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.problem: Diagnosis | None = None
        self._engine: Engine | None = None  # once there is one
        self._named = tuple(services)
        self._ids = itertools.count(1)
        self._history = History()
        self._publish = publish
        self._opening = threading.Lock()
        self._closed = False
        self._page: PageServer | None = None
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
        self._engine = engine

    @property
    def _services(self) -> tuple[str, ...]:
        return tuple(self._engine.services) if self._engine is not None else self._named

    def take(self, records: Sequence[Record]) -> None:
        """Note what has happened: all of it, in its order."""
        self._history.extend(records)
        if self._server is not None:
            self._server.notify()
        if self._page is not None:
            self._page.notify()

    def page_for_once(self) -> str:
        """As `open_page`, an address for one browser that is started with it."""
        url = self.open_page()
        return url if self._page is None else self._page.url_for_once()

    def open_page(self, port: int = 0) -> str:
        """The address of the session's page, which is served from the first call on: at `port`, 0
        for the usual one or any. Errors: env/port-busy, env/no-session."""
        # Imported late: whoever wants no page needs none of it.
        from devloop.web.server import PageServer  # noqa: PLC0415

        with self._opening:
            if self._closed:
                raise DevloopError.of(Code.ENV_NO_SESSION, "the session has ended")
            if self._page is not None:
                return self._page.url
            try:
                page = PageServer(port or None, self._history, self._answer, facts=self._facts)
            except OSError as error:
                raise DevloopError.of(
                    Code.ENV_PORT_BUSY,
                    f"the page cannot be served at port {port}",
                    severity="warning",
                    cause=error.strerror or str(error),
                    suggestions=("--web alone takes a port that is free",),
                ) from error
            self._page = page
        self._publish(PageOpened(url=page.url))
        return page.url

    def withdraw(self) -> None:
        """The next session may have the socket's place."""
        if self._server is not None:
            self._server.withdraw()

    def close(self, seconds: float) -> None:
        """Hand out the last events, for so many seconds, and end."""
        end = time.monotonic() + seconds
        with self._opening:
            self._closed = True
        if self._server is not None:
            self._server.close(seconds)
        if self._page is not None:
            self._page.close(max(0.0, end - time.monotonic()))

    def rebuild(self) -> None:
        """Another try of every service. Errors: usage/paused, env/session-starting."""
        self._trigger(TriggerRequest())

    def go_back(self) -> None:
        """The last good image of the service with the newest iteration. Errors: usage/paused,
        usage/no-rollback, env/session-starting."""
        self._roll_back(RollbackRequest())

    def pause_or_resume(self) -> None:
        """Whichever it is not. Errors: env/session-starting."""
        self._at_work().post(Continued() if self._paused else Paused(_BY_KEY))

    @property
    def _paused(self) -> bool:
        return bool(self._history.state().get("paused"))

    def _facts(self) -> Mapping[str, Any]:
        return {"services": self._services, "requests": requests()}

    def _answer(self, line: bytes) -> bytes:
        """To a request from the page."""
        try:
            request = parse_request(line)
            if isinstance(request, PauseRequest):
                self._at_work().post(Paused(_BY_PAGE))
                return done()
            return done(**self._handle(request))
        except DevloopError as error:
            return refused(error)

    def _handle(self, request: Request) -> Mapping[str, Any]:
        match request:
            case StatusRequest():
                return {"state": self._history.state()}
            case EventsRequest():
                check_service(request.service, self._services)
                return {"services": self._services, "state": self._history.state()}
            case TriggerRequest():
                return self._trigger(request)
            case RollbackRequest():
                return self._roll_back(request)
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

    def _roll_back(self, request: RollbackRequest) -> Mapping[str, Any]:
        check_service(request.service, self._services)
        engine = self._unpaused()
        service, way = engine.way_back(request.service)
        number = next(self._ids)
        engine.post(AskedBack(service=service, id=number))
        back = {"iter": way.iteration, "image": way.image.pinned}
        return {"id": number, "services": (service,), "back": back}

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
