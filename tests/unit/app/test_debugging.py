"""Which services an editor can attach to, and what is said where a debugger does not start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from devloop.app.debugging import DebuggerNotices, supervision_blocker
from devloop.config.builds import Build
from devloop.config.schema import Debug, Deploy, Service
from devloop.errors import Code, Location
from devloop.events import DiagnosticRaised, Event, LogLine

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection

PLACE = Location("devloop.yaml", 5, 5)


def _service(kind: Literal["python", "node", "go"] | None = "python", **deploy: Any) -> Service:
    root = Path("/project")
    return Service(
        name="web",
        image="web",
        build=Build(context=root, dockerfile=root / "Dockerfile"),
        deploy=Deploy(workload_name="web", **deploy),
        debug=Debug(kind=kind, port=5678, location=PLACE) if kind else None,
    )


class _Connection:
    local_tool = ""

    def __init__(self, context: str) -> None:
        self.context, self.server = context, "https://10.0.0.1:6443"


@pytest.mark.parametrize(
    ("service", "mode", "context", "registry", "reason"),
    [
        (_service(), "dev", "kind-dev", True, ""),
        (_service(), "run", "kind-dev", True, "`devloop run` starts the process as it is"),
        (_service(), "dev", "team", True, "the context team is not known to be a local cluster"),
        (_service(), "dev", "kind-dev", False, "there is no registry"),
        (_service(supervise=False), "dev", "kind-dev", True, "`deploy: {supervise: false}`"),
    ],
)
def test_why_a_process_has_no_debugger(
    service: Service, mode: Literal["dev", "run"], context: str, registry: bool, reason: str
) -> None:
    connection = cast("Connection", _Connection(context))
    found = supervision_blocker(service, mode, connection, registry=registry)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def _line(text: str, service: str = "web") -> LogLine:
    return LogLine(service=service, pod="web-1", container="web", text=text)


def _taken(*lines: LogLine, kind: Literal["python", "node", "go"] | None = "python") -> list[Event]:
    found: list[Event] = []
    notices = DebuggerNotices({"web": _service(kind)}, found.append)
    for line in lines:
        notices.take(line)
    return [event for event in found if event not in lines]


MISSING = "devloop: debug: not started: debugpy is not in the image: pip install debugpy"
BUSY = "devloop: debug: not started: port 5678 of the container: Address already in use"


def test_a_debugger_that_says_it_did_not_start_is_a_problem_at_its_key_once() -> None:
    (found,) = _taken(_line(MISSING), _line("hello"), _line(MISSING))
    assert isinstance(found, DiagnosticRaised)
    assert (found.code, found.severity) == (Code.DEBUG_NOT_STARTED, "warning")
    assert (found.service, found.location) == ("web", PLACE)
    assert found.message.endswith("web: debugpy is not in the image: pip install debugpy")
    assert found.suggestions


def test_each_reason_is_said() -> None:
    missing, busy = cast("list[DiagnosticRaised]", _taken(_line(MISSING), _line(BUSY)))
    assert missing.suggestions != busy.suggestions
    assert "port" in busy.suggestions[0]


def test_lines_of_services_without_a_debugger_are_theirs() -> None:
    assert _taken(_line(MISSING), kind=None) == []
    assert _taken(_line(MISSING, "other")) == []
    assert _taken(_line(f"they say {MISSING}")) == []


def test_every_line_goes_on() -> None:
    found: list[Event] = []
    notices = DebuggerNotices({}, found.append)
    notices.use({"web": replace(_service(), name="web")})
    notices.take(_line("hello"))
    notices.take(_line(BUSY))
    assert [type(event) for event in found] == [LogLine, LogLine, DiagnosticRaised]
