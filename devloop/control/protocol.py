"""What is said over the control socket: one JSON object a line, both ways. Pure.

A connection carries one request. The answer is one line with `ok`; that of `events` is followed by
the records of the event stream, as `--output json` has them, until the other side has had enough.
Requests are checked here and nowhere else: whoever gets one can rely on its types.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, ClassVar

from devloop.base.lazy_dataclass import dataclass
from devloop.config.problems import nearest
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


VERSION = 1

# The socket, in the directory of the project's own files.
SOCKET = "control.sock"

# Bytes of a line, newline included: of a request, and of an answer to one.
LONGEST_REQUEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Base of all requests; `op` is the name on the wire."""

    op: ClassVar[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRequest(Request):
    """What the session knows of itself: the answer's `state`."""

    op: ClassVar[str] = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsRequest(Request):
    """What has happened so far, and with `follow` what happens from then on, each once. With `logs`
    the log lines alone, with `quiet` all but them; `service` is one to be spoken of, "" all. The
    answer has the `state` as well, for readers to whom a part of what happened is not kept."""

    op: ClassVar[str] = "events"
    follow: bool = False
    logs: bool = False
    quiet: bool = False
    service: str = ""

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether a record, as an object, is among those that are asked for."""
        kind, of = record.get("type"), record.get("service")
        if kind in ("dropped", "session.ended"):
            return True
        if self.quiet if kind == "log" else self.logs:
            return False
        return not self.service or of in (None, self.service)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRequest(Request):
    """Another iteration whatever the disk has; `fresh`: with a full build; `service` "" is each of
    them. The answer's `id` stands in the `trigger.taken` of each of its `services`, which says
    which iteration it is."""

    op: ClassVar[str] = "trigger"
    service: str = ""
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest(Request):
    """The last good image again; `service` "" is the one with the newest iteration. The answer has
    the `id`, as that of a trigger has, the `services`, which is one, and what it goes `back` to."""

    op: ClassVar[str] = "rollback"
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequest(Request):
    """Build and deploy nothing until resumed."""

    op: ClassVar[str] = "pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequest(Request):
    op: ClassVar[str] = "resume"


_REQUESTS: dict[str, type[Request]] = {
    each.op: each
    for each in (
        StatusRequest,
        EventsRequest,
        TriggerRequest,
        RollbackRequest,
        PauseRequest,
        ResumeRequest,
    )
}


def requests() -> tuple[str, ...]:
    """The name of each request there is."""
    return tuple(_REQUESTS)


def to_line(value: Mapping[str, Any]) -> bytes:
    return json.dumps({"v": VERSION, **value}, separators=(",", ":")).encode() + b"\n"


def request_line(request: Request) -> bytes:
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    return to_line({"op": request.op, **values})


def parse_request(line: bytes) -> Request:
    """Keys that are not known are ignored, as in the event stream. Errors: usage/arguments."""
    value = _object(line)
    op = value.get("op")
    kind = _REQUESTS.get(op) if isinstance(op, str) else None
    if kind is None:
        raise _misunderstood(f"op is one of {', '.join(_REQUESTS)}")
    found: dict[str, Any] = {}
    for field in fields(kind):
        given = value.get(field.name, field.default)
        if given is MISSING or type(given) is not type(field.default):
            raise _misunderstood(f"{field.name} of {op} is a {type(field.default).__name__}")
        found[field.name] = given
    return kind(**found)


def check_service(name: str, services: Iterable[str]) -> None:
    """Errors: config/unknown-service, unless `name` is empty."""
    known = tuple(services)
    if not name or name in known:
        return
    meant = nearest(name, known)
    raise DevloopError.of(
        Code.CONFIG_UNKNOWN_SERVICE,
        f"the session has no service {name!r}",
        cause="services: " + ", ".join(known),
        suggestions=(f"did you mean {meant}?",) if meant else (),
    )


def done(**facts: Any) -> bytes:
    """The answer to a request that was understood and is done."""
    return to_line({"ok": True, **facts})


def refused(error: DevloopError) -> bytes:
    """The answer to one that is not."""
    diagnosis = error.diagnosis
    said = {
        "code": str(diagnosis.code),
        "message": diagnosis.message,
        "cause": diagnosis.cause,
        "suggestions": diagnosis.suggestions,
    }
    return to_line({"ok": False, "error": said})


def parse_answer(line: bytes) -> dict[str, Any]:
    """The facts of an answer; what was refused is raised as the session's own error."""
    value = _object(line)
    if value.get("ok") is True:
        return value
    said = value.get("error")
    if not isinstance(said, dict):
        raise _misunderstood("an answer without ok and without an error")
    try:
        code = Code(str(said.get("code")))
    except ValueError:
        code = Code.USAGE_ARGUMENTS  # a newer session's
    raise DevloopError.of(
        code,
        str(said.get("message")),
        cause=str(said["cause"]) if said.get("cause") else None,
        suggestions=tuple(map(str, said.get("suggestions") or ())),
    )


def too_long() -> DevloopError:
    return _misunderstood(f"a line has at most {LONGEST_REQUEST} bytes")


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise _misunderstood("it is not JSON") from None
    if not isinstance(value, dict):
        raise _misunderstood("it is no JSON object")
    return value


def _misunderstood(cause: str) -> DevloopError:
    return DevloopError.of(
        Code.USAGE_ARGUMENTS, "a line of the control socket is not understood", cause=cause
    )
