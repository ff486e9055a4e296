"""`devloop events`: the event stream of the running session, or what was written down of it."""

from __future__ import annotations

import sys

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.reach import recorded, since_option, state_dir
from devloop.errors import ExitStatus


@click.command("events")
@click.option("--follow", is_flag=True, help="Go on with what happens, until the session ends.")
@since_option
@click.option("-o", "--output", type=click.Choice(["json"]), default="json", show_default=True)
@project_options
def command(options: CommonOptions, follow: bool, since: float | None, output: str) -> int:
    """Print the session's events, as `devloop dev --output json` does: one JSON object a line.

    First what has happened so far, as much of it as is kept; an event of type `dropped` counts what
    is not. Without a session it is what the last one wrote down, with --since that of earlier ones
    too.
    """
    del output  # there is one
    from devloop.control.protocol import EventsRequest  # noqa: PLC0415 - see main.py

    out = sys.stdout.buffer
    for line, _ in recorded(state_dir(options), EventsRequest(follow=follow), since):
        out.write(line)
        if follow:
            out.flush()
    return ExitStatus.DONE
