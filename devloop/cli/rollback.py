"""`devloop rollback`: the last good image again."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click

from devloop.cli.options import CommonOptions, load, output_option, project_options
from devloop.cli.reach import state_dir
from devloop.cli.suggestions import service_names
from devloop.errors import Code, DevloopError, ExitStatus

if TYPE_CHECKING:
    from pathlib import Path


@click.command("rollback")
@click.argument(
    "service", required=False, default="", metavar="[SERVICE]", shell_complete=service_names
)
@click.option("--wait", is_flag=True, help="Wait for its end; the exit status tells the result.")
@output_option
@project_options
def command(options: CommonOptions, service: str, wait: bool, output: str) -> int:
    """Serve the last image of SERVICE that was ready before the one that serves now.

    Where what runs is broken or on its way, the last one that was ready. Nothing is built. Once
    more goes one further back. Without SERVICE it is the one that changed last.

    In a session it stays so until the next save of the service, or `devloop trigger`. Without a
    session it is deployed here, and waited for; the next session deploys what is on disk.
    """
    directory = state_dir(options)
    status = _in_session(directory, service, output, wait=wait)
    return _without_session(options, service, output) if status is None else status


def _in_session(directory: Path, service: str, output: str, *, wait: bool) -> int | None:
    """The exit status; None where no session runs."""
    from devloop.cli.trigger import show_outcomes  # noqa: PLC0415 - see main.py
    from devloop.control.client import ControlClient, ask  # noqa: PLC0415 - as above
    from devloop.control.outcome import outcomes_of  # noqa: PLC0415 - as above
    from devloop.control.protocol import EventsRequest, RollbackRequest  # noqa: PLC0415 - as above

    request = RollbackRequest(service=service)
    with contextlib.ExitStack() as stack:
        client = None
        try:
            if wait:
                # Followed before it is asked for, so that no flood of events is in between.
                events = EventsRequest(follow=True, quiet=True)
                client = stack.enter_context(ControlClient(directory, events))
            answer = ask(directory, request)
        except DevloopError as error:
            if error.code is not Code.ENV_NO_SESSION:
                raise
            return None
        said = {"service": answer["services"][0], "id": answer["id"], "back": answer["back"]}
        if client is not None:
            records = (record for _, record in client.records())
            return show_outcomes(outcomes_of(records, said["id"], [said["service"]]), output)
    asked = f"{said['service']}: back to {_name(said['back'])}"
    click.echo(json.dumps(said) if output == "json" else asked)
    return ExitStatus.DONE


def _name(back: dict[str, Any]) -> str:
    return f"#{back['iter']}" if back["iter"] is not None else str(back["image"])


def _without_session(options: CommonOptions, service: str, output: str) -> int:
    from devloop.app.rollback import roll_back  # noqa: PLC0415 - see main.py

    def say(text: str) -> None:
        from devloop.ui.sanitize import plain  # noqa: PLC0415 - see main.py

        click.echo(plain(text), err=output == "json")

    done = roll_back(load(options), service, say)
    if output == "json":
        click.echo(json.dumps(done))
    return ExitStatus.DONE
