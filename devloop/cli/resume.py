"""`devloop resume`: a paused session goes on."""

from __future__ import annotations

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.reach import state_dir
from devloop.errors import ExitStatus


@click.command("resume")
@project_options
def command(options: CommonOptions) -> int:
    """Have a session go on after `devloop pause`, with all that was saved meanwhile as one
    change."""
    from devloop.control.client import ask  # noqa: PLC0415 - see main.py
    from devloop.control.protocol import ResumeRequest  # noqa: PLC0415 - as above

    ask(state_dir(options), ResumeRequest())
    click.echo("the session goes on")
    return ExitStatus.DONE
