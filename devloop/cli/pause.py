"""`devloop pause`: nothing is built or deployed for now."""

from __future__ import annotations

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.reach import state_dir
from devloop.errors import ExitStatus


@click.command("pause")
@project_options
def command(options: CommonOptions) -> int:
    """Have the running session build and deploy nothing, until `devloop resume`.

    What is under way comes to the end of its step. Saves are gathered: they are one change when the
    session goes on. Logs and forwarded ports stay.
    """
    from devloop.control.client import ask  # noqa: PLC0415 - see main.py
    from devloop.control.protocol import PauseRequest  # noqa: PLC0415 - as above

    ask(state_dir(options), PauseRequest())
    click.echo("paused: `devloop resume` goes on")
    return ExitStatus.DONE
