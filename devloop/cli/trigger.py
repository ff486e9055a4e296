"""`devloop trigger`: another iteration, whatever the disk has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, output_option, project_options
from devloop.cli.reach import state_dir
from devloop.cli.suggestions import service_names
from devloop.errors import Code, DevloopError, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.control.outcome import TriggerOutcome


@click.command("trigger")
@click.argument(
    "service", required=False, default="", metavar="[SERVICE]", shell_complete=service_names
)
@click.option("--wait", is_flag=True, help="Wait for its end; the exit status tells the result.")
@click.option("--fresh", is_flag=True, help="Build all of it, without caches and shortcuts.")
@output_option
@project_options
def command(options: CommonOptions, service: str, wait: bool, fresh: bool, output: str) -> int:
    """Have the running session build and deploy SERVICE again, whatever its files have.

    Without SERVICE all of its services. With --wait the exit status is that of `devloop run`; where
    a newer save supersedes an iteration, the one that comes through counts.
    """
    from devloop.control.client import ControlClient, ask  # noqa: PLC0415 - see main.py
    from devloop.control.outcome import outcomes_of  # noqa: PLC0415 - as above
    from devloop.control.protocol import EventsRequest, TriggerRequest  # noqa: PLC0415 - as above

    directory, request = state_dir(options), TriggerRequest(service=service, fresh=fresh)
    if not wait:
        answer = ask(directory, request)
        said = {"services": answer["services"], "id": answer["id"]}
        asked = f"{', '.join(said['services'])}: asked for{' a full build' if fresh else ''}"
        click.echo(json.dumps(said) if output == "json" else asked)
        return 0
    # Followed before it is asked for, so that no flood of events is in between.
    with ControlClient(directory, EventsRequest(follow=True, quiet=True)) as client:
        answer = ask(directory, request)
        records = (record for _, record in client.records())
        outcomes = outcomes_of(records, answer["id"], answer["services"])
    return show_outcomes(outcomes, output)


def show_outcomes(outcomes: Mapping[str, TriggerOutcome], output: str) -> int:
    """Say how what was asked for ended; the exit status. Errors: env/no-session, where it did
    not."""
    for name, outcome in outcomes.items():
        _show(outcome, output)
        if outcome.removed:
            click.echo(f"{name}: devloop.yaml has the service no more", err=output == "json")
    if any(each.finished is None and not each.removed for each in outcomes.values()):
        raise DevloopError.of(
            Code.ENV_NO_SESSION, "the session ended before the iteration that was asked for"
        )
    return next((each.status for each in outcomes.values() if each.status), ExitStatus.DONE)


def _show(outcome: TriggerOutcome, output: str) -> None:
    from devloop.ui.sanitize import plain  # noqa: PLC0415 - see main.py
    from devloop.ui.text import duration  # noqa: PLC0415 - as above

    finished = outcome.finished
    if finished is None:
        return
    if output == "json":
        click.echo(json.dumps({**finished, "problems": outcome.problems}))
        return
    word = "stopped" if finished["stopped"] else finished["outcome"]
    line = f"{finished['service']} #{finished['iter']} {word} {duration(finished['ms'])}"
    why = [f"{each['code']}: {each['message']}" for each in outcome.problems]
    for text in (line, *(f"  {each}" for each in why or [finished["why"]] if each)):
        click.echo(plain(text))
