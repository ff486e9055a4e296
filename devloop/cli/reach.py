"""What the commands share that talk to a running session: finding it, and since when."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cli.options import CommonOptions
    from devloop.control.protocol import EventsRequest


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Since(click.ParamType[float]):
    """`90s`, `5m`, `1h30m` ago, or a time as RFC 3339 has it: seconds since the epoch."""

    name = "TIME"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002 - as above
    ) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        parts = _DURATION.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return time.time() - sum(float(number) * _UNITS[unit] for number, unit in parts)
        moment = moment_of(text)
        if moment is None:
            self.fail(f"{text!r} is neither a duration (5m) nor a time (2026-11-30T14:00:00Z)")
        return moment


def moment_of(text: str) -> float | None:
    """Seconds since the epoch of a time as the event stream has it; None where it is none. Without
    a zone it is this computer's."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC).timestamp()


def is_since(record: dict[str, Any], since: float | None) -> bool:
    """Whether a record is of that time or later; one without a time is."""
    moment = None if since is None else moment_of(str(record.get("ts")))
    return since is None or moment is None or moment >= since


def state_dir(options: CommonOptions) -> Path:
    """Where the project's session keeps its files. The devloop.yaml is found, not read: it may be
    broken while its session goes on. Errors: config/not-found."""
    from devloop.config.places import find_project  # noqa: PLC0415 - see main.py: help must be quick
    from devloop.config.schema import STATE_DIR  # noqa: PLC0415 - as above

    try:
        path, _ = find_project(cwd=Path.cwd(), file=options.file, env=os.environ)
    except DevloopError:
        if (assumed := Path.cwd() / STATE_DIR).is_dir():
            return assumed  # of a session without a devloop.yaml
        raise
    return path.parent / STATE_DIR


since_option = click.option(
    "--since",
    type=Since(),
    help="Only what is newer: 90s, 5m, 1h30m, or a time such as 2026-11-30T14:00:00Z.",
)


def recorded(
    directory: Path, request: EventsRequest, since: float | None
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The records of the running session, or, where there is none and nothing is to be followed,
    those that were written down; the oldest first, each line as it is and as an object.

    Errors: env/no-session, where nothing was written down either, config/unknown-service, and as
    `ControlClient`."""
    from devloop.control.client import ControlClient, broken_off, no_session  # noqa: PLC0415 - see main.py
    from devloop.control.event_file import read_events  # noqa: PLC0415 - as above
    from devloop.control.protocol import check_service  # noqa: PLC0415 - as above

    try:
        with ControlClient(directory, request) as client:
            ended = False
            for line, record in client.records():
                ended = record.get("type") == "session.ended"
                if is_since(record, since):
                    yield line, record
    except DevloopError as error:
        if error.code != Code.ENV_NO_SESSION or request.follow:
            raise
    else:
        if request.follow and not ended:
            raise broken_off()
        return
    written = list(read_events(directory, last=since is None))
    if not written:
        raise no_session()
    services = [name for _, record in written for name in record.get("services") or ()]
    check_service(request.service, dict.fromkeys(services))
    for line, record in written:
        if is_since(record, since) and request.wants(record):
            yield line, record
